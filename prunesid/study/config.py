"""A study's configuration: checked whole before anything runs, frozen afterwards.

    study = load_study(Path("configs/pocket.yaml"))

Benchmarks and ablations are named by their YAML files in the folders `benchmarks` and `ablations`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunesid.registry import unknown
from prunesid.study.ablation import Ablation, load_ablation
from prunesid.study.arm import Arm
from prunesid.study.documents import ConfigError, check, read_schema, read_yaml

ROOT = Path(__file__).resolve().parents[2]
POCKET = "pocket"


@dataclass(frozen=True)
class Benchmark:
    """One lmms-eval task and the statistic of its scores that is compared."""

    name: str
    title: str
    description: str
    task: str
    metric: str
    statistic: str
    paper_column: str | None


@dataclass(frozen=True)
class Bootstrap:
    resamples: int = 10000
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True)
class Wandb:
    mode: str
    project: str
    entity: str | None


@dataclass(frozen=True)
class Study:
    title: str
    model: str
    benchmarks: tuple[Benchmark, ...]
    ablations: tuple[Ablation, ...]
    seeds: int
    batch_size: int
    dtype: str
    device: str
    results: Path
    limit: int | None
    bootstrap: Bootstrap
    wandb: Wandb

    @property
    def model_name(self) -> str:
        """The model's folder below `results`."""
        path = Path(self.model)
        return path.resolve().name if path.is_dir() else self.model.replace("/", "--")

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm of every ablation once, the all-token arm first."""
        return _once(self.ablations)

    def benchmark(self, name: str) -> Benchmark:
        return next(b for b in self.benchmarks if b.name == name)

    def ablation(self, name: str) -> Ablation:
        return next(a for a in self.ablations if a.name == name)

    def benchmarks_of(self, ablation: Ablation) -> tuple[Benchmark, ...]:
        """The benchmarks that an ablation is measured on, in the order of its columns."""
        return tuple(self.benchmark(name) for name in ablation.benchmarks or ())

    def arms_of(self, benchmark: str) -> tuple[Arm, ...]:
        """The arms that are to answer a benchmark, each once, the all-token arm first."""
        return _once(
            a for a in self.ablations if benchmark in {b.name for b in self.benchmarks_of(a)}
        )


def _once(ablations: Iterable[Ablation]) -> tuple[Arm, ...]:
    return tuple({arm.name: arm for ablation in ablations for arm in ablation.arms}.values())


def load_study(path: Path, root: Path = ROOT) -> Study:
    """The study in a YAML file. ConfigError lists every problem of it and of the files it names."""
    if not path.is_file():
        known = sorted(str(p) for p in path.parent.glob("*.yaml"))
        raise ConfigError([f"{path}: there is no such file. {unknown('study', path, known)}"])
    return parse_study(read_yaml(path), root=root, folder=path.resolve().parent, origin=str(path))


def parse_study(
    document: Mapping[str, Any],
    root: Path = ROOT,
    folder: Path | None = None,
    origin: str = "config",
) -> Study:
    """The study of a mapping as YAML or Snakemake's `config` gives it.

    `root` holds workflow/schemas and the shipped configs; benchmarks/ and ablations/ are looked up
    in `folder` (the study file's own) first, then in root/configs. ConfigError lists every problem.
    """
    filled, problems = check(document, read_schema("config", root), origin)
    if problems:
        raise ConfigError(problems)
    folders = [f for f in (folder, root / "configs") if f is not None]
    ablations = []
    for name in filled["ablations"]:
        path = _find(folders, "ablations", name, "ablation", origin, problems)
        if path is not None:
            with _Collecting(problems):
                ablation = load_ablation(path, root, filled["seeds"])
                own = ablation.benchmarks or tuple(filled["benchmarks"])
                ablations.append(replace(ablation, benchmarks=own))
    names = [*filled["benchmarks"], *(b for a in ablations for b in a.benchmarks or ())]
    benchmarks = []
    for name in dict.fromkeys(names):
        path = _find(folders, "benchmarks", name, "benchmark", origin, problems)
        if path is not None:
            with _Collecting(problems):
                benchmarks.append(_load_benchmark(path, root))
    with _Collecting(problems):
        _check_model(filled["model"], _once(ablations))
    if problems:
        raise ConfigError(problems)
    plain = ("title", "model", "seeds", "batch_size", "dtype", "device", "limit")
    return Study(
        **{name: filled[name] for name in plain},
        benchmarks=tuple(benchmarks),
        ablations=tuple(ablations),
        results=Path(filled["results"]),
        bootstrap=Bootstrap(**filled["bootstrap"]),
        wandb=Wandb(**filled["wandb"]),
    )


class _Collecting:
    """Gathers the problems of a ConfigError, so that one pass over a study reports them all."""

    def __init__(self, problems: list[str]):
        self.problems = problems

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, ConfigError):
            self.problems += error.problems
            return True
        return False


def _find(
    folders: list[Path], kind: str, name: str, what: str, origin: str, problems: list[str]
) -> Path | None:
    for folder in folders:
        path = folder / kind / f"{name}.yaml"
        if path.is_file():
            return path
    known = sorted({p.stem for folder in folders for p in (folder / kind).glob("*.yaml")})
    problems.append(f"{origin}: {unknown(what, name, known)}")
    return None


def _load_benchmark(path: Path, root: Path) -> Benchmark:
    document, problems = check(read_yaml(path), read_schema("benchmark", root), str(path))
    if problems:
        raise ConfigError(problems)
    return Benchmark(name=path.stem, **document)


def _check_model(model: str, arms: Iterable[Arm]) -> None:
    described = _model_config(model)
    vision = json.loads(described.read_text(encoding="utf-8")).get("vision_config") or {}
    size, patch = vision.get("image_size"), vision.get("patch_size")
    if not isinstance(size, int) or not isinstance(patch, int):
        return
    tokens = (size // patch) ** 2
    problems = []
    for arm in arms:
        if arm.budget is not None and arm.budget > tokens:
            problems.append(f"budget: {arm.budget} exceeds the {tokens} visual tokens of '{model}'")
    if problems:
        raise ConfigError(problems)


def _model_config(model: str) -> Path:
    if model == POCKET:
        config = ROOT / "prunesid" / "pocket" / "weights" / "config.json"
        if config.is_file():
            return config
        raise ConfigError(["model: Pocket-LLaVA's weights are missing; `make pocket` trains them"])
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path / "config.json"
    if path.exists():
        raise ConfigError(
            [f"model: '{model}' holds no config.json; it is no model saved by transformers"]
        )
    if model.count("/") == 1 and not model.startswith((".", "~", "/")):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        raise ConfigError(
            [
                f"model: there is no folder '{model}' and no such model in the local Hugging Face "
                f"cache; `hf download {model}` fetches it, 'pocket' is the embedded model"
            ]
        )
    near = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    found = unknown("model", path.name, [POCKET, *near])
    raise ConfigError([f"model: there is no folder '{model}'. {found}"])
