"""Made-up studies of one model each, finished: methods of known accuracy at each budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from builders.synthetic_scores import BENCHMARKS, ablation_of, scores_of
from prunesid.study.analysis.comparison import sample, write_csv
from prunesid.study.analysis.pairs import compare_pairs
from prunesid.study.analysis.travel import ChapterResults, read_chapter
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.arm import Arm
from prunesid.study.config.study import Benchmark, Bootstrap, Study, Wandb
from prunesid.study.layout import Layout

FEW = Bootstrap(resamples=200)
# Methods from the best to the worst.
RANKED = ("divprune", "prunesid", "visionzip", "grid", "cls_topk", "pool")
LABELS = {"divprune": "DivPrune", "prunesid": "PruneSID", "visionzip": "VisionZip"}
VANILLA = 0.95


def spread(methods: Sequence[str], step: float = 0.06) -> dict[str, float]:
    """An accuracy for each method, the first the best."""
    return {name: 0.9 - step * place for place, name in enumerate(methods)}


def study_of(
    folder: Path,
    title: str,
    skill: Mapping[str, float],
    budgets: Sequence[int] = (64, 128),
    paper_table: int | None = None,
    benchmarks: tuple[Benchmark, ...] = BENCHMARKS,
    images: int = 40,
    seed: int = 0,
    whole: int = 576,
) -> tuple[Study, Ablation]:
    """A study with its results below `folder`, and its ablation.

    skill  accuracy of each method, which grows a little with the budget
    """
    ablation = ablation_of(
        vary=[{"method": name, "label": LABELS.get(name, name)} for name in skill],
        across={"budget": list(budgets)},
        benchmarks=[b.name for b in benchmarks],
        table={"paper_table": paper_table, "average": "column"},
        seeds=1,
    )
    study = Study(
        title=f"PruneSID on {title}",
        model=title,
        benchmarks=benchmarks,
        ablations=(ablation,),
        plugins=(),
        seeds=1,
        batch_size=8,
        dtype="float32",
        device="cpu",
        results=folder,
        limit=None,
        bootstrap=FEW,
        wandb=Wandb("disabled", "prunesid", None),
    )

    def accuracy(arm: Arm) -> float:
        return VANILLA if arm.is_vanilla else skill[arm.method] + 0.01 * budgets.index(arm.budget)

    scores = scores_of(ablation.arms, benchmarks, images, seed, accuracy, whole)
    layout = Layout.of(study)
    for name, own in scores.groupby("benchmark"):
        layout.scores(str(name)).parent.mkdir(parents=True)
        own.to_parquet(layout.scores(str(name)), index=False)
    pairs = compare_pairs(sample(scores, ablation, benchmarks, FEW))
    write_csv(pairs, layout.ablation("pairs.csv", ablation.name))
    return study, ablation


def chapter_of(folder: Path, title: str, *given: object, **options: object) -> ChapterResults:
    """The results of `study_of`, read."""
    study, ablation = study_of(folder, title, *given, **options)
    return read_chapter(study, ablation, FEW)
