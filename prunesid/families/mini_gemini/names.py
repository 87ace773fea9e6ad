"""Names of tensors in published checkpoints and in the model: declarative tables.

A row is a pattern for the beginning of a name, and what takes its place; None leaves the tensor
out. The first row that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Row = tuple[str, str | None]
Table = tuple[Row, ...]

_TOWER = "model.vision_tower."
_STEM = "model.vision_tower_aux.stem."
_STAGES = "model.vision_tower_aux.stages."


def _trunk(stem: str, stages: str) -> Table:
    """A ConvNeXt trunk in timm's names, after the given prefixes (patterns)."""
    block = stages + r"(\d+)\.blocks\.(\d+)\."
    layer = _STAGES + r"\1.layers.\2."
    return (
        (stem + r"0\.", _STEM + "patch_embeddings."),
        (stem + r"1\.", _STEM + "layernorm."),
        (stages + r"(\d+)\.downsample\.", _STAGES + r"\1.downsampling_layer."),
        (block + r"gamma$", layer + "layer_scale_parameter"),
        (block + r"conv_dw\.", layer + "dwconv."),
        (block + r"norm\.", layer + "layernorm."),
        (block + r"mlp\.fc1\.", layer + "pwconv1."),
        (block + r"mlp\.fc2\.", layer + "pwconv2."),
    )


PUBLISHED: Table = (
    # Constants that older versions of transformers saved.
    (r".*\.(rotary_emb\.inv_freq|embeddings\.position_ids)$", None),
    (r"model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    (r"lm_head\.", "lm_head."),
    (r"model\.vlm_uni_query_projector\.", "model.mining.query."),
    (r"model\.vlm_uni_aux_projector\.", "model.mining.key."),
    (r"model\.vlm_uni_val_projector\.", "model.mining.value."),
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.vision_tower\.vision_tower\.(vision_model\.)?", _TOWER),
    *_trunk(r"model\.vision_tower_aux\.vision_stem\.", r"model\.vision_tower_aux\.vision_stages\."),
)
# OpenCLIP's names, and timm's for the trunk alone.
OPENCLIP: Table = (
    *_trunk(r"visual\.trunk\.stem\.", r"visual\.trunk\.stages\."),
    *_trunk(r"stem\.", r"stages\."),
    (r"visual\.(trunk\.)?(head|norm_pre)\.", None),
    (r"(head|norm_pre)\.", None),
    (r"(text|transformer|token_embedding|ln_final)\.", None),
    (r"(positional_embedding|text_projection|attn_mask|logit_scale|logit_bias)$", None),
)
# Beginnings of the model's names: what is taken from a tower's own checkpoint if a published one
# has none of it.
TOWER: tuple[str, ...] = (_TOWER,)
TOWER_AUX: tuple[str, ...] = (_STEM, _STAGES)


def renamed(names: Iterable[str], table: Table) -> tuple[dict[str, str], list[str]]:
    """({the model's name: the checkpoint's}, names that no row of the table matches)."""
    found, unknown = {}, []
    for name in names:
        for pattern, target in table:
            match = re.match(pattern, name)
            if match:
                if target is not None:
                    found[match.expand(target) + name[match.end() :]] = name
                break
        else:
            unknown.append(name)
    return found, unknown


def trunk_geometry(shapes: dict[str, tuple[int, ...]]) -> dict[str, object]:
    """Fields of a ConvNeXt's configuration, from the shapes of its tensors by the model's names."""
    widths: dict[int, int] = {}
    depths: dict[int, int] = {}
    for name, shape in shapes.items():
        match = re.match(re.escape(_STAGES) + r"(\d+)\.layers\.(\d+)\.layernorm\.", name)
        if match:
            stage, layer = map(int, match.groups())
            widths[stage] = shape[0]
            depths[stage] = max(depths.get(stage, 0), layer + 1)
    patch = shapes.get(_STEM + "patch_embeddings.weight")
    if patch is None or sorted(depths) != list(range(4)):
        raise ValueError(
            f"the ConvNeXt trunk needs a stem and the stages 0 to 3; stages here: {sorted(depths)}"
        )
    return {
        "hidden_sizes": [widths[stage] for stage in range(4)],
        "depths": [depths[stage] for stage in range(4)],
        "patch_size": patch[-1],
    }
