"""What a name may look like, of whatever has one: benchmark, ablation, axis, method, figure kind.

Names become parts of paths, of file names and of Snakemake's wildcards.
"""

from __future__ import annotations

import re

# With prefixes and suffixes, shorter than the 255 bytes of a file's name.
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RULE = "a name is of 1 to 100 letters, digits, '_' and '-'"
# Characters that would break a line of a page, a table or a terminal.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_name(kind: str, name: str) -> str:
    """The name; ValueError where it is none."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r}: {RULE}.")
    return name
