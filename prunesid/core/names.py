"""What a name may look like, of whatever has one: benchmark, ablation, axis, method, figure kind.

Names become parts of paths, of file names and of Snakemake's wildcards.
"""

from __future__ import annotations

import re

# With prefixes and suffixes, shorter than the 255 bytes of a file's name.
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RULE = "a name is of 1 to 100 letters, digits, '_' and '-'"
# Characters that would break a line of a page, a table or a terminal, and those that show nothing
# or turn the direction of others.
UNSEEN = r"\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
CONTROL = re.compile(rf"[\x00-\x1f\x7f-\x9f{UNSEEN}]")


def check_name(kind: str, name: str) -> str:
    """The name; ValueError where it is none."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r}: {RULE}.")
    return name
