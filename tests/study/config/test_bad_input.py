"""Bad studies, and files that they name: what is refused, with file, line and choices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prunesid.pocket import WEIGHTS
from prunesid.study.config.chapters import load_whole, read_whole
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
    names |= {"explorer": "benchmarks/explorer.yaml", "upper": "ablations/Mine.yaml"}
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
    "key twice": ({"ablation": ABLATION + "title: B\n"}, f"{A}:4: no valid YAML: the key 'title'"),
    "merge key": (
        {"ablation": ABLATION + "<<: {title: B}\n"},
        f"{A}:4: no valid YAML: YAML 1.2 has no merge key '<<'; write the fields out",
    ),
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
    "underscore": ({"study": study() + "limit: 1_0"}, f"{S}:7: limit: '1_0' is not of type"),
    "leading zeros": ({"study": study() + "limit: 0100"}, f"{S}:7: limit: '0100' is not of type"),
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
        f"{S}:7: calibration: pocket_video_tgif shows clips: llava models take no",
    ),
    "limit in quotes": (
        {"study": study(limit="2")},
        f"{S}:7: limit: '2' is text, being in quotes: write it without them",
    ),
    "no hub name": (
        {"study": study(model="a b/c", name="m")},
        f"{S}:6: model: there is no folder 'a b/c', and it is no name on the Hugging Face hub (",
    ),
    "no text tower": (
        {"study": study(model_options={"text_tower": "nope"})},
        f"{S}:8: model_options.text_tower: there is no folder 'nope'; name a CLIP model",
    ),
    "text tower of no hub name": (
        {"study": study(model_options={"text_tower": "a/b c"})},
        "there is no folder 'a/b c', and it is no name on the Hugging Face hub (Repo",
    ),
    "text tower without end": (
        {"study": study(model_options={"text_tower": "x" * 5000})},
        f"{S}:7: model_options: [Errno 36] File name too long",
    ),
    "text tower of another kind": (
        {"study": study(model_options={"text_tower": str(WEIGHTS)})},
        "holds a model of type 'llava', where CLIP is due",
    ),
    "results without end": (
        {"study": study(results="x" * 300)},
        f"{S}:7: results: [Errno 36] File name too long",
    ),
    "results of nobody": (
        {"study": study(results="~nobodyofthisname/r")},
        f"{S}:7: results: Could not determine home",
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
    "blank title": ({"study": study(title="  ")}, f"{S}:1: title: '  ': expected is one line of"),
    **{
        f"label {label!a}": (
            {"ablation": f'title: A\nvary: [{{method: grid, label: "{label}"}}]'},
            f"{A}:2: vary.0.label: {label!r}: expected is one line of text, neither blank",
        )
        for label in (" ", "\u00a0", "\u200b", "a\u200bb", "\u202eabc", "\ufeffx")
    },
    "labels that look alike": (
        {
            "ablation": "title: A\nvary: [{method: grid, label: caf\u00e9 1}, "
            "{method: pool, label: cafe\u0301  1}]"
        },
        f"{A}:2: vary: two are called 'caf\u00e9 1'",
    ),
    **{
        f"folder named {name}": (
            {"study": study(name=name)},
            f"{S}:7: name: '{name}' cannot be the name of a folder of results: the study itself",
        )
        for name in ("store", "Cache", "travel", "asked")
    },
    "benchmark named like a folder": (
        {"study": study(benchmarks=["explorer"]), "explorer": BENCHMARK},
        "benchmarks/explorer.yaml: 'explorer' cannot be the name of a folder of results",
    ),
    "names but for case": (
        {"study": study(ablations=["mine", "Mine"]), "upper": ABLATION},
        f"{S}:4: ablations: 'mine' and 'Mine' are one folder where case does not count",
    ),
    # More than can be planned.
    "many arms": (
        {
            "ablation": "title: A\nvary:\n"
            + "".join(f"  {axis}: {[*range(60)]}\n" for axis in ("cap", "lam", "rho", "num_groups"))
        },
        f"{A}:2: vary: 12,960,000 cells (rows times columns) with 3 seeds are up to 38,880,000 "
        "arms; an ablation has at most 2,000",
    ),
    "many seeds": (
        {"study": study(seeds=10**6), "ablation": "title: A\nvary: {grouping: [psca, random]}"},
        f"{A}:2: vary: 2 cells (rows times columns) with 1,000,000 seeds are up to 2,000,000 arms",
    ),
    "many shards": (
        {"study": study(shards=10**6)},
        f"{S}:7: shards: 1,000,000 of every benchmark are 1,000,000 parts, each a chain of jobs",
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
        "m lacks tokenizer_config.json, tokenizer.json or tokenizer.model or vocab.json",
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
    "exception of no value": (
        {"ablation": ABLATION + "except:\n- {method: [grid]}\n- {method: [gird]}"},
        f"{A}:6: except.1.method: Unknown value of method 'gird'. Did you mean 'grid'",
    ),
    "exception of no axis": (
        {"ablation": ABLATION + "except: [{metod: [grid]}]"},
        f"{A}:4: except.0.metod: Unknown axis 'metod'. Did you mean 'method'",
    ),
    **{
        f"layers of methods as {field}": (
            {"ablation": f"{ABLATION}figure: {{{field}: {kind}}}"},
            f"{A}:4: figure.{field}: 'layers' needs numbers along x, an axis of the rows, and only "
            "the reference may have none; x is 'method', with grid",
        )
        for field, kind in (("kind", "layers"), ("also", "[layers]"))
    },
    "ablation's benchmark": (
        {"ablation": ABLATION + "benchmarks: [pocket_pop]"},
        f"{A}:4: benchmarks: Unknown benchmark 'pocket_pop'. Did you mean 'pocket_pope'",
    ),
    "ablation's clips": (
        {"ablation": ABLATION + "benchmarks: [pocket_video_tgif]"},
        f"{A}:4: benchmarks: pocket_video_tgif shows clips: llava models take no clips",
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
    assert all(len(line) < 600 for line in found.splitlines())


@pytest.mark.parametrize(("own", "known"), [(64, True), (336, False), (None, False)])
def test_a_text_tower_of_another_vision_tower_is_refused(own, known, tmp_path):
    vision = {} if own is None else {"image_size": own}
    config = {"model_type": "clip", "vision_config": vision}
    tower = {"text_tower": str(tmp_path / "m")}
    path = lay(tmp_path, study=study(model_options=tower), config=json.dumps(config))
    size = f"'m' belongs to a vision tower of image_size {own}, and the model's has"
    assert (size in problems(path)) == known


def test_a_file_that_is_no_benchmark_of_ours(tmp_path):
    lay(tmp_path)
    (tmp_path / ".hidden.yaml").touch()
    for named, said in ((f"{S}x", "there is no such file"), ("", "is a folder")):
        with pytest.raises(ConfigError, match=said) as refused:
            load_study(tmp_path / named)
        assert str(tmp_path / S) in str(refused.value)
        assert os.path.join("configs", "pocket") in str(refused.value)
        assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("named", [S, A])
@pytest.mark.parametrize(
    ("lay_it", "said"),
    [
        (lambda path: path.symlink_to("gone.yaml"), "(a link to gone.yaml): No such file"),
        (lambda path: os.mkfifo(path), "cannot be read: it is a pipe or device, no file"),
    ],
)
def test_what_is_there_and_no_file_is_not_said_to_be_missing(tmp_path, named, lay_it, said):
    path = lay(tmp_path)
    (tmp_path / named).unlink()
    lay_it(tmp_path / named)
    assert problems(path).startswith(f"{named}: cannot be read") and said in problems(path)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"bootstrap": {"resamples": 1}}, "bootstrap.resamples: 1 is less"),
        ({"benchmarks": ["../x"]}, "benchmarks.0: '../x': a name is"),
        ({"overrides": {"mine": {"vary": {"method": ["gird"]}}}}, "Unknown method 'gird'"),
        ({"overrides": {"mine": {"figur": 1}}}, "Unknown field 'figur'"),
    ],
)
def test_what_the_command_line_says_is_not_reported_of_the_file(tmp_path, given, problem):
    own = {"bootstrap": {"resamples": 200}, "overrides": {"mine": {"vary": {"method": ["grid"]}}}}
    path = lay(tmp_path, study=study(**own))
    with pytest.raises(ConfigError) as refused:
        read_whole([path], given)
    assert refused.value.problems[0].startswith(f"the command line: {problem}")


def test_of_very_many_problems_a_part_is_told():
    every = [f"{n}: {'x' * 1000}" for n in range(50)]
    error = ConfigError(every)
    assert error.problems == tuple(every)
    said = str(error).splitlines()
    assert said[0].startswith("50 problems") and said[-1] == "  - ... and 38 more"
    assert len(said) == 14 and all(len(line) < 620 for line in said)


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
        with pytest.raises(ConfigError, match=r"study\.yaml:6: model: "):
            load_whole(path)


def test_links_that_go_round_in_circles_are_said_without_a_traceback(tmp_path):
    path = lay(tmp_path, study=study(results=str(tmp_path / "round")))
    for name in ("round", "ablations/round.yaml", "round.yaml"):
        (tmp_path / name).symlink_to((tmp_path / name).name)
    assert problems(path).startswith("study.yaml:7: results: Symlink loop from")
    lay(tmp_path, study=study(ablations=["round"]))
    assert "round.yaml: cannot be read" in problems(path)
    with pytest.raises(ConfigError, match="there is no such file. Unknown study"):
        load_whole(tmp_path / "other.yaml")


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
