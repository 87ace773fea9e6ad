"""What a question costs under an arm: means over questions, of counts by hand."""

from prunesid.accounting import Sizes, Transformer
from prunesid.answering import Answer
from prunesid.encoding import Plan, Shape
from prunesid.stages.accounts import COLUMNS, read_accounts, spent
from prunesid.study.arm import VANILLA, make_arm

LAYER = Transformer(layers=2, width=8, ffn=16, heads=2, kv_heads=2, head_dim=4, ffn_matrices=3)
SIZES = Sizes(LAYER, Transformer(3, 8, 16, 2, 2, 4, 2), encoder_tokens=17)
CROPS = {"img": (16,)}
GRID = make_arm({"method": "grid", "budget": 4})


def answer(tokens, text, **inside):
    return Answer("q", "img", "yes", tokens, text=text, **inside)


def test_questions_on_tokens_that_stay_in_every_layer():
    found = spent(GRID, [answer(4, 6), answer(4, 10)], SIZES, CROPS)
    assert found["text_mean"] == 8
    assert found["kv_mean"] == 2 * 4
    assert found["llm_macs"] == LAYER.layer_macs(10) + LAYER.layer_macs(14)
    assert found["encoder_macs"] == 3 * SIZES.encoder.layer_macs(17)
    assert found["selection_macs"] == 0
    assert found["total_macs"] == found["encoder_macs"] + found["llm_macs"]


def test_choosing_counts_for_every_question_by_what_its_image_kept():
    arm = make_arm({"method": "scope", "budget": 4, "dynamic": "benchmark"})
    found = spent(arm, [answer(3, 6), answer(3, 6), answer(6, 6)], SIZES, CROPS)
    assert found["selection_macs"] == 16 * 16 * (8 + 4)
    whole = spent(VANILLA, [answer(16, 6)], SIZES, CROPS)
    assert whole["selection_macs"] == 0


def test_tokens_that_go_inside_the_language_model():
    arm = make_arm({"method": "fastv", "budget": 10})
    inside = {"entering": (16, 4), "cached": (4, 4), "selection_macs": 100}
    found = spent(arm, [answer(10, 6, **inside)], SIZES, CROPS)
    assert found["kv_mean"] == 8
    assert found["llm_macs"] == LAYER.layer_macs(22) + LAYER.layer_macs(10)
    assert found["selection_macs"] == 100


def test_an_encoder_pass_of_its_own_takes_the_place_of_the_usual_one():
    sizes = Sizes(LAYER, SIZES.encoder, 17, Shape(layers=3, read=2, side=4))
    tome = spent(make_arm({"method": "tome", "budget": 4}), [answer(4, 6)], sizes, CROPS)
    plan = Plan(4, (8, 4))
    assert tome["encoder_macs"] == plan.encoder_macs(SIZES.encoder)
    assert tome["selection_macs"] == plan.choice_macs(SIZES.encoder)
    assert tome["llm_macs"] == 2 * LAYER.layer_macs(10)
    assert tome["total_macs"] == sum(
        tome[f"{part}_macs"] for part in ("encoder", "selection", "llm")
    )
    smaller = spent(make_arm({"method": "downsample", "budget": 5}), [answer(4, 6)], sizes, CROPS)
    assert smaller["encoder_macs"] == 3 * SIZES.encoder.layer_macs(5)
    assert smaller["selection_macs"] == 0
    whole = spent(make_arm({"method": "tome", "budget": 16}), [answer(16, 6)], sizes, CROPS)
    assert whole["encoder_macs"] == 3 * SIZES.encoder.layer_macs(17)


def test_what_has_no_formula_is_none_and_the_total_is_of_the_rest():
    arm = make_arm({"grouping": "kmeans", "budget": 8})
    found = spent(arm, [answer(8, 6)], SIZES, CROPS)
    assert found["selection_macs"] is None
    assert found["total_macs"] == found["encoder_macs"] + found["llm_macs"]
    blind = spent(GRID, [answer(4, 6)], Sizes(LAYER, None, 17), CROPS)
    assert blind["encoder_macs"] is None and blind["selection_macs"] is None
    assert blind["total_macs"] == blind["llm_macs"]


def test_a_table_without_a_number_is_read_as_such(tmp_path):
    path = tmp_path / "accounts.csv"
    path.write_text(f"arm,{','.join(COLUMNS)}\nnone,6,8,1e3,,5,1005\n")
    found = read_accounts(path).loc["none"]
    assert found["total_macs"] == 1005
    assert found["selection_macs"] != found["selection_macs"]


def test_an_image_in_crops_pays_for_each_of_them():
    arm = make_arm({"method": "scope", "budget": 4})
    one = spent(arm, [answer(4, 6)], SIZES, CROPS)
    three = spent(arm, [answer(12, 6)], SIZES, {"img": (16, 16, 16)})
    assert three["encoder_macs"] == 3 * one["encoder_macs"]
    assert three["selection_macs"] == 3 * one["selection_macs"]
