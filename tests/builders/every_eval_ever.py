"""What version 0.3.0 of Every Eval Ever's schema demands of the fields that are written here.

The shape of a document: a mapping of fields to types; a trailing '?' marks one that may be left
out, and a document has no other field. `TEXTS` is a mapping of any names to texts.
"""

from __future__ import annotations

import re
from typing import Any

TEXTS = "texts"
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
SAMPLES_PATH = re.compile(rf"data/[^/]+/[^/]+/[^/]+/{UUID4}_samples\.jsonl")

AGGREGATE: dict[str, Any] = {
    "schema_version": str,
    "evaluation_id": str,
    "evaluation_timestamp?": str,
    "retrieved_timestamp": str,
    "source_metadata": {
        "source_name?": str,
        "source_type": {"documentation", "evaluation_run"},
        "source_organization_name": str,
        "source_organization_url?": str,
        "evaluator_relationship": {"first_party", "third_party", "collaborative", "other"},
        "additional_details?": TEXTS,
    },
    "eval_library": {"name": str, "version": str, "additional_details?": TEXTS},
    "model_info": {
        "name": str,
        "id": str,
        "developer?": str,
        "inference_engine?": {"name?": str, "version?": str},
        "additional_details": {
            "deployment_type": {"self_deployed", "externally_managed", "unknown"},
            "model_availability": {"open_weights", "closed_weights", "unknown"},
        },
    },
    "evaluation_results": [
        {
            "evaluation_result_id?": str,
            "evaluation_name": str,
            "source_data": {
                "dataset_name": str,
                "source_type": {"other"},
                "additional_details?": TEXTS,
            },
            "metric_config": {
                "evaluation_description?": str,
                "metric_id?": str,
                "metric_name?": str,
                "metric_kind?": str,
                "metric_unit?": str,
                "lower_is_better": bool,
                "score_type": {"continuous"},
                "min_score": float,
                "max_score": float,
            },
            "score_details": {
                "score": float,
                "details?": TEXTS,
                "uncertainty?": {
                    "confidence_interval?": {
                        "lower": float,
                        "upper": float,
                        "confidence_level?": float,
                        "method?": str,
                    },
                    "num_samples?": int,
                    "num_bootstrap_samples?": int,
                },
            },
            "generation_config?": {
                "generation_args?": {"temperature?": float, "max_tokens?": int},
                "additional_details?": TEXTS,
            },
        }
    ],
    "detailed_evaluation_results?": {
        "format": {"jsonl"},
        "file_path": SAMPLES_PATH,
        "hash_algorithm?": {"sha256", "md5"},
        "checksum?": str,
        "total_rows?": int,
    },
}
INSTANCE: dict[str, Any] = {
    "schema_version": str,
    "evaluation_id": str,
    "model_id": str,
    "evaluation_name": str,
    "evaluation_result_id?": str,
    "sample_id": str,
    "sample_hash?": str,
    "interaction_type": {"single_turn"},
    "input": {"raw": str, "reference": [str]},
    "output": {"raw": [str]},
    "answer_attribution": [
        {
            "turn_idx": int,
            "source": str,
            "extracted_value": str,
            "extraction_method": str,
            "is_terminal": bool,
        }
    ],
    "evaluation": {"score": float, "is_correct": bool},
    "metadata?": TEXTS,
}


def problems(value: Any, shape: Any, place: str = "") -> list[str]:
    """Where a document departs from a shape; [] where it does not."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{place}: no mapping"]
        known = {name.rstrip("?"): own for name, own in shape.items()}
        needed = {name for name in shape if not name.endswith("?")}
        found = [f"{place}.{name}: missing" for name in needed - value.keys()]
        found += [f"{place}.{name}: unknown" for name in value.keys() - known.keys()]
        for name in value.keys() & known.keys():
            found += problems(value[name], known[name], f"{place}.{name}")
        return found
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{place}: no list"]
        return [
            p for n, each in enumerate(value) for p in problems(each, shape[0], f"{place}[{n}]")
        ]
    if shape is TEXTS:
        right = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    elif isinstance(shape, set):
        right = value in shape
    elif isinstance(shape, re.Pattern):
        right = isinstance(value, str) and bool(shape.fullmatch(value))
    else:
        right = type(value) is shape
    return [] if right else [f"{place}: {value!r} is no {shape}"]
