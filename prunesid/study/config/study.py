"""A study's configuration: checked whole before anything runs, frozen afterwards.

    study = load_study(Path("configs/pocket.yaml"))

Benchmarks and ablations are named by their YAML files in the folders `benchmarks` and `ablations`.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from prunesid.core.crops import CHOICES
from prunesid.core.registry import unknown
from prunesid.families import declared
from prunesid.images.media import FRAMES
from prunesid.images.relevance import TEXT_TOWER, encoder_of
from prunesid.methods import decoder, encoder, features
from prunesid.study.clone import in_clone
from prunesid.study.config.ablation import Ablation, ablation_document, load_ablation
from prunesid.study.config.arm import ALL_TOKENS, Arm, once
from prunesid.study.config.documents import (
    ConfigError,
    Document,
    check,
    collecting,
    read_document,
    read_schema,
    valid_part,
)
from prunesid.study.config.kept_patches import Patches, parse_patches
from prunesid.study.config.model import Vision, read_config, vision_of
from prunesid.study.config.plugins import load_plugins
from prunesid.study.config.printed import printed

CALIBRATED = "calibrated"
CLIPS = "clips"
# Fields of a study without which an ablation means something else.
SHAPING = ("plugins", "overrides")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Benchmark:
    """One lmms-eval task and the statistic of its scores that is compared.

    `shows` is what a question shows: "images" or "clips".
    """

    name: str
    title: str
    description: str
    task: str
    metric: str
    statistic: str
    paper_column: str | None
    shows: str = "images"


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
    plugins: tuple[Path, ...]
    seeds: int
    batch_size: int
    dtype: str
    device: str
    results: Path
    limit: int | None
    bootstrap: Bootstrap
    wandb: Wandb
    calibration: Benchmark | None = None
    trackio: bool = True
    patches: Patches | None = None
    model_options: tuple[tuple[str, Any], ...] = ()
    shards: int = 1
    features: str = "keep"
    frames: int = FRAMES
    name: str | None = None
    skip_unreadable: bool = False

    @property
    def model_name(self) -> str:
        """The model's folder below `results`."""
        return self.name or folder_name(self.model)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm of every ablation once, the all-token arm first."""
        return _once(self.ablations)

    @cached_property
    def labels(self) -> dict[str, str]:
        """What a reader knows each arm by, whatever the ablation.

        The labels of ablations that compare methods say all; others follow by their title.
        """
        found: dict[str, str] = {}
        for ablation in sorted(self.ablations, key=lambda ablation: not ablation.methods):
            for arm, label in ablation.labels.items():
                whole = arm == ALL_TOKENS or ablation.methods
                found.setdefault(arm, label if whole else f"{label} ({ablation.title})")
        return found

    @cached_property
    def encoded(self) -> tuple[Benchmark, ...]:
        """The benchmarks, and the calibration set where an arm asks for it: all that is encoded."""
        needed = any(arm.dynamic == CALIBRATED for arm in self.arms)
        return (
            (*self.benchmarks, self.calibration) if needed and self.calibration else self.benchmarks
        )

    def benchmark(self, name: str) -> Benchmark:
        return next(b for b in self.encoded if b.name == name)

    def frames_of(self, benchmark: Benchmark) -> int | None:
        """The frames of a benchmark's clips; None where it shows images."""
        return self.frames if benchmark.shows == CLIPS else None

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


def shown_by(benchmarks: Iterable[Benchmark]) -> str:
    """What their questions show, as a reader is told: 'images', 'clips' or 'images and clips'."""
    return " and ".join(sorted({benchmark.shows for benchmark in benchmarks}, reverse=True))


def _once(ablations: Iterable[Ablation]) -> tuple[Arm, ...]:
    return once(arm for ablation in ablations for arm in ablation.arms)


def load_study(path: Path) -> Study:
    """The study in a YAML file. ConfigError lists every problem of it and of the files it names."""
    return parse_study(study_document([path]), folder=path.resolve().parent)


def study_document(paths: Sequence[Path], given: Mapping[str, Any] | None = None) -> Document:
    """A study's document: of several files the later ones' fields count, and those `given` most.

    ConfigError where a file is missing, no YAML or no mapping.
    """
    document = Document({}, ", ".join(map(str, paths)))
    for path in paths:
        if not path.is_file():
            # Those beside it as they would be written, ours by the shorter way.
            ours = in_clone("configs")
            known = {str(p): p.resolve() for p in path.parent.glob("[!.]*.yaml")}
            for p in () if ours is None else ours.glob("*.yaml"):
                if p.resolve() not in known.values():
                    known[min(str(p), os.path.relpath(p), key=len)] = p.resolve()
            stranger = unknown("study", str(path), known)
            raise ConfigError([f"{path}: there is no such file. {stranger}"])
        read = read_document(path)
        if not isinstance(read.value, dict):
            raise ConfigError([f"{path}: a study is an object of fields and their values"])
        document = read.over(document, nested=True)
    return Document(dict(given or {}), "the command line").over(document, nested=True)


def parse_study(
    document: Document | Mapping[str, Any],
    folder: Path | None = None,
    origin: str = "config",
) -> Study:
    """The study of a document, or of a mapping as Snakemake's `config` gives it.

    benchmarks/ and ablations/ are looked up in `folder` (the study file's own) first, then in the
    repository's configs/. Plug-ins are loaded from
    `folder`, or the working directory without one. ConfigError lists every problem, with file and
    line where a document knows them; a mapping is called `origin`.
    """
    if not isinstance(document, Document):
        document = Document(document, origin)
    problems: list[str] = []
    given = valid_part(document, read_schema("config"), problems)
    # Without its plug-ins and overrides an ablation is another, whose problems are nobody's.
    whole = all(given[name] == document.value.get(name, given[name]) for name in SHAPING)
    plugins: tuple[Path, ...] = ()
    with collecting(problems, document):
        # Before the ablations, which may name what they bring.
        plugins = load_plugins(given["plugins"], folder or Path.cwd())
    whole = whole and len(plugins) == len(given["plugins"])
    known: Mapping[str, Any] = {}
    with collecting(problems, document):
        if given["name"] is None:
            _check_folder(given["model"])
        known = read_config(given["model"])
        _check_options(known, given["model_options"])
    named, overrides = given.get("ablations", []), given["overrides"]
    # Without a field that names ablations, what is missing is that field.
    for name in overrides if "ablations" in given else ():
        if name not in named:
            stranger = unknown("ablation of this study", name, named)
            problems.append(document.at(f"overrides: {stranger}"))
    folders = [f for f in (folder, in_clone("configs")) if f is not None]

    def read(
        what: str, name: str, load: Callable[[Path], Loaded], field: str | None = None
    ) -> Loaded | None:
        """What stands in the file that a field names; None, and its problems, where it is none."""
        path = None
        with collecting(problems, document):
            path = _find(folders, what, name, field)
        with collecting(problems):
            return None if path is None else load(path)
        return None

    ablations: list[Ablation] = []
    homes: dict[str, Callable[[], Document]] = {}
    for name in named if whole else ():
        changes = document.part(f"overrides.{name}") if name in overrides else None

        def load(path: Path, changes: Document | None = changes) -> Ablation:
            return load_ablation(path, given["seeds"], vision_of(known).depth, changes)

        ablation = read("ablation", name, load)
        if ablation is None:
            continue
        own = ablation.benchmarks or tuple(given.get("benchmarks", ()))
        ablations.append(replace(ablation, benchmarks=own))
        home = partial(ablation_document, _find(folders, "ablation", name), changes)
        homes = {arm.name: home for arm in ablation.arms} | homes
        try:
            _check_latency(ablations[-1], given["limit"])
        except ConfigError as error:
            problems += map(home().at, error.problems)
    asked = [*given.get("benchmarks", ()), *(b for a in ablations for b in a.benchmarks or ())]
    found = [read("benchmark", name, _benchmark) for name in dict.fromkeys(asked)]
    benchmarks = [benchmark for benchmark in found if benchmark is not None]
    for first, second in combinations(benchmarks, 2):
        if (first.task, first.metric) == (second.task, second.metric):
            same = f"'{second.name}' and '{first.name}' are one task and metric; keep one"
            problems.append(document.at(f"benchmarks: {same}"))
    arms: tuple[Arm, ...] = ()
    with collecting(problems, document):
        arms = _once(ablations)
    vision = Vision()
    with collecting(problems, document):
        vision = _vision(known, benchmarks, given["frames"])
    ruled_out = [
        (
            arm,
            f"budget: {arm.budget} exceeds the {vision.tokens} visual tokens of the model; it "
            "would keep them all, as the arm of all tokens does",
        )
        for arm in arms
        if vision.tokens is not None and arm.budget is not None and arm.budget > vision.tokens
    ]
    for arm, problem in (*ruled_out, *_infeasible(vision, given["model_options"], arms)):
        problems.append(homes[arm.name]().at(problem, "vary"))
    calibration = None
    if given["calibration"] is not None:
        calibration = read("benchmark", given["calibration"], _benchmark, "calibration")
    if calibration is not None:
        with collecting(problems, document):
            _vision(known, [calibration], given["frames"], "calibration")
    with collecting(problems, document):
        if (given["calibration"] is None) == (calibration is None):
            _check_calibration(calibration, benchmarks, arms)
    if problems:
        raise ConfigError(problems)
    study = Study(
        **{each.name: given[each.name] for each in fields(Study) if each.name in given}
        | {
            "model_options": tuple(sorted(given["model_options"].items())),
            "benchmarks": tuple(benchmarks),
            "ablations": tuple(ablations),
            "plugins": plugins,
            "results": Path(given["results"]).expanduser(),
            "bootstrap": Bootstrap(**given["bootstrap"]),
            "wandb": Wandb(**given["wandb"]),
            "calibration": calibration,
            "patches": None,
        }
    )
    by_benchmark = {b.name: study.arms_of(b.name) for b in benchmarks}
    try:
        return replace(study, patches=parse_patches(given["patches"], by_benchmark, study.labels))
    except ConfigError as error:
        raise ConfigError(document.at(f"patches.{each}") for each in error.problems) from error


def _benchmark(path: Path) -> Benchmark:
    """The benchmark in a YAML file."""
    document = read_document(path)
    given = check(document, read_schema("benchmark"))
    column = given["paper_column"]
    if column is not None and column not in printed("benchmark"):
        stranger = unknown("column of the paper's tables", column, printed("benchmark"))
        raise ConfigError([document.at(f"paper_column: {stranger}")])
    return Benchmark(name=path.stem, **given)


def _check_folder(model: str) -> None:
    """The model's name becomes that of a folder below `results`, and part of Snakemake's paths."""
    name = folder_name(model)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
        wanted = (
            "up to 200 letters, digits, '_', '-' and '.'; rename it, or give the study a `name`"
        )
        raise ConfigError([f"model: {name!r} cannot be the name of a folder of results: {wanted}"])


def folder_name(model: str) -> str:
    """The folder of a study's `model` below `results`."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model.replace("/", "--")


def _check_latency(ablation: Ablation, limit: int | None) -> None:
    """An ablation that is clocked has the benchmark, and the study as many images as a batch."""
    options, benchmarks = ablation.latency, ablation.benchmarks or ()
    if options is None:
        return
    if ablation.clocked not in benchmarks:
        stranger = unknown("benchmark of this ablation", str(ablation.clocked), benchmarks)
        raise ConfigError([f"latency.benchmark: {stranger}"])
    own = [arm.name for arm in ablation.clocked_arms if arm.crops]
    if own:
        taken = "the clock takes crops as the model's options say"
        raise ConfigError([f"latency: {taken}; leave out arm {own[0]}"])
    if limit is not None and max(options.batches) > limit:
        raise ConfigError(
            [
                f"latency.batches: {max(options.batches)} requests at once, each on an image of "
                f"its own, but `limit` leaves {limit} images"
            ]
        )


def _find(folders: Sequence[Path], what: str, name: str, field: str | None = None) -> Path:
    """The YAML file of a benchmark or an ablation; ConfigError, naming the choices, without one."""
    for folder in folders:
        path = folder / f"{what}s" / f"{name}.yaml"
        if path.is_file():
            return path
    known = {path.stem for folder in folders for path in (folder / f"{what}s").glob("*.yaml")}
    raise ConfigError([f"{field or what + 's'}: {unknown(what, name, known)}"])


def _vision(
    config: Mapping[str, Any],
    benchmarks: Sequence[Benchmark],
    frames: int,
    field: str = "benchmarks",
) -> Vision:
    """The vision facts for the benchmarks' images or clips, whichever have more tokens.

    ConfigError for clips of a model that takes none.
    """
    clips = [benchmark.name for benchmark in benchmarks if benchmark.shows == CLIPS]
    images = [benchmark.name for benchmark in benchmarks if benchmark.shows != CLIPS]
    shown = [None] * bool(images or not clips) + [frames] * bool(clips)
    if clips:
        try:
            declared.refuse_without_clips(str(config.get("model_type")))
        except ValueError as error:
            named = ", ".join(clips)
            raise ConfigError([f"{field}: {named} show clips: {error}"]) from error
    return max((vision_of(config, each) for each in shown), key=lambda found: found.tokens or 0)


def _check_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if not options:
        return
    from prunesid.families import check_options  # here: it takes seconds, and few studies ask

    try:
        check_options(str(config.get("model_type")), options)
    except ValueError as error:
        raise ConfigError([f"model_options: {error}"]) from error


def _check_calibration(
    chosen: Benchmark | None, benchmarks: Iterable[Benchmark], arms: Iterable[Arm]
) -> None:
    """The calibration set shares no task with a benchmark and is there where an arm asks."""
    if chosen is None:
        if any(arm.dynamic == CALIBRATED for arm in arms):
            raise ConfigError(
                [
                    f"calibration: arms with dynamic: {CALIBRATED} take their budgets from "
                    "held-out images; name a benchmark of such images in `calibration`"
                ]
            )
        return
    same = [benchmark.name for benchmark in benchmarks if benchmark.task == chosen.task]
    if same:
        raise ConfigError(
            f"calibration: '{chosen.name}' and '{name}' have the same images" for name in same
        )


def _infeasible(
    vision: Vision, options: Mapping[str, Any], arms: Sequence[Arm]
) -> Iterator[tuple[Arm, str]]:
    """Arms that the family, the depth of encoder or language model, or the options rule out."""
    family = declared.find(str(vision.family))
    taken = {} if family is None else family.choices
    chosen = {name: value for name, value in options.items() if name in CHOICES}

    def readable(arm: Arm) -> None:
        for asked in arm.asked:
            encoder_of(asked, options.get(TEXT_TOWER))

    def late(arm: Arm) -> None:
        if vision.layers is not None and arm.budget is not None:
            # Where tokens depend on the image: one that is just too large to keep all.
            shape = decoder.DecoderShape(
                vision.layers, vision.tokens or arm.budget + 1, vision.axes
            )
            decoder.plan(arm.method, shape, arm.budget, **arm.params)

    def encoding(arm: Arm) -> None:
        refused = vision.family and declared.encoder_refusal(arm.method, vision.family)
        if refused:
            raise ValueError(refused)
        if vision.encoding is not None and arm.budget is not None:
            encoder.plans(arm.method, vision.encoding, arm.budget, crops=vision.crops, **arm.params)

    def crops(arm: Arm) -> None:
        for name, value in arm.crops.items():
            if value not in taken.get(name, ()):
                able = ", ".join(declared.families_choosing(name, value))
                raise ValueError(
                    f"{name}: {value!r} is no choice in the model family {vision.family!r}; it is "
                    f"one in {able}"
                )
        features.crops_of(arm.method, {**chosen, **arm.crops}, **arm.params)

    checks: tuple[tuple[Callable[[Arm], None], list[Arm]], ...] = (
        (readable, list(arms)),
        (late, [arm for arm in arms if arm.is_late]),
        (encoding, [arm for arm in arms if arm.encodes]),
        (crops, [arm for arm in arms if arm.selects and not arm.encodes]),
    )
    for refuse, checked in checks:
        for arm in checked:
            try:
                refuse(arm)
            except ValueError as error:
                yield arm, f"arm {arm.name}: {error}"
