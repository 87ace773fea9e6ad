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
    PARTS,
    ConfigError,
    Document,
    check,
    collecting,
    read_document,
    read_schema,
    valid_part,
)
from prunesid.study.config.kept_patches import Patches, parse_patches
from prunesid.study.config.model import Vision, check_tower, read_config, vision_of
from prunesid.study.config.plugins import find_plugins, load_plugins
from prunesid.study.config.printed import printed
from prunesid.study.layout import OWN, OWN_OF_MODEL

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
        """{arm: its label, whatever the ablation}.

        Labels from ablations that compare methods stand alone and come first. To any other label
        the title of its ablation is added.
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
    """A study's document: later files override earlier ones, and `given` overrides them all.

    ConfigError where a file is missing, no YAML or no mapping.
    """
    document = Document({}, ", ".join(map(str, paths)))
    for path in paths:
        if path.is_dir() or not os.path.lexists(path):
            # Files beside it are listed with its folder, ours by whichever path is shorter.
            ours = in_clone("configs")
            beside = path if path.is_dir() else path.parent
            near = (p for p in beside.glob("[!.]*.yaml") if p.is_file())
            known = {str(p): p.resolve() for p in near}
            for p in () if ours is None else ours.glob("*.yaml"):
                if p.resolve() not in known.values():
                    known[min(str(p), os.path.relpath(p), key=len)] = p.resolve()
            stranger = unknown("study", str(path), known)
            said = "is a folder" if path.is_dir() else "there is no such file"
            raise ConfigError([f"{path}: {said}. {stranger}"])
        read = read_document(path)
        if not isinstance(read.value, dict):
            raise ConfigError([f"{path}: a study is an object of fields and their values"])
        document = read.over(document, nested=True)
    return Document.from_mapping(given or {}, "the command line").over(document, nested=True)


def parse_study(
    document: Document | Mapping[str, Any],
    folder: Path | None = None,
    origin: str = "config",
) -> Study:
    """The study of a document, or of a mapping as Snakemake's `config` gives it.

    benchmarks/ and ablations/ are looked up in `folder` (the study file's own) first, then in the
    repository's configs/. Plug-ins are loaded from `folder`, or the working directory without one,
    once all else that can be known without them is right. ConfigError lists every problem, with
    file and line where a document knows them; a mapping is called `origin`.
    """
    if not isinstance(document, Document):
        document = Document(document, origin)
    problems: list[str] = []
    given = valid_part(document, read_schema("config"), problems)
    # If plug-ins or overrides are invalid, ablations would be checked without them: for nothing.
    whole = all(given[name] == document.value.get(name, given[name]) for name in SHAPING)
    known: Mapping[str, Any] = {}
    with collecting(problems, document, "model"):
        _check_folder(given["model"], given["name"])
        known = read_config(given["model"])
    with collecting(problems, document, "model_options"):
        _check_options(known, given["model_options"])
    results = Path(given["results"])
    with collecting(problems, document, "results"):
        results = results.expanduser()
        # Raises an error with the reason if there can be no such path.
        results.resolve().exists()
    named = given.get("ablations", [])
    # Without the field `ablations`, only that it is missing is reported.
    for name in given["overrides"] if "ablations" in given else ():
        if name not in named:
            stranger = unknown("ablation of this study", name, named)
            problems.append(document.at(f"overrides: {stranger}"))
    files = _Files(document, folder, given["overrides"], problems)
    plugins: tuple[Path, ...] = ()
    with collecting(problems, document):
        plugins = find_plugins(given["plugins"], folder or Path.cwd())
    if plugins:
        # A plug-in may take seconds to import torch: first report what is wrong without it.
        for name in named if whole else ():
            files.check_ablation(name)
        files.named_benchmarks(given)
        if not problems:
            with collecting(problems, document):
                load_plugins(given["plugins"], folder or Path.cwd())
    whole = whole and not (given["plugins"] and problems)
    ablations: list[Ablation] = []
    homes: dict[str, Callable[[], Document]] = {}
    for name in named if whole else ():
        ablation = files.ablation(name, given, vision_of(known).depth)
        if ablation is not None:
            ablations.append(ablation)
            home = partial(files.home_of, name)
            homes = {arm.name: home for arm in ablation.arms} | homes
    benchmarks, calibration = files.named_benchmarks(given, ablations, known)
    problems += map(document.at, _twins(benchmarks, named))
    if (parts := given["shards"] * len(benchmarks)) > PARTS:
        cut = f"{given['shards']:,} of every benchmark are {parts:,} parts, each a chain of jobs"
        problems.append(document.at(f"shards: {cut}; a study has at most {PARTS:,}"))
    arms: tuple[Arm, ...] = ()
    with collecting(problems, document):
        arms = _once(ablations)
    vision = _vision(known, benchmarks, given["frames"])
    for arm, problem in _infeasible(vision, given["model_options"], arms):
        problems.append(homes[arm.name]().at(problem, "vary"))
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
            "results": results,
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


class _Files:
    """The YAML files of the benchmarks and ablations that a study names, each read once.

    What is wrong in them goes to `problems`.
    """

    def __init__(
        self,
        document: Document,
        folder: Path | None,
        overrides: Mapping[str, Any],
        problems: list[str],
    ) -> None:
        self._document = document
        self._folders = [each for each in (folder, in_clone("configs")) if each is not None]
        self._overrides = overrides
        self._problems = problems
        self._benchmarks: dict[str, Benchmark | None] = {}

    def check_ablation(self, name: str) -> None:
        """What is wrong in an ablation whatever its methods are."""

        def load(path: Path) -> None:
            check(ablation_document(path, self._changes(name)), read_schema("ablation"))

        self._read("ablation", name, load)

    def ablation(self, name: str, given: Mapping[str, Any], depth: int | None) -> Ablation | None:
        """An ablation of a study with `given` values; None where it is none."""

        def load(path: Path) -> Ablation:
            return load_ablation(path, given["seeds"], depth, self._changes(name))

        found = self._read("ablation", name, load)
        if found is None:
            return None
        found = replace(found, benchmarks=found.benchmarks or tuple(given.get("benchmarks", ())))
        with collecting(self._problems, self.home_of(name)):
            _check_latency(found, given["limit"])
        return found

    def home_of(self, name: str) -> Document:
        """The document of an ablation that was read, for its problems' file and line."""
        return ablation_document(_find(self._folders, "ablation", name), self._changes(name))

    def named_benchmarks(
        self,
        given: Mapping[str, Any],
        ablations: Sequence[Ablation] = (),
        known: Mapping[str, Any] | None = None,
    ) -> tuple[list[Benchmark], Benchmark | None]:
        """The benchmarks that a study and its ablations name, each once, and the calibration set.

        known  the model's config.json, for what the model cannot take
        """
        # {benchmark: the first document that names it}
        asked = dict.fromkeys(given.get("benchmarks", ()), self._document)
        for ablation in ablations:
            for name in ablation.benchmarks or ():
                if name not in asked:
                    asked[name] = self.home_of(ablation.name)
        found = [self._benchmark(name, home, "benchmarks", known) for name, home in asked.items()]
        calibration = None
        if given["calibration"] is not None:
            own = given["calibration"], self._document, "calibration"
            calibration = self._benchmark(*own, known)
        return [each for each in found if each is not None], calibration

    def _benchmark(
        self, name: str, home: Document, field: str, known: Mapping[str, Any] | None
    ) -> Benchmark | None:
        """The benchmark that a field of the document `home` names."""
        if name not in self._benchmarks:
            self._benchmarks[name] = self._read("benchmark", name, _benchmark, field, home)
        found = self._benchmarks[name]
        with collecting(self._problems, home):
            if found is not None and known is not None:
                _check_clips(known, found, field)
            return found
        return None

    def _changes(self, name: str) -> Document | None:
        return self._document.part(f"overrides.{name}") if name in self._overrides else None

    def _read(
        self,
        what: str,
        name: str,
        load: Callable[[Path], Loaded],
        field: str | None = None,
        home: Document | None = None,
    ) -> Loaded | None:
        """The content of the file that a field names; None if it is missing or invalid."""
        path = None
        with collecting(self._problems, home or self._document):
            path = _find(self._folders, what, name, field)
        with collecting(self._problems):
            return None if path is None else load(path)
        return None


def _twins(benchmarks: Sequence[Benchmark], ablations: Sequence[str]) -> Iterator[str]:
    """Problems: benchmarks with the same task and metric, and names that differ in case alone."""
    for one, two in combinations(benchmarks, 2):
        if (one.task, one.metric) == (two.task, two.metric):
            yield f"benchmarks: '{two.name}' and '{one.name}' are one task and metric; keep one"
    names = {"benchmarks": [benchmark.name for benchmark in benchmarks], "ablations": ablations}
    for field, own in names.items():
        for first, second in combinations(own, 2):
            if first.casefold() == second.casefold() and first != second:
                same = f"'{first}' and '{second}' are one folder where case does not count"
                yield f"{field}: {same}; rename one"


def _benchmark(path: Path) -> Benchmark:
    """The benchmark in a YAML file."""
    document = read_document(path)
    given = check(document, read_schema("benchmark"))
    if path.stem.casefold() in OWN_OF_MODEL:
        taken = f"the study itself writes {', '.join(OWN_OF_MODEL)}"
        raise ConfigError(
            [f"{path}: {path.stem!r} cannot be the name of a folder of results: {taken}; rename it"]
        )
    column = given["paper_column"]
    if column is not None and column not in printed("benchmark"):
        stranger = unknown("column of the paper's tables", column, printed("benchmark"))
        raise ConfigError([document.at(f"paper_column: {stranger}")])
    return Benchmark(name=path.stem, **given)


def _check_folder(model: str, given: str | None) -> None:
    """ConfigError for a study's name that cannot be a folder's below `results` or in a path."""
    field, name = ("model", folder_name(model)) if given is None else ("name", given)
    wanted = None
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
        wanted = "up to 200 letters, digits, '_', '-' and '.'"
    elif name.casefold() in OWN:
        wanted = f"the study itself writes {', '.join(OWN)}"
    if wanted:
        refused = f"{name!r} cannot be the name of a folder of results: {wanted}"
        raise ConfigError([f"{field}: {refused}; rename it, or give the study another `name`"])


def folder_name(model: str) -> str:
    """The folder of a study's `model` below `results`."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model.replace("/", "--")


def _check_latency(ablation: Ablation, limit: int | None) -> None:
    """ConfigError for a clocked ablation that the study cannot clock.

    It lacks its benchmark, has arms with crops of their own, or has batches of more requests than
    `limit` leaves images.
    """
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
        # A path that exists but cannot be read, such as a broken link, gives its own error later.
        if os.path.lexists(path):
            return path
    found = (path for folder in folders for path in (folder / f"{what}s").glob("*.yaml"))
    known = {path.stem for path in found if path.is_file()}
    raise ConfigError([f"{field or what + 's'}: {unknown(what, name, known)}"])


def _vision(config: Mapping[str, Any], benchmarks: Sequence[Benchmark], frames: int) -> Vision:
    """The vision facts for the benchmarks' images or clips, whichever have more tokens."""
    shows = {benchmark.shows for benchmark in benchmarks}
    shown = [None] * (shows != {CLIPS}) + [frames] * (CLIPS in shows)
    return max((vision_of(config, each) for each in shown), key=lambda found: found.tokens or 0)


def _check_clips(
    config: Mapping[str, Any], benchmark: Benchmark, field: str = "benchmarks"
) -> None:
    """ConfigError for clips of a model that takes none."""
    if benchmark.shows == CLIPS:
        try:
            declared.refuse_without_clips(str(config.get("model_type")))
        except ValueError as error:
            raise ConfigError([f"{field}: {benchmark.name} shows clips: {error}"]) from error


def _check_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if not (config and options):
        return
    from prunesid.families import check_options  # here: it takes seconds, and few studies ask

    try:
        check_options(str(config.get("model_type")), options)
    except ValueError as error:
        raise ConfigError([f"model_options: {error}"]) from error
    if options.get(TEXT_TOWER) is not None:
        check_tower(options[TEXT_TOWER], f"model_options.{TEXT_TOWER}", config)


def _check_calibration(
    chosen: Benchmark | None, benchmarks: Iterable[Benchmark], arms: Iterable[Arm]
) -> None:
    """ConfigError if the calibration set is missing but needed, or shares a benchmark's task."""
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
    """Arms that the family, the tokens, the depth of encoder or model, or the options rule out."""
    family = declared.find(str(vision.family))
    taken = {} if family is None else family.choices
    chosen = {name: value for name, value in options.items() if name in CHOICES}

    def fewer(arm: Arm) -> None:
        if vision.tokens is not None and arm.budget is not None and arm.budget > vision.tokens:
            raise ValueError(
                f"budget: {arm.budget} exceeds the {vision.tokens} visual tokens of the model; it "
                "would keep them all, as the arm of all tokens does"
            )

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
        (fewer, list(arms)),
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
