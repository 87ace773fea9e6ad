"""What Snakemake's report lacks: the study's title, and quiet."""

from __future__ import annotations

import html
import re
from pathlib import Path

from prunesid.core.files import atomic

TITLE = "<title>Snakemake Report</title>"
# Tailwind warns in the console that it is not built for production; the report holds it whole.
WARNING = re.compile(r'console\.warn\("cdn\.tailwindcss\.com[^"]*"\)')


def finish(report: Path, title: str) -> None:
    """Give a report that Snakemake wrote the title of the study."""
    text = report.read_text(encoding="utf-8")
    text = text.replace(TITLE, f"<title>{html.escape(title)}</title>", 1)
    with atomic(report) as part:
        part.write_text(WARNING.sub("void 0", text), encoding="utf-8")
