"""Counted multiply-adds: by hand, and the figures of the published models."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, Qwen2Config

from prunesid.core.costs import EncoderShape, Sizes, Transformer, Visual, account
from prunesid.core.record import VisionRecord
from prunesid.methods import features
from prunesid.methods.features.prunesid import nms

LLAVA = Transformer.decoder(
    LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
)
TOWER = Transformer.encoder(
    CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16
    )
)
QWEN2_VL = Transformer.decoder(
    Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    )
)
TEXT = 64


def test_a_layer_counted_by_hand():
    # 3 tokens of width 8, FFN 10, 4 heads of 2, 2 of them for keys and values.
    size = Transformer(layers=1, width=8, ffn=10, heads=4, kv_heads=2, head_dim=2, ffn_matrices=3)
    query, key, value, output = 3 * 8 * 8, 3 * 8 * 4, 3 * 8 * 4, 3 * 8 * 8
    scores = mixing = 4 * (3 * 3 * 2)
    gate = up = down = 3 * 8 * 10
    expected = query + key + value + output + scores + mixing + gate + up + down
    assert size.layer_macs(3) == expected == 1440
    assert size.kv_bytes_per_token() == 2 * 2 * 2 * 2


def test_without_grouped_queries_it_is_the_formula():
    n, d, m = 640, 4096, 11008
    assert LLAVA.layer_macs(n) == 4 * n * d * d + 2 * n * n * d + 3 * n * d * m


@pytest.mark.parametrize(
    ("visual", "crops", "llm", "tower", "share", "mebibytes"),
    [
        (576, 1, 4.25, 0.19, 4, 288),
        (192, 1, 1.68, 0.19, 10, 96),
        (128, 1, 1.25, 0.19, 13, 64),
        (64, 1, 0.83, 0.19, 19, 32),
        (2880, 5, 21.3, 0.95, 4, 1440),
        (640, 5, 4.69, 0.95, 17, 320),
        (320, 5, 2.53, 0.95, 27, 160),
        (160, 5, 1.46, 0.95, 39, 80),
    ],
)
def test_llava_7b(visual, crops, llm, tower, share, mebibytes):
    found = account(LLAVA, [visual] * 32, TEXT, encoder=TOWER, encoder_tokens=577, crops=crops)
    assert found.llm_macs / 1e12 == pytest.approx(llm, rel=0.005)
    assert found.encoder_macs / 1e12 == pytest.approx(tower, rel=0.01)
    assert 100 * found.encoder_macs / found.total_macs == pytest.approx(share, abs=0.6)
    assert visual * LLAVA.kv_bytes_per_token() / 2**20 == mebibytes
    assert found.kv_entries == 32 * visual
    assert found.mean_tokens == found.input_tokens == visual


def test_grouped_queries_of_qwen2_vl():
    assert QWEN2_VL.kv_bytes_per_token() == 56 * 1024
    full = Transformer(
        layers=28, width=3584, ffn=18944, heads=28, kv_heads=28, head_dim=128, ffn_matrices=3
    )
    spared = full.layer_macs(100) - QWEN2_VL.layer_macs(100)
    assert spared == 2 * 100 * 3584 * (28 - 4) * 128


def test_a_late_method_is_counted_layer_by_layer():
    counts = [576] * 2 + [30] * 30
    found = account(LLAVA, counts, TEXT, cached=[30] * 32, selection_macs=7)
    assert found.llm_macs == 2 * LLAVA.layer_macs(640) + 30 * LLAVA.layer_macs(94)
    assert found.input_tokens == 576
    assert found.mean_tokens == pytest.approx(64.125)
    assert found.kv_entries == 32 * 30
    assert found.total_macs == found.llm_macs + 7
    with pytest.raises(ValueError, match="3 counts for 32 layers"):
        account(LLAVA, [1, 2, 3], TEXT)


def record_of(tokens, width):
    """A record of one image with all fields that any method reads."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn((1, *shape), generator=draw)

    return VisionRecord(
        features=normal(tokens, width), cls=normal(width), keys=normal(4, tokens, 6),
        cls_attention=normal(4, tokens).abs(), projected=normal(tokens, 32),
        last_attention=normal(tokens).abs(), last_keys=normal(tokens, width),
        relevance=normal(tokens),
    )  # fmt: skip


def outside(method, params, tokens, width, budget):
    """Multiply-adds of a formula outside matrix products, which torch's counter does not see."""
    n, m, k = min(tokens, width), max(tokens, width), budget // 4
    return {
        # The last row of each step's difference.
        "cdpruner": tokens * budget,
        "dpp": tokens * budget,
        "pool": tokens * width,
        "prumerge": width * ((budget - 1) * min(32, tokens - 1) + tokens - budget + 1),
        "prunesid": 9 * n**3 // 2,
        "release": 6 * m * k * k + 4 * n * k * k + 3 * n * k * k + 10 * k**3,
        "scope": tokens**2 * budget,
    }.get(params.get("preset", "groups" if "grouping" in params else method), 0)


@pytest.mark.parametrize("tokens", [20, 40])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        *((name, {}) for name in sorted(set(features.list_feature_methods()) - {"random"})),
        ("prunesid", {"preset": "release"}),
        ("prunesid", {"grouping": "random", "score": "cls_attention"}),
        ("vispruner", {"important": 1.0}),
    ],
)
def test_formulas_of_selection_count_what_runs(method, params, tokens, accelerator):
    # On a CPU, similarities that nobody compares are left out.
    accelerator()
    width, budget = 24, 12
    record = record_of(tokens, width)
    with FlopCounterMode(display=False) as counter:
        features.compress(record, method, budget=budget, **params)
    products = counter.get_total_flops() // 2
    if method == "prunesid":
        # Suppression only compares; an accelerator does so by products of zeros and ones.
        products -= nms.STEPS * tokens**2
    visual = Visual(tokens, width, head_dim=6, projected=32)
    found = features.selection_macs(method, visual, budget, **params)
    if method == "vispruner" and params:
        assert found == 0  # similarities are computed all the same, and not looked at
    else:
        assert found == products + outside(method, params, tokens, width, budget)


def test_selection_without_a_choice_or_a_formula():
    visual = Visual(40, 24, head_dim=6, projected=32)
    assert features.selection_macs("prunesid", visual, 40) == 0
    assert features.selection_macs("prunesid", visual, 12, grouping="kmeans") is None
    with pytest.raises(ValueError, match="Unknown method"):
        features.selection_macs("prunsid", visual, 12)


def test_the_merged_tokens_of_visionzip_counted_by_hand():
    # 64 of 576: CLS, 53 dominant patches, 10 targets, and 576 - 63 members that join one of them.
    visual = Visual(576, 1024, head_dim=64, projected=4096)
    expected = (576 - 63) * (10 * 64 + 1024)
    assert features.selection_macs("visionzip", visual, 64) == expected


@pytest.mark.parametrize("encoder", [TOWER, None])
def test_sizes_survive_json(encoder):
    sizes = Sizes(LLAVA, encoder, 577, encoder and EncoderShape(24, 23, 24))
    assert Sizes.from_json(json.loads(json.dumps(sizes.to_json()))) == sizes
    assert sizes.visual(576) == (encoder and Visual(576, 1024, 64, 4096))
