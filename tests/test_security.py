"""What SECURITY.md promises of the code itself: no pickles, no remote code, no other loader."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for part in ("prunesid", "workflow", "benchmarks", "examples")
    for path in (ROOT / part).rglob("*.py")
]
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"torch.load", "np.load", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load", "eval"}
# The one place that runs what a study names: its plug-ins.
PLUGINS = ROOT / "prunesid" / "study" / "config" / "plugins.py"


def risks(tree: ast.AST) -> Iterator[str]:
    """What could run code out of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = [getattr(node, "module", None) or "", *(each.name for each in node.names)]
            yield from MODULES & {name.partition(".")[0] for name in named}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in CALLS or name == "exec":
                yield name
            if name == "yaml.load" and not options.get("Loader", "").endswith("_Loader"):
                yield name
            automatic = name.startswith("Auto") and name.endswith("from_pretrained")
            if automatic and options.get("trust_remote_code") != "False":
                yield f"{name} without trust_remote_code=False"
            weights = (automatic and "Model" in name) or name == "CLIPModel.from_pretrained"
            if weights and options.get("use_safetensors") != "True":
                yield f"{name} without use_safetensors=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_runs_code_from_data(path):
    found = list(risks(ast.parse(path.read_text(encoding="utf-8"))))
    assert found == (["exec"] if path == PLUGINS else [])


def test_the_risks_are_seen():
    code = "import pickle\ntorch.load(f)\nyaml.load(f, Loader=Loader)\nAutoModel.from_pretrained(f)"
    assert len(list(risks(ast.parse(code)))) == 5


WATCHED = """
import sys
from pathlib import Path
seen = []
sys.addaudithook(lambda event, given: seen.append(given) if event == "pickle.find_class" else None)
from prunesid.families import load
from prunesid.images.media import first_image
from prunesid.lmms.tasks import load_task
from prunesid.pocket import WEIGHTS
from prunesid.pocket.benchmarks import render
load(WEIGHTS, "cpu", "float32")
for again in range(2):
    if not again:
        render("pocket_pope", Path(sys.argv[1]), limit=2)
    task = load_task("pocket_pope", data=sys.argv[1])
    first_image(task.media(task.questions()[0]))
print("seen", seen)
"""


@pytest.mark.slow
def test_loading_a_model_and_a_data_set_unpickles_nothing(tmp_path):
    """Twice, since the second time the data set comes from the cache of `datasets`."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path / "pocket_pope.parquet")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    assert done.stdout.splitlines()[-1:] == ["seen []"], done.stdout + done.stderr
