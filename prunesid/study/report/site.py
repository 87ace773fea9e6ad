"""The source of the documentation site: the pages of docs/, and one of every method.

    python -m prunesid.study.report.site build

writes build/mkdocs.yml and build/docs for the site generator. Files of the repository that a page
links to are copied, so that every link of the site leads somewhere in it; FileNotFoundError for a
link to nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import yaml

from prunesid.core.costs import Visual
from prunesid.methods import encoder, features
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, METHODS, QUESTION, list_methods
from prunesid.study.clone import in_clone
from prunesid.study.config.arm import text
from prunesid.study.config.model import geometry_of
from prunesid.study.report.arm_facts import count_text
from prunesid.study.report.docstrings import escaped, is_prose, markdown, paragraphs, sentences
from prunesid.study.report.fidelity import agreement_of, code_of
from prunesid.study.report.method_facts import About, about
from prunesid.study.report.method_page import PLACES, READS

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
API = """# API

All that `import prunesid` offers.

::: prunesid
    options:
      members: {names}
"""
PAGES = "method"
SHOWN = 64
# The model at whose sizes the cost of choosing is stated.
COUNTED = "llava-hf/llava-1.5-7b-hf"
SENTENCES = 3


def write_source(folder: Path) -> None:
    """Write the configuration and the pages below a folder, in the place of what was there."""
    pages = folder / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    (pages / PAGES).mkdir(parents=True)
    own = {path.name for path in in_clone("docs").glob("*.md")}
    for name in own:
        page = in_clone("docs", name)
        (pages / name).write_text(linked(page, pages, own), encoding="utf-8")
    start = linked(in_clone("README.md"), pages, own)
    (pages / "index.md").write_text(start, encoding="utf-8")
    names = METHODS.names()
    drawn = draw_methods(pages / PAGES)
    for name in names:
        said = method_text(about(name), pictured=name in drawn)
        (pages / PAGES / f"{name}.md").write_text(said, encoding="utf-8")
    import prunesid

    api = API.format(names=sorted(set(prunesid.__all__)))
    (pages / "api.md").write_text(api, encoding="utf-8")
    given = yaml.safe_load(in_clone("mkdocs.yml").read_text(encoding="utf-8"))
    for part in given["nav"]:
        if "Methods" in part:
            part["Methods"] += [{name: f"{PAGES}/{name}.md"} for name in names]
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")


def linked(page: Path, pages: Path, own: set[str]) -> str:
    """A page's text with links that lead within the site; what they need is copied to `pages`."""

    def link(match: re.Match[str]) -> str:
        picture, words, target, place = match[1], match[2], match[3], match[4] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (page.parent / target).resolve()
        if not path.exists():
            raise FileNotFoundError(f"{page}: the link to {target} leads nowhere")
        if path.parent == in_clone("docs") and path.name in own:
            return f"{picture}[{words}]({path.name}{place})"
        if path.is_dir():
            return words
        inside = path.relative_to(in_clone())
        # Pages of elsewhere are shown as the text that they are.
        copy = Path("files", f"{inside}.txt" if path.suffix in (".md", ".yaml") else inside)
        (pages / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, pages / copy)
        return f"{picture}[{words}]({copy.as_posix()})"

    return LINK.sub(link, page.read_text(encoding="utf-8"))


def draw_methods(folder: Path) -> set[str]:
    """Draw what methods keep of one image on Pocket-LLaVA; the names of those that keep patches.

    Methods inside the language model keep other tokens in every layer and are not drawn.
    """
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    import prunesid
    from prunesid.families import load
    from prunesid.pocket import WEIGHTS
    from prunesid.pocket.benchmarks import render

    data = folder / "scene.parquet"
    render("pocket_gqa", data, 1)
    row = pq.read_table(data).to_pylist()[0]
    data.unlink()
    image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    adapter = load(str(WEIGHTS), "cpu", "float32")
    given = prunesid.prepare(adapter.model, adapter.processor, row["question"], [image])
    inputs = adapter.processor(text=given[0], images=given[1], return_tensors="pt")
    drawn = set()
    for name in list_methods(ENCODER, FEATURES, QUESTION):
        short = prunesid.prune(adapter.model, adapter.processor, inputs, name, SHOWN)
        (kept,) = short.kept
        if kept.boxes(image.size):
            prunesid.draw(image, kept).save(folder / f"{name}.png")
            drawn.add(name)
    return drawn


def idea(known: About) -> tuple[str, str]:
    """The first sentences of a method's description, three at the most, and what follows them.

    They are those of the summary and of the next paragraph.
    """
    first, *others = paragraphs(known.remarks or known.meanings)
    if not is_prose(first):
        first, others = "", [first, *others]
    summary, more = sentences(known.summary), sentences(first)
    room = max(SENTENCES - len(summary), 0)
    rest = "\n\n".join(filter(None, [" ".join(more[room:]), *others]))
    return " ".join([*summary, *more[:room]]).strip(), rest


def cost_text(known: About) -> str:
    """The multiply-adds of choosing on LLaVA-1.5-7B, and their share of its whole prefill."""
    if known.place == DECODER:
        return "depends on the prompt, counted while it runs"
    asked = known.place == QUESTION
    sizes = geometry_of(COUNTED)
    tower, tokens = sizes.tower, sizes.tokens
    if known.place == ENCODER:
        assert sizes.encoding is not None
        macs: int | None = encoder.plan(known.name, sizes.encoding, SHOWN).choice_macs(tower)
    else:
        visual = Visual(tokens, sizes.width, tower.head_dim, sizes.decoder.width)
        macs = features.selection_macs(known.name, visual, SHOWN)
    if macs is None:
        return "no formula"
    share = macs / sizes.decoder.macs([tokens] * sizes.decoder.layers)
    said = f"{count_text(macs)} multiply-adds for {SHOWN} of {tokens} tokens on LLaVA-1.5-7B"
    part = f"{100 * share:.2f} %" if share >= 1e-4 else "under 0.01 %"
    said += f", {part} of the language model's on all {tokens}" if macs else ""
    return said + ("; the comparison with the question comes on top" if asked else "")


def method_text(known: About, pictured: bool = False) -> str:
    """The page of a method before it has run; `pictured`: with the picture beside it."""
    origin, measured = known.origin, agreement_of(known.name)
    summary, notes = idea(known)
    facts = {
        "Acts": PLACES[known.place],
        "Reads beside the tokens": ", ".join(READS.get(n, n) for n in known.needs) or "nothing",
        "Choosing takes": cost_text(known),
        "Paper": f"{origin.title}, {origin.venue}" if origin else known.source,
        "Authors' code": code_of(origin) if origin else "",
        "Equal to it": str(measured) if measured else "no vectors" if origin else "",
        "Code": f"`{known.module}`",
    }
    lines = [f"- **{name}:** {escaped(value)}" for name, value in facts.items() if value]
    parts = [f"# {known.name}", escaped(summary)]
    if pictured:
        said = f"What it keeps of an image on Pocket-LLaVA, {SHOWN} of 576 tokens"
        parts.append(f"![{said}]({known.name}.png)\n\n{said}.")
    parts.append("\n".join(lines))
    meanings = known.meanings if known.remarks else ""
    if known.params:
        rows = [
            f"| `{name}` | {text(p.default)} | {', '.join(map(text, p.values())) or ''} |"
            for name, p in known.params.items()
        ]
        head = ["| parameter | default | choices |", "|---|---|---|"]
        parts += ["## Parameters", "\n".join([*head, *rows]), markdown(meanings)]
    else:
        notes = "\n\n".join(filter(None, [notes, meanings]))
    if notes:
        parts += ["## What to know", markdown(notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the source of the documentation site.")
    parser.add_argument("folder", type=Path, help="takes mkdocs.yml and the folder docs")
    write_source(parser.parse_args().folder)


if __name__ == "__main__":
    main()
