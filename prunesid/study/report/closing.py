"""The last message of a finished study: where everything is, how to get its runs online.

python -m prunesid.study.report.closing configs/pocket.yaml --report results/report.html
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from prunesid.study.config.study import Study, load_study
from prunesid.study.files.features import skipped_of
from prunesid.study.layout import Layout
from prunesid.study.stages.shard import shards


def closing(study: Study, report: Path | None = None) -> str:
    """The message. `report` is where this run wrote its report, None where it wrote none."""
    layout = Layout.of(study)
    lines = [
        *_left_out(study, layout),
        f"Tables and figures: {layout.ablations}",
        f"Report: {report}" if report else "Report: none yet; `make reproduce` writes one",
    ]
    if layout.published.is_file():
        lines.append(layout.published.read_text().strip())
    return "\n".join(lines)


def _left_out(study: Study, layout: Layout) -> Iterator[str]:
    """A line for each benchmark of which something cannot be read."""
    for benchmark in study.encoded if study.skip_unreadable else ():
        heads = (layout.head(benchmark.name, shard) for shard in shards(study.shards))
        skipped = skipped_of(head for head in heads if head.is_file())
        if skipped:
            questions = sum(each.questions for each in skipped.values())
            yield (
                f"Left out of {benchmark.title}: {questions:,} questions on {len(skipped):,} that "
                f"cannot be read, for example: {next(iter(skipped.values())).reason}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="What a finished study ends with.")
    parser.add_argument("study", type=Path, help="the study's YAML file")
    parser.add_argument("--report", type=Path, help="the report that was written")
    given = parser.parse_args()
    print(closing(load_study(given.study), given.report))


if __name__ == "__main__":
    main()
