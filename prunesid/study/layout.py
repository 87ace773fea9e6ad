"""The paths of a study's files; the one place that spells them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunesid.study.config.study import Study


# Names in the results beside the models' folders, and in a model's beside the benchmarks'.
OWN = (
    *("store", "cache", "travel", "asked", "index.html", "start.html"),
    *("report.html", "report.log", "reproduce.log"),
)
OWN_OF_MODEL = (
    *("ablations", "asked", "data", "explorer", "export", "figures", "notebook", "runs", "times"),
)


@dataclass(frozen=True)
class Layout:
    """The paths of a study's results: `model` is the folder of one model below `results`.

    A name that is left out stands in the path as Snakemake's wildcard of that kind.
    """

    results: Path
    model: Path

    @staticmethod
    def of(study: Study) -> Layout:
        return Layout(study.results, study.results / study.model_name)

    @property
    def store(self) -> Path:
        return self.results / "store"

    @property
    def checksums(self) -> Path:
        """The remembered checksums of files that have not been written since."""
        return self.model / ".checksums.json"

    @property
    def cache(self) -> Path:
        """The folder into which `datasets` copies the benchmarks."""
        return self.results / "cache"

    def data(self, task: str = "{task}") -> Path:
        """A benchmark that the study renders."""
        return self.results / "pocket" / "data" / f"{task}.parquet"

    def asked(self, stage: str, *of: str) -> Path:
        """The settings of a stage's job, perhaps `of` a benchmark or ablation."""
        return self.model.joinpath("asked", stage, *of).with_suffix(".json")

    # Of one part of a benchmark

    def features(self, benchmark: str = "{benchmark}", shard: object = "{shard}") -> Path:
        return self.model / benchmark / str(shard) / "features.safetensors"

    def head(self, benchmark: str = "{benchmark}", shard: object = "{shard}") -> Path:
        """The head of the features of a part: what they are, without the tensors."""
        return self.model / benchmark / str(shard) / "features.json"

    def scores_of_images(self, benchmark: str = "{benchmark}", shard: object = "{shard}") -> Path:
        """The information scores of a part."""
        return self.model / benchmark / str(shard) / "information.parquet"

    def questions(self, benchmark: str = "{benchmark}", shard: object = "{shard}") -> Path:
        return self.model / benchmark / str(shard) / "questions.safetensors"

    def keys(self, stage: str, benchmark: str = "{benchmark}", shard: object = "{shard}") -> Path:
        """The table of keys of a stage that works arm by arm: encoded, selections or answers."""
        return self.model / benchmark / str(shard) / f"{stage}.json"

    # Of a benchmark

    def costs(self, benchmark: str = "{benchmark}") -> Path:
        return self.model / benchmark / "costs.csv"

    def scores(self, benchmark: str = "{benchmark}") -> Path:
        return self.model / benchmark / "scores.parquet"

    def metrics(self, benchmark: str = "{benchmark}") -> Path:
        return self.model / benchmark / "scores.json"

    # Of an ablation

    @property
    def ablations(self) -> Path:
        return self.model / "ablations"

    def ablation(self, file: str, ablation: str = "{ablation}") -> Path:
        """One of its files, such as "table.html"."""
        return self.ablations / ablation / file

    def comparison(self, ablation: str = "{ablation}") -> Path:
        return self.ablation("comparison.csv", ablation)

    def timings(self, ablation: str = "{ablation}") -> Path:
        return self.ablation("timings.csv", ablation)

    # Of the study

    @property
    def information(self) -> Path:
        return self.model / "information.parquet"

    def time(self, stage: str, *of: str) -> Path:
        """Snakemake's measurement of a stage's job, in the folder `of` a benchmark or its part."""
        return self.model.joinpath(*of, "times", f"{stage}.tsv")

    @property
    def budgets(self) -> Path:
        return self.model / "budgets.parquet"

    def figure(self, file: str) -> Path:
        """A picture of no ablation, such as "information.svg"."""
        return self.model / "figures" / file

    def notebook(self, file: str) -> Path:
        return self.model / "notebook" / file

    @property
    def exported(self) -> Path:
        """The results in a shared schema."""
        return self.model / "export"

    @property
    def explorer(self) -> Path:
        """The folder with the page to look at images, kept patches and answers."""
        return self.model / "explorer"

    @property
    def runs(self) -> Path:
        """The published runs."""
        return self.model / "runs"

    @property
    def published(self) -> Path:
        """The message of publishing to the user."""
        return self.model / "published.txt"
