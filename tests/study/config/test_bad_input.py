"""Bad studies, and files that they name: what is refused, with file, line and choices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prunesid.pocket import WEIGHTS
from prunesid.study.config.chapters import load_whole
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.study import load_study
from prunesid.study.planning.checks.start import refuse_unready

ROOT = Path(__file__).resolve().parents[3]
STUDY = {"title": "T", "benchmarks": ["pocket_pope"], "ablations": ["mine"], "model": "pocket"}
ABLATION = "title: A\nvary:\n  method: [prunesid, grid]\n"
BENCHMARK = "title: B\ntask: pocket_gqa\nmetric: exact_match\nstatistic: mean\n"


def lay(folder: Path, **files: str | bytes) -> Path:
    """A study's file beside its ablation `mine`; `files` (study, ablation, ...) replace these."""
    names = {"study": "study.yaml", "ablation": "ablations/mine.yaml"}
    names |= {"benchmark": "benchmarks/own.yaml", "plugin": "plugin.py", "config": "m/config.json"}
    contents = {"study": yaml.safe_dump(STUDY, sort_keys=False), "ablation": ABLATION, **files}
    for name, content in contents.items():
        path = folder / names[name]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / names["study"]


PLUGIN = """
from prunesid.core.parameters import Param
from prunesid.methods.features import register

@register("mine", params={{"{}": Param("x", str, None)}})
def mine(record, budget, draws, *, a): ...
"""


def study(**changes: object) -> str:
    return yaml.safe_dump(STUDY | changes, sort_keys=False)


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        refuse_unready(load_study(path))
    return "\n".join(caught.value.problems).replace(f"{path.parent}/", "")


A, S = "ablations/mine.yaml", "study.yaml"
FIRST_NAME = "a name is of 1 to 100 letters, digits"
CASES = {
    # Files that are no YAML, or more than it.
    "study UTF-16": ({"study": "title: T".encode("utf-16")}, f"{S}: no UTF-8 text"),
    "study not closed": ({"study": "title: [T"}, f"{S}:1: no valid YAML"),
    "study a list": ({"study": "- title"}, f"{S}: a study is an object"),
    "study empty": ({"study": ""}, f"{S}: a study is an object"),
    "study too long": ({"study": "#" * (2**20 + 1)}, f"{S}: more than 1,048,576 bytes"),
    "ablation not UTF-8": ({"ablation": b"title: \xff"}, f"{A}: no UTF-8 text"),
    "ablation nested": ({"ablation": "[" * 5000}, f"{A}: nested more than 50 deep"),
    "ablation in itself": ({"ablation": "&a [*a]"}, f"{A}:1: no valid YAML: nested more"),
    "ablation bursting": (
        {
            "ablation": "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{y}: &{y} [*{x},*{x},*{x},*{x},*{x},*{x},*{x},*{x},*{x}]\n"
                for x, y in zip("abcdefgh", "bcdefghi", strict=True)
            )
        },
        "or more than 100,000 values",
    ),
    "ablation of Python": (
        {"ablation": "!!python/object:os.x {}"},
        f"{A}:1: no valid YAML: the tag",
    ),
    "key twice": ({"ablation": ABLATION + "title: B\n"}, "the key 'title' occurs twice"),
    "key a list": ({"ablation": "title: A\nvary: {[1]: [2]}"}, f"{A}:2: no valid YAML: a key is"),
    "axis a number": ({"ablation": "title: A\nvary:\n  64: [1]"}, f"{A}:3: Unknown parameter of p"),
    "axis null": ({"ablation": "title: A\nvary: {null: [1]}"}, f"{A}:2: Unknown parameter of pru"),
    "axis with a space": ({"ablation": "title: A\nvary: {a b: [1]}"}, f"{A}:2: vary: 'a b': a nam"),
    # Numbers that YAML 1.1 reads otherwise, and numbers that are none.
    "octal budget": ({"ablation": ABLATION + "across: {budget: [0100]}"}, "'0100' is no positive"),
    "base 60": (
        {"ablation": ABLATION + "across: {budget: [1:04]}"},
        f"{A}:4: budget: '1:04' is no",
    ),
    "shards": ({"study": study(shards=2.0)}, f"{S}:7: shards: 2.0 is not of type 'integer'"),
    "digits": ({"study": study() + f"limit: {'9' * 5000}"}, f"{S}:7: no valid YAML"),
    "NaN": ({"study": study(bootstrap={"confidence": float("nan")})}, f"{S}:8: bootstrap.confide"),
    "resamples": ({"study": study(bootstrap={"resamples": 10**12})}, "maximum of 1000000"),
    "budget in quotes": (
        {"ablation": ABLATION + 'across: {budget: ["64"]}'},
        f"{A}:4: budget: '64' is no positive number of tokens (or 'all'); in quotes it is text",
    ),
    "all of an unknown method": (
        {"ablation": "title: A\nvary: [{method: gird, budget: all}, {method: pool}]"},
        f"{A}:2: Unknown method 'gird'. Did you mean 'grid'",
    ),
    "limit without end": (
        {"study": study(limit=10**400)},
        f"{S}:7: limit: ",
    ),
    "calibration by clips": (
        {
            "study": study(calibration="pocket_video_tgif"),
            "ablation": "title: A\nvary: {dynamic: [null, calibrated]}",
        },
        f"{S}:7: calibration: pocket_video_tgif show clips: llava models take no",
    ),
    "limit in quotes": (
        {"study": study(limit="2")},
        f"{S}:7: limit: '2' is text, being in quotes: write it without them",
    ),
    "budget above the tokens": (
        {"ablation": ABLATION + "across: {budget: [577]}"},
        "577 exceeds the 576 visual tokens of the model; it would keep them all",
    ),
    "calibration": (
        {"study": study(calibration="nope")},
        f"{S}:7: calibration: Unknown benchmark 'nope'",
    ),
    # Names.
    "benchmark outside": ({"study": study(benchmarks=["../x"])}, f"{S}:3: benchmarks.0: '../x': a"),
    "ablation outside": ({"study": study(ablations=["/etc/x"])}, f"{S}:5: ablations.0: '/etc/x'"),
    "long name": ({"study": study(ablations=["a" * 300])}, FIRST_NAME),
    **{
        f"name with {sign!r}": ({"study": study(ablations=[f"a{sign}b"])}, FIRST_NAME)
        for sign in "{(|;\n. \0é"
    },
    "kind outside": (
        {"ablation": ABLATION + "figure: {also: [../x]}"},
        f"{A}:4: figure.also.0: '../x'",
    ),
    "figure kind": (
        {"ablation": ABLATION + "figure: {kind: dotz}"},
        f"{A}:4: figure.kind: Unknown",
    ),
    "plug-in's name": (
        {"study": study(plugins=["my plugin.py"])},
        "my plugin.py: a name is of 1 to 100",
    ),
    "title of two lines": (
        {"ablation": 'title: "a\\nb"\nvary: {method: [grid]}'},
        f"{A}:1: title: ",
    ),
    "results with braces": (
        {"study": study(results="a{b}")},
        f"{S}:7: results: 'a{{b}}' is not va",
    ),
    # Plug-ins.
    "plug-in that leaves": (
        {"study": study(plugins=["plugin.py"]), "plugin": "import sys\nsys.exit(3)\n"},
        "plugin.py, line 2: SystemExit: 3",
    ),
    "plug-in's parameter": (
        {"study": study(plugins=["plugin.py"]), "plugin": PLUGIN.format("budget")},
        "a method's parameter cannot be named 'budget'",
    ),
    "plug-in's function": (
        {"study": study(plugins=["plugin.py"]), "plugin": PLUGIN.format("b")},
        "'mine' does not take (record, budget, draws) and, by name, its parameters: ",
    ),
    "plug-in's method": (
        {
            "study": study(plugins=["plugin.py"]),
            "plugin": PLUGIN.format("a").replace("mine", "vanilla"),
        },
        "No method can be named 'vanilla'",
    ),
    "arms of one name": (
        {
            "study": study(plugins=["plugin.py"]),
            "plugin": PLUGIN.format("a"),
            "ablation": "title: A\nvary: [{method: mine, a: p q}, {method: mine, a: p/q}]",
        },
        f"{A}:2: arms that differ would have one name, 'method-mine_a-p-q'",
    ),
    "plug-in with a name": (
        {
            "study": study(plugins=["plugin.py"]),
            "plugin": "from prunesid.methods import features\n\n"
            "@features.register('a/b')\ndef f(): ...\n",
        },
        "line 3: ValueError: method 'a/b': a name is",
    ),
    # Models.
    "model's JSON": (
        {"study": study(model="FOLDER/m"), "config": "{"},
        "config.json cannot be read",
    ),
    "model a list": (
        {"study": study(model="FOLDER/m"), "config": "[]"},
        "it is a list, where a map",
    ),
    "model UTF-8": (
        {"study": study(model="FOLDER/m"), "config": b"\xff"},
        "config.json cannot be re",
    ),
    "vision a list": (
        {"study": study(model="FOLDER/m"), "config": '{"vision_config": [1]}'},
        f"{S}:6: model: FOLDER/m/config.json: vision_config is a list",
    ),
    "model unknown": (
        {"study": study(model="FOLDER/m"), "config": '{"model_type": "lava"}'},
        "Unknown model family 'lava'. Did you mean 'llava'",
    ),
    "model without weights": (
        {"study": study(model="FOLDER/m"), "config": '{"model_type": "llava"}'},
        "m lacks tokenizer_config.json, model.safetensors",
    ),
    # What contradicts itself.
    "same rows": (
        {"ablation": "title: A\nvary: [{method: prunesid}, {grouping: psca}]"},
        f"{A}:2: vary: 'psca' and 'prunesid' are the same arms; keep one",
    ),
    "same labels": (
        {"ablation": "title: A\nvary: [{method: grid, label: x}, {method: pool, label: x}]"},
        f"{A}:2: vary: two are called 'x'",
    ),
    "label of no value": (
        {"ablation": ABLATION + "labels: {method: {gird: G}}"},
        f"{A}:4: labels.method.gird: Unknown value of method 'gird'. Did you mean 'grid'",
    ),
    "label of no axis": (
        {"ablation": ABLATION + "labels: {metod: {grid: G}}"},
        f"{A}:4: labels.metod: Unknown axis 'metod'. Did you mean 'method'",
    ),
    "paper's table": (
        {"ablation": ABLATION + "table: {paper_table: 7}"},
        f"{A}:4: table.paper_table: Unknown table of the paper 7",
    ),
    "paper's column": (
        {"study": study(benchmarks=["own"]), "benchmark": BENCHMARK + "paper_column: gqq"},
        "benchmarks/own.yaml:5: paper_column: Unknown column of the paper's tables 'gqq'. Did you",
    ),
    "two of one task": (
        {"study": study(benchmarks=["own", "pocket_gqa"]), "benchmark": BENCHMARK},
        f"{S}:2: benchmarks: 'pocket_gqa' and 'own' are one task and metric",
    ),
    "f1 of GQA": (
        {"study": study(benchmarks=["own"]), "benchmark": BENCHMARK.replace("mean", "f1")},
        "statistic: f1 does not give exact_match; choose one with 'f1' in its name for it",
    ),
    "metric of another": (
        {"study": study(benchmarks=["own"]), "benchmark": BENCHMARK.replace("exact", "exat")},
        "Did you mean 'exact_match'",
    ),
    "results behind a file": (
        {"study": study(results="FOLDER/study.yaml/r")},
        "results: nothing can",
    ),
    "results in /proc": ({"study": study(results="/proc/r")}, "results: nothing can be written to"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_where_it_stands(tmp_path, monkeypatch, case):
    files, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    placed = {
        name: text.replace("FOLDER", str(tmp_path)) if isinstance(text, str) else text
        for name, text in files.items()
    }
    found = problems(lay(tmp_path, **placed))
    assert message.replace("FOLDER/", "") in found.replace(f"{tmp_path}/", "")
    assert "Traceback" not in found and len(found) < 5000


def test_a_file_that_is_no_benchmark_of_ours(tmp_path):
    lay(tmp_path)
    (tmp_path / ".hidden.yaml").touch()
    with pytest.raises(ConfigError, match="there is no such file") as refused:
        load_study(tmp_path / f"{S}x")
    assert f"Did you mean '{tmp_path / S}'?" in str(refused.value)
    assert os.path.join("configs", "pocket.yaml") in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_every_problem_of_a_study_and_its_files_is_in_one_list(tmp_path):
    path = lay(
        tmp_path,
        study=study(benchmarks=["own", "pocket_pop"], seeds=0, model="no/model", dtype="f32"),
        ablation="title: A\nvary:\n  method: [prunesid]\n  grouping: [pscaa]\nfigur: {}\n",
        benchmark=BENCHMARK + "shows: films\n",
    )
    found = problems(path).splitlines()
    for start in (
        f"{S}:9: dtype: Unknown value 'f32'",
        f"{S}:8: seeds: 0 is less than",
        f"{S}:7: model: there is no folder 'no/model'",
        f"{S}:2: benchmarks: Unknown benchmark 'pocket_pop'",
        f"{A}:5: Unknown field 'figur'",
        "benchmarks/own.yaml:5: shows: Unknown value 'films'",
    ):
        assert any(line.startswith(start) for line in found), (start, found)


def test_an_override_is_reported_where_it_stands(tmp_path):
    path = lay(tmp_path, study=study(overrides={"mine": {"vary": {"method": ["gird"]}}}))
    assert problems(path).startswith(f"{S}:11: Unknown method 'gird'")


def test_a_home_folder_is_found_in_results(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = lay(tmp_path, study=study(results="~/here"))
    assert load_study(path).results == tmp_path / "here"


def test_a_broken_weights_file_is_found_before_anything_runs(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for each in WEIGHTS.iterdir():
        if each.is_file():
            (folder / each.name).write_bytes(each.read_bytes())
    path = lay(tmp_path, study=study(model=str(folder)))
    refuse_unready(load_study(path))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors is cut short or broken" in problems(path)


def test_a_path_that_cannot_be_one_is_said_without_a_traceback(tmp_path):
    for model in ("a" * 300, "~nobodyofthisname/m"):
        path = lay(tmp_path, study=study(model=model, name="m"))
        with pytest.raises(ConfigError, match=r"study\.yaml: "):
            load_whole(path)


def test_a_misspelled_field_is_one_problem(tmp_path):
    path = lay(tmp_path, ablation="titel: A\nvary: {method: [grid]}\n")
    (problem,) = problems(path).splitlines()
    assert f"{A}:1: Unknown field 'titel'. Did you mean 'title'?" in problem


def test_overrides_of_a_misspelled_field_are_no_problems_of_their_own(tmp_path):
    given = {name: value for name, value in STUDY.items() if name != "ablations"}
    given |= {"ablatons": ["mine"], "overrides": {"mine": {"seeds": 2}}}
    path = lay(tmp_path, study=yaml.safe_dump(given, sort_keys=False))
    (problem,) = problems(path).splitlines()
    assert "Unknown field 'ablatons'. Did you mean 'ablations'?" in problem


def test_reading_a_study_does_not_import_torch():
    code = (
        "import sys; from pathlib import Path; from prunesid.study.config import chapters; "
        "chapters.load_whole(Path('configs/pocket.yaml'))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert seen.stdout.strip() == "False"


def snakemake(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "snakemake", "-n", "-s", ROOT / "Snakefile"]
    return subprocess.run(
        [*map(str, command), "--configfile", str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=path.parent,
    )


@pytest.mark.slow
def test_snakemake_says_the_same_and_reads_a_study_as_we_do(tmp_path):
    path = lay(tmp_path, study=study(shards=2.0))
    refused = snakemake(path)
    assert refused.returncode and f"{path}:7: shards: 2.0 is not of type" in refused.stdout
    assert ".smk" not in refused.stdout and "Traceback" not in refused.stdout
    # By YAML 1.1 `off` is false, and no threshold.
    changes = "overrides: {mine: {vary: {threshold: [scaled, off]}}}\n"
    lay(tmp_path, study=study() + changes)
    ready = snakemake(path, "--config", "limit=2")
    assert ready.returncode == 0, ready.stdout
    wrong = snakemake(path, "--config", "limit=0")
    assert "the command line: limit: 0 is less than the minimum" in wrong.stdout


@pytest.mark.parametrize("content", [None, "title: T".encode("utf-16")])
def test_a_file_that_snakemake_cannot_read_is_refused_before_it(tmp_path, content):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_bytes(content)
    command = [sys.executable, "-m", "prunesid", "run", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert str(path) in found.stderr
