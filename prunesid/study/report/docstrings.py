"""Docstrings of this project as Markdown, and the first sentences of one.

Paragraphs stand apart by empty lines. A paragraph of terms has a term, two or more spaces and its
meaning on a line, and further lines of the meaning indented. A term as wide as its column has one
space after it. A paragraph that is indented as a whole is code.
"""

from __future__ import annotations

import re
import textwrap

TERM = re.compile(r"\S.*? {2,}\S")
# Stars stay: alone they are stars, and docstrings emphasize with them.
SPECIAL = re.compile(r"([\\_\[\]])")
# Not after "et al.".
SENTENCE = re.compile(r"(?<=\.)(?<!\bal\.)\s+(?=[A-Z`\"])")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, their lines as they are."""
    return re.split(r"\n\s*\n", text.strip("\n"))


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is neither terms nor code."""
    return not paragraph.startswith(" ") and not _are_terms(paragraph)


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph of prose, each on one line."""
    return SENTENCE.split(" ".join(paragraph.split()))


def markdown(text: str) -> str:
    """A text with prose as prose, terms as a list, and code as code."""
    return "\n\n".join(_shown(paragraph) for paragraph in paragraphs(text))


def escaped(text: str) -> str:
    """Prose without what Markdown would read as its own marks; code in backquotes stays."""
    parts = text.split("`")
    parts[::2] = [SPECIAL.sub(r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def _are_terms(paragraph: str) -> bool:
    return any(TERM.match(line) for line in paragraph.splitlines() if not line.startswith(" "))


def _shown(paragraph: str) -> str:
    if paragraph.startswith(" "):
        return f"```python\n{textwrap.dedent(paragraph)}\n```"
    if not _are_terms(paragraph):
        return escaped(" ".join(paragraph.split()))
    # Each term with the lines that belong to it.
    items = re.split(r"\n(?=\S)", paragraph)
    parts = (item.partition("  " if TERM.match(item) else " ") for item in items)
    return "\n".join(f"- `{term}`: {escaped(' '.join(said.split()))}" for term, _, said in parts)
