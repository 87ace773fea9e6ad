"""What Snakemake's report lacks: the study's title, and quiet.

python -m prunesid.study.report.finish configs/study.yaml results/report.html
"""

from __future__ import annotations

import argparse
import html
import re
from pathlib import Path

from prunesid.core.files import atomic
from prunesid.study.config.chapters import load_whole

TITLE = "<title>Snakemake Report</title>"
# Tailwind warns in the console that it is not built for production; the report holds it whole.
WARNING = re.compile(r'console\.warn\("cdn\.tailwindcss\.com[^"]*"\)')


def finish(report: Path, title: str) -> None:
    """Give a report that Snakemake wrote the title of the study."""
    text = report.read_text(encoding="utf-8")
    text = text.replace(TITLE, f"<title>{html.escape(title)}</title>", 1)
    with atomic(report) as part:
        part.write_text(WARNING.sub("void 0", text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Finishes the report that Snakemake wrote.")
    parser.add_argument("study", type=Path, help="the study's YAML file")
    parser.add_argument("report", type=Path, help="the report")
    given = parser.parse_args()
    finish(given.report, load_whole(given.study).title)


if __name__ == "__main__":
    main()
