"""Makes mustdrop.json: MustDrop's filter inside the language model, from its formula alone.

    python tests/golden/mustdrop.py

No code of the authors ran. A visual token is dropped if the sum of its attention over the text is
below `overall` times the total over visual tokens and text, and its maximum over the text is below
`individual`, attention being the mean over heads; the ceil(share * 576) tokens of highest CLS
attention stay. numpy, in float64. Which thresholds a budget means is not part of it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import inputs
import numpy as np

# Of 576 tokens that share their attention evenly each has 0.0017 of the total.
THRESHOLDS = ((0.001, 0.001), (0.0015, 0.01), (0.0018, 0.005), (0.011, 0.01))
SHARES = (0.0, 0.08)


def main() -> None:
    cases = []
    for kind in inputs.KINDS:
        prompt = inputs.make_llm_case(kind, 0)["attn_text"].astype(np.float64).mean(axis=0)
        attention = prompt[:, inputs.SYS : inputs.SYS + inputs.T]
        important = inputs.make_case(kind, 0)["attn"][:, 0, 1:].astype(np.float64).mean(axis=0)
        for overall, individual in THRESHOLDS:
            for share in SHARES:
                faint = attention.sum(axis=0) < overall * attention.sum()
                stays = ~(faint & (attention.max(axis=0) < individual))
                stays[np.argsort(-important, kind="stable")[: math.ceil(share * inputs.T)]] = True
                cases.append({
                    "kind": kind, "seed": 0, "overall": overall, "individual": individual,
                    "share": share, "kept": np.nonzero(stays)[0].tolist(),
                })  # fmt: skip
    found = {
        "method": "MustDrop, filter inside the language model",
        "how": "tests/golden/mustdrop.py, from the formula; no code of the authors ran",
        "fields": {
            "kept": "tokens that stay after the first stage, ascending",
            "share": "share of the tokens that are never dropped, by CLS attention",
        },
        "input_digests": {
            f"{kind}/0": inputs.digests(inputs.make_case(kind, 0)) for kind in inputs.KINDS
        },
        "llm_input_digests": {
            f"{kind}/0": inputs.digests(inputs.make_llm_case(kind, 0)) for kind in inputs.KINDS
        },
        "cases": cases,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
