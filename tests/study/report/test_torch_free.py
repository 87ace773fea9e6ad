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
    lines = [*statements, "import sys", "assert 'torch' not in sys.modules"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
