"""The texts of a finished study that a reader sees, and names in them that only the code knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from prunesid.study.config.study import Study

# What is no text: styles, scripts, and the code of the notebook's cells and of a method's file.
HIDDEN = {"style", "script", "pre", "code", "metadata"}


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in HIDDEN:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside and data.strip():
            self.found.append(" ".join(data.split()))

    def handle_comment(self, data: str) -> None:
        # Matplotlib draws letters as shapes, and says what they are.
        self.found.append(" ".join(data.split()))


def texts_of(path: Path) -> list[str]:
    """The texts between the tags of a page or picture, or the lines and cells of another file."""
    content = path.read_text(encoding="utf-8")
    if path.suffix in (".html", ".svg"):
        parser = _Texts()
        parser.feed(content)
        return parser.found
    if path.suffix == ".json":
        run = json.loads(content)
        rows = (run["predictions"] or {}).get("rows", [])
        shown = [run["name"], *run["tags"], *(p["caption"] for p in run["pictures"])]
        shown += [str(run["config"].get(name)) for name in ("row", "column", "reference")]
        return shown + [str(cell) for row in rows for cell in row]
    # Neither marks of Markdown nor names of files.
    plain = re.sub(r"\]\([^)]*\)", "]", content)
    return [part.strip(" *`#") for line in plain.splitlines() for part in line.split("|")]


def shown_to_readers(results: Path) -> Iterator[Path]:
    """The pages, pictures and runs below a study's results."""
    for pattern in ("**/*.html", "**/*.md", "**/*.svg", "**/runs/json/**/*.json"):
        yield from sorted(results.glob(pattern))
    yield from sorted(results.glob("*/published.txt"))


def internal_names(study: Study, text: str) -> list[str]:
    """Names of arms that a text has: those that no reader could take for words, in any place."""
    names = {arm.name for arm in study.arms}
    coined = [name for name in names if "-" in name or "_" in name] + ["vanilla"]
    found = [name for name in coined if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text)]
    return found + ([text] if text in names and text not in found else [])
