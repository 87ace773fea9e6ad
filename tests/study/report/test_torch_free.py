"""Jobs of a study that compute nothing by torch do without its import."""

import ast
import subprocess
import sys

from builders.synthetic_scores import ROOT

SCRIPTS = (
    "ablation", "histogram", "methods", "notebook", "patches", "publish", "travel",
)  # fmt: skip


def test_what_counts_draws_and_publishes_imports_no_torch():
    statements = [
        ast.unparse(node)
        for name in SCRIPTS
        for node in ast.parse((ROOT / "workflow" / "scripts" / f"{name}.py").read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert_no_torch("\n".join(statements))


def test_planning_a_study_of_which_nothing_is_computed_imports_no_torch(tmp_path):
    assert_no_torch(
        "from dataclasses import replace; from pathlib import Path\n"
        "from prunesid.study.config.chapters import load_whole\n"
        "from prunesid.study.planning.resources import job_needs\n"
        "(study,) = load_whole(Path('configs/pocket.yaml')).studies\n"
        f"assert job_needs(replace(study, device='cpu', results=Path({str(tmp_path)!r})))"
    )


def test_keys_of_what_arms_keep_and_answer_import_no_torch(tmp_path):
    assert_no_torch(
        "import numpy as np; from pathlib import Path; from safetensors.numpy import save_file\n"
        "from prunesid.study.files.kept import kept_digest, whole_digest\n"
        "from prunesid.study.stages import answers, encoding, selection\n"
        f"path = Path({str(tmp_path / 'kept.safetensors')!r})\n"
        "index = np.array([[0, 1, 2], [0, 1, -1]])\n"
        "save_file({'index': index, 'count': np.array([3, 2])}, path)\n"
        "assert kept_digest(path) == whole_digest([3, 2])"
    )


def assert_no_torch(code):
    lines = [code, "import sys", "assert 'torch' not in sys.modules"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
