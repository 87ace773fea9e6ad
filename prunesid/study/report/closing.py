"""The last message of a finished study: where everything is, how to get its runs online.

python -m prunesid.study.report.closing configs/pocket.yaml --report results/report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunesid.study.config.study import Study, load_study
from prunesid.study.layout import Layout


def closing(study: Study, report: Path | None = None) -> str:
    """The message. `report` is where this run wrote its report, None where it wrote none."""
    layout = Layout.of(study)
    lines = [
        f"Tables and figures: {layout.ablations}",
        f"Report: {report}" if report else "Report: none yet; `make reproduce` writes one",
    ]
    if layout.published.is_file():
        lines.append(layout.published.read_text().strip())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a finished study ends with.")
    parser.add_argument("study", type=Path, help="the study's YAML file")
    parser.add_argument("--report", type=Path, help="the report that was written")
    given = parser.parse_args()
    print(closing(load_study(given.study), given.report))


if __name__ == "__main__":
    main()
