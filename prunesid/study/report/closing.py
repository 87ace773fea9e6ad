"""The last message of a finished study: where everything is, how to get its runs online."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prunesid.study.config.study import Study
from prunesid.study.files.features import skipped_of
from prunesid.study.layout import Layout
from prunesid.study.stages.shard import shards

FRONT = "index.html"


def closing(studies: Sequence[Study], report: Path | None = None) -> str:
    """The message of a study's chapters.

    report  where this run wrote its report, None where it wrote none
    """
    layouts = [Layout.of(study) for study in studies]
    lines = [said for study in studies for said in _left_out(study)]
    page = layouts[0].results / FRONT
    if not page.is_file():
        lines += [f"Tables and figures: {layout.ablations}" for layout in layouts]
    lines.append(f"Report: {report or 'none yet; `make reproduce` writes one'}")
    lines += [f"First page: {page}"] if page.is_file() else []
    explorers = [layout.explorer / FRONT for layout in layouts]
    lines += [f"Explorer: {page}" for page in explorers if page.is_file()]
    return "\n".join([*lines, *published(layouts)])


def published(layouts: Sequence[Layout]) -> list[str]:
    """How to see the runs of a study's chapters and how to get them online: each line once."""
    said = [x.published.read_text().splitlines() for x in layouts if x.published.is_file()]
    lines = [line for own in said for line in own if not line.startswith("Runs: ")]
    # The dashboard of all chapters, then what belongs to W&B, whose lines go on below.
    first = [line for line in lines if line.startswith("Dashboard: ")]
    return list(dict.fromkeys([*first, *(line for line in lines if line not in first)]))


def _left_out(study: Study) -> Iterator[str]:
    """A line for each benchmark of which something cannot be read."""
    layout = Layout.of(study)
    for benchmark in study.encoded if study.skip_unreadable else ():
        heads = (layout.head(benchmark.name, shard) for shard in shards(study.shards))
        skipped = skipped_of(head for head in heads if head.is_file())
        if skipped:
            questions = sum(each.questions for each in skipped.values())
            yield (
                f"Left out of {benchmark.title}: {questions:,} questions on {len(skipped):,} that "
                f"cannot be read, for example: {next(iter(skipped.values())).reason}"
            )
