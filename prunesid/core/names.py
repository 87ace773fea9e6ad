"""The rule for names of benchmarks, ablations, axes, methods, figure kinds and the like.

Names become parts of paths, of file names and of Snakemake's wildcards.
"""

from __future__ import annotations

import re

# Short enough that a file's name with prefixes and suffixes stays below 255 bytes.
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RULE = "a name is of 1 to 100 letters, digits, '_' and '-'"
# Characters that would break a line of a page, a table or a terminal, that are invisible, or that
# change the writing direction.
UNSEEN = r"\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
CONTROL = re.compile(rf"[\x00-\x1f\x7f-\x9f{UNSEEN}]")


def check_name(kind: str, name: str) -> str:
    """The name itself; ValueError if it is not valid."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r}: {RULE}.")
    return name
