"""The code blocks of the documentation do what they say, or name what exists.

Python runs on Pocket-LLaVA, YAML is read as studies and ablations are, and shell lines are checked
word by word without being run: targets, commands, options and paths.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from builders.synthetic_scores import ROOT

from prunesid.__main__ import parser
from prunesid.core.registry import owned_by, withdraw
from prunesid.methods.registry import METHODS
from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw
from prunesid.pocket.scenes import sample_scene
from prunesid.study.config.ablation import load_ablation
from prunesid.study.config.chapters import load_whole

PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^`([^`\n]+)`\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is meant to be run, within the text.
INLINE = re.compile(r"`((?:make|prunesid) [^`\n]+)`")
MADE = re.compile(r"^(?:\$EDITOR|cp \S+) (.*?)(?:  +#.*)?$|> (\S+)$", re.MULTILINE)
EXTENDING = "tests/study/config/test_extending.py runs the files that the page names"
NOT_RUN = {
    ("docs/extending.md", "text"): "the files of a folder",
    ("docs/study.md", "text"): "the order of the rules",
    ("docs/results.md", "latex"): "tests/study/report/test_latex.py compiles the same macros",
}
# Of the reader's own machine.
ELSEWHERE = re.compile(r"/path/to/|/archive/|MSVD_Zero_Shot_QA/|data/|results/|.*[$<]|FOLDER")


class Block(NamedTuple):
    page: str
    name: str
    language: str
    text: str


def blocks_of(page: str) -> list[Block]:
    return [Block(page, *found) for found in BLOCK.findall((ROOT / page).read_text())]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def texts(page: str, *languages: str) -> list[str]:
    """The blocks of a page that have no test of their own."""
    return [b.text for b in BLOCKS if b.page == page and b.language in languages and not b.name]


def test_every_block_is_covered():
    covered = {(page, language) for page in PAGES for language in ("sh", "bash")}
    covered |= {(page, "python") for page in ("README.md", "docs/library.md", "CONTRIBUTING.md")}
    covered |= {("docs/latency.md", "yaml"), ("CONTRIBUTING.md", "yaml")}
    covered |= {("docs/extending.md", "yaml"), ("docs/extending.md", "toml")}
    assert not [
        b for b in BLOCKS if not b.name and (b.page, b.language) not in covered | {*NOT_RUN}
    ]
    assert {b.page for b in BLOCKS if b.name} == {"docs/extending.md"}, EXTENDING
    assert {*NOT_RUN} <= {(b.page, b.language) for b in BLOCKS}
    fences = sum((ROOT / page).read_text().count("\n```") for page in PAGES)
    assert fences == 2 * len(BLOCKS)


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_python_runs_on_pocket(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(sample_scene(np.random.default_rng(3)))[0].save("photo.jpg")
    scope = {
        "features": torch.randn(2, 576, 8),
        "attention": torch.rand(2, 4, 576),
    }
    for text in texts(page, "python"):
        here = text.replace("llava-hf/llava-1.5-7b-hf", str(WEIGHTS)).replace('"cuda"', '"cpu"')
        exec(compile(here, page, "exec"), scope)
    assert (tmp_path / "kept.png").is_file()
    if page == "README.md":
        assert len(scope["kept"][0].boxes(scope["image"].size)) == 64
    else:
        assert scope["short"].kept[0].tokens == 128
        assert scope["kept"].tokens.shape == (2, 64, 8) and scope["kept"].index.shape == (2, 64)
    assert scope["output"].shape[0] == 1


@contextmanager
def recipe() -> Iterator[None]:
    """CONTRIBUTING.md's method and kind of figure, registered."""
    from prunesid.study.report.figures import FIGURES

    method, figure = texts("CONTRIBUTING.md", "python")
    name = "recipe_of_contributing"
    try:
        with owned_by(name):
            for text in (method, figure):
                exec(compile(text, "CONTRIBUTING.md", "exec"), {"__name__": name})
        yield
    finally:
        withdraw(name)
    assert "tail" not in METHODS.names() and "bars" not in FIGURES.names()


def test_the_recipes_are_a_method_an_ablation_and_a_figure(tmp_path):
    import prunesid

    (text,) = texts("CONTRIBUTING.md", "yaml")
    path = tmp_path / "end.yaml"
    with recipe():
        kept = prunesid.compress(prunesid.VisionRecord(torch.randn(1, 9, 4)), "tail", budget=2)
        assert kept.index.tolist() == [[7, 8]]
        path.write_text(text)
        rows = {row.label for row in load_ablation(path).rows}
        path.write_text(text.replace("kind: lines", "kind: bars"))
        assert load_ablation(path).figure.kind == "bars"
    assert rows == {"PruneSID", "the last tokens"}


def test_an_ablation_with_a_clock(tmp_path):
    (text,) = texts("docs/latency.md", "yaml")
    path = tmp_path / "clocked.yaml"
    path.write_text((ROOT / "configs/ablations/score.yaml").read_text() + text)
    clocked = load_ablation(path).latency
    assert (clocked.benchmark, clocked.questions, clocked.batches) == ("pope", 64, (1, 8, 32))


def test_chapters_and_an_entry_point(tmp_path):
    for block in blocks_of("docs/extending.md"):
        if block.name:
            (tmp_path / block.name).parent.mkdir(exist_ok=True)
            (tmp_path / block.name).write_text(block.text)
    other = "title: Other\nmodel: pocket-next\nbenchmarks: [pocket_next_mme]\nablations: [order]\n"
    (tmp_path / "other_model.yaml").write_text(other)
    (chapters,) = texts("docs/extending.md", "yaml")
    (tmp_path / "whole.yaml").write_text(chapters)
    try:
        whole = load_whole(tmp_path / "whole.yaml")
    finally:
        for plugin in ("my_methods", "my_relevance"):
            withdraw(f"prunesid_plugin_{plugin}")
    assert whole.title == "Mine on two models" and [s.limit for s in whole.studies] == [100, 100]
    (entry,) = texts("docs/extending.md", "toml")
    assert list(tomllib.loads(entry)["project"]["entry-points"]) == ["prunesid.methods"]


@cache
def help_of(*command: str) -> str:
    words = [sys.executable, *command, "--help"]
    said = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


@cache
def makefile() -> tuple[set[str], set[str]]:
    """The targets that `make help` lists, with the environment's file, and the variables."""
    said = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    variables = re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {".venv/.ready", *re.findall(r"^(\w+) ", said.stdout, re.MULTILINE)}, set(variables)


def rules() -> set[str]:
    files = [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]
    return {n for f in files for n in re.findall(r"^\s*rule (\w+):", f.read_text(), re.MULTILINE)}


def commands(text: str) -> list[list[str]]:
    """The words of every line, without comments, redirection and variables put before it."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.split(" > ")[0], comments=True) for line in lines]
    for words in found:
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
    return [words for words in found if words]


def wrong(words: list[str], made: set[str]) -> list[str]:
    """The words of a command that name nothing; `made` are files that the page has made."""
    program, *rest = words
    kind, found = Path(program).name, []
    paths = [word for word in rest if "/" in word or word.endswith((".yaml", ".py", ".def"))]
    if kind == "make":
        targets, variables = makefile()
        found += [w for w in rest if "=" not in w and w not in targets]
        found += [w for w in rest if "=" in w and w.partition("=")[0] not in variables]
        paths = [w.partition("=")[2] for w in rest if "/" in w and "=" in w]
    elif kind == "prunesid":
        try:
            parser().parse_args(rest)
        except SystemExit as ended:
            found += words if ended.code else []
    elif kind == "snakemake":
        found += unknown(rest, help_of("-m", "snakemake"))
        # A name by itself, which no option takes, is a rule.
        names = (w for before, w in pairwise(["", *rest]) if re.fullmatch(r"|\d+", before))
        found += [w for w in names if w.isalpha() and w not in rules()]
    elif kind == "lmms-eval":
        found += unknown(rest, help_of("-m", "lmms_eval", "eval"))
        given = dict(w.split("=") for w in rest[rest.index("--model_args") + 1].split(","))
        allowed = {"pretrained", "method", "budget", *METHODS[given["method"]].params}
        found += {*given} - allowed
        paths = [given["pretrained"], rest[rest.index("--include_path") + 1]]
    elif kind == "python" and rest[0] == "-m":
        if find_spec(rest[1]) is None:
            found.append(rest[1])
        elif any(w.startswith("--") for w in rest):
            found += unknown(rest, help_of(*rest[:2]))
    elif kind == "python" and rest[0] == "-c":
        compile(rest[1], "-c", "exec")
        paths = []
    elif kind == "python":
        found += unknown(rest, help_of(rest[0])) if (ROOT / rest[0]).is_file() else []
    elif kind == "sed":
        paths = rest[2:]
    elif kind not in ("pytest", "pre-commit", "apptainer", "cp", "printf", "$EDITOR"):
        found.append(program)
    gone = (w for w in paths if not ELSEWHERE.match(w) and w not in made)
    return found + [w for w in gone if not (ROOT / w).exists()]


def unknown(words: list[str], said: str) -> list[str]:
    """The options that a help text does not name; arguments handed on to apptainer are its own."""
    known = set(re.findall(r"--[\w-]+", said))
    own = [w for before, w in pairwise(["", *words]) if before != "--apptainer-args"]
    return [w for w in own if w.startswith("--") and w.partition("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES)
def test_shell_lines_name_what_exists(page):
    text = (ROOT / page).read_text()
    shell = [b.text for b in BLOCKS if b.page == page and b.language in ("sh", "bash")]
    made = {name for found in MADE.findall("\n".join(shell)) for name in " ".join(found).split()}
    made |= {block.name for block in BLOCKS if block.page == page}
    found = [words for line in [*shell, *INLINE.findall(text)] for words in commands(line)]
    assert not {" ".join(words): wrong(words, made) for words in found if wrong(words, made)}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("make reprodoce", ["reprodoce"]),
        ("make check CONFIGS=configs/quick.yaml", ["CONFIGS=configs/quick.yaml"]),
        ("make check CONFIG=configs/gone.yaml", ["configs/gone.yaml"]),
        (".venv/bin/snakemake --cores 2 exports", ["exports"]),
        ("snakemake --configfiel configs/quick.yaml", ["--configfiel"]),
        ("python -m prunesid.gone", ["prunesid.gone"]),
        ("python benchmarks/latency.py --device cuda --gone 1", ["--gone"]),
        ("lmms-eval --model_args pretrained=prunesid/pocket/weights,method=prunesid,rest=1 "
         "--include_path prunesid/lmms/tasks", ["rest"]),
        ("prunesid chek study", ["prunesid", "chek", "study"]),
        ("wget x", ["wget"]),
    ],
)  # fmt: skip
def test_a_wrong_word_is_found(line, named):
    ((words),) = commands(line)
    assert wrong(words, set()) == named
