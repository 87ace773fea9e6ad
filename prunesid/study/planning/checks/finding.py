"""One line of a check: what was looked for, how it stands, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, MISSING, UNKNOWN = "ok", "missing", "unknown"


@dataclass(frozen=True)
class Finding:
    """`state` is OK, MISSING or UNKNOWN; `remedy` says what to do where it is not OK.

    `download` counts the bytes that are still to be fetched, as far as they are known.
    """

    state: str
    what: str
    detail: str
    remedy: str = ""
    download: float = 0.0


def text(findings: Iterable[Finding]) -> str:
    """The findings for people, a line each, what to do below it."""
    rows = list(findings)
    states = max((len(row.state) for row in rows), default=0)
    names = max((len(row.what) for row in rows), default=0)
    lines = []
    for row in rows:
        lines.append(f"{row.state.ljust(states)}  {row.what.ljust(names)}  {row.detail}")
        if row.remedy:
            lines.append(f"{'':{states + names + 4}}-> {row.remedy}")
    return "\n".join(lines)


def summary(findings: Iterable[Finding]) -> str:
    """How many there are of each kind that matters."""
    states = [row.state for row in findings]
    counts = {state: states.count(state) for state in (MISSING, UNKNOWN) if state in states}
    if not counts:
        return "Everything is there."
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{said} of {len(states)}." + ("" if MISSING in counts else " Nothing known is missing.")
