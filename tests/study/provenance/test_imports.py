"""The library needs torch (and what torch itself requires) and nothing else."""

import subprocess
import sys
import textwrap

SCRIPT = """
import sys

TORCH = {
    "torch", "torchgen", "typing_extensions", "filelock", "fsspec", "jinja2", "markupsafe",
    "networkx", "sympy", "mpmath", "setuptools", "_distutils_hack", "triton", "nvidia", "functorch",
}


class TorchAlone:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in TORCH and top != "prunesid" and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, TorchAlone())
import warnings

warnings.simplefilter("ignore")
import torch
import prunesid

features = torch.randn(2, 20, 8)
record = prunesid.VisionRecord(
    features, cls=features[:, 0], cls_attention=torch.rand(2, 3, 20),
    keys=torch.randn(2, 3, 20, 4), projected=torch.randn(2, 20, 12), grid=(4, 5),
    last_attention=torch.rand(2, 20), last_keys=torch.randn(2, 20, 8), relevance=torch.rand(2, 20),
)
assert {"prunesid", "tome", "fastv"} < set(prunesid.list_methods())
for method in prunesid.methods.features.list_feature_methods():
    assert prunesid.compress(record, method, budget=6).count.tolist() == [6, 6]
for preset in ("paper", "release", "matched"):
    for grouping in ("psca", "random"):
        kept = prunesid.compress(record, "prunesid", budget=6, preset=preset, grouping=grouping)
        assert kept.tokens.shape == (2, 6, 8)
from prunesid.methods.features.prunesid.information import dynamic_budgets, information
dynamic_budgets(information(features), 6, num_tokens=20)
import prunesid.core.files
try:
    prunesid.compress(record, "prunesid", budget=6, grouping="kmeans")
except ModuleNotFoundError as error:
    assert error.name.startswith(("sklearn", "threadpoolctl")), error
else:
    raise AssertionError("the blocker does not block")
print("imported:", sorted({n.partition(".")[0] for n in sys.modules} & {"numpy", "sklearn"}))
"""


def test_library_runs_with_torch_alone():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("imported: []")
