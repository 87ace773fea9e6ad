"""What a question costs under an arm: means over questions, of counts by hand."""

from dataclasses import replace

from prunesid.core.costs import EncoderShape, Sizes, Transformer
from prunesid.core.questions import Answer
from prunesid.core.rectangle import Box
from prunesid.images.medium import ALWAYS, CLS, SUB_CROPS, Medium
from prunesid.methods.encoder import Plan
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.files.costs import COLUMNS, read_costs
from prunesid.study.files.features import Head
from prunesid.study.stages.costs import pools_of, spent
from prunesid.study.stages.encoder_costs import Pass, passes_of

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
    arm, own = make_arm({"method": "tome", "budget": 4}), {"img": Pass(encoder=1000, choice=10)}
    found = spent(arm, [answer(4, 6)], SIZES, CROPS, own)
    assert (found["encoder_macs"], found["selection_macs"]) == (1000, 10)
    assert found["llm_macs"] == 2 * LAYER.layer_macs(10)
    assert found["total_macs"] == 1010 + found["llm_macs"]
    # Without a formula for the tower.
    found = spent(arm, [answer(4, 6)], replace(SIZES, encoder=None), CROPS)
    assert found["encoder_macs"] is None and found["selection_macs"] is None


def head(media, grids, members, crops=None, encoder=SIZES.encoder):
    sizes = Sizes(LAYER, encoder, 17, EncoderShape(layers=3, read=2, side=4))
    return Head({"img": media}, members, grids, None, crops or {}, sizes, "", {}, {})


def test_a_pass_costs_what_its_plan_says():
    one = head((Medium("image", (0,), {}),), ((4, 4),), ((0,),))
    plan, tower = Plan(4, (8, 4)), SIZES.encoder
    tome = make_arm({"method": "tome", "budget": 4})
    assert passes_of(tome, one) == {"img": Pass(plan.encoder_macs(tower), plan.choice_macs(tower))}
    smaller = passes_of(make_arm({"method": "downsample", "budget": 5}), one)
    assert smaller == {"img": Pass(3 * tower.layer_macs(5), 0)}
    whole = passes_of(make_arm({"method": "tome", "budget": 16}), one)
    assert whole == {"img": Pass(3 * tower.layer_macs(17), 0)}
    assert passes_of(GRID, one) is None
    assert passes_of(tome, head((), (), (), encoder=None)) is None


def test_crops_pay_for_a_pass_each_by_their_shares_and_padding():
    # Nine tokens: 5 for the base crop, 4 for the two rows of the other that show the image.
    layout = {SUB_CROPS: {"grid": [1, 1], "parts": [[0, 0, 4, 4], [1, 0, 3, 4]]}}
    image, tome = Medium("image", (0, 1), layout), make_arm({"method": "tome", "budget": 9})
    shown = Plan(4, (6, 5)), Plan(4, (2, 2), shown=Box(1, 0, 3, 4))
    assert shown[1].entering == (8, 6, 4) and shown[1].padding == 8
    for crops, plans in (({"unpad": "before"}, shown), ({}, (Plan(4, (6, 5)), Plan(4, (8, 4))))):
        found = passes_of(tome, head((image,), ((4, 4),), ((0, 1),), crops))
        assert found == {
            "img": Pass(
                sum(plan.encoder_macs(SIZES.encoder) for plan in plans),
                sum(plan.choice_macs(SIZES.encoder) for plan in plans),
            )
        }


def test_what_is_chosen_from_together_costs_as_one():
    """A base crop of 16 patches and a sub-crop that shows the image in two rows, 8 patches."""
    layout = {SUB_CROPS: {"grid": [1, 1], "parts": [[0, 0, 4, 4], [1, 0, 3, 4]]}}
    image = Medium("image", (0, 1), layout)
    frames = Medium("video", (0, 1), {})
    wanted = {"divprune": (26,), "holov": (24,), "scope": (16, 16), "prunesid": (16, 16)}
    for method, sizes in wanted.items():
        arm = make_arm({"method": method, "budget": 4})
        assert pools_of(arm, head((image,), ((4, 4),), ((0, 1),))) == {"img": sizes}
        assert pools_of(arm, head((frames,), ((4, 4),), ((0, 1),))) == {"img": (16, 16)}
    arm = make_arm({"method": "scope", "budget": 4})
    before = head((image,), ((4, 4),), ((0, 1),), {"unpad": "before"})
    assert pools_of(arm, before) == {"img": (16, 8)}
    assert pools_of(VANILLA, before) == {}
    crops = {"img": (16, 16)}
    together = spent(arm, [answer(4, 6)], SIZES, crops, pools={"img": (26,)})
    assert together["selection_macs"] == 26 * 26 * (8 + 4)
    assert together["encoder_macs"] == spent(arm, [answer(4, 6)], SIZES, crops)["encoder_macs"]


def test_the_class_token_of_a_frame_takes_a_place_of_its_plan():
    frames = Medium("video", (0, 1), {CLS: ALWAYS})
    clip = head((frames,), ((4, 4),), ((0, 1),))
    found = passes_of(make_arm({"method": "downsample", "budget": 10}), clip)
    assert found == {"img": Pass(2 * 3 * SIZES.encoder.layer_macs(1 + 4), 0)}
    found = passes_of(make_arm({"method": "downsample", "budget": 8}), clip)
    assert found == {"img": Pass(2 * 3 * SIZES.encoder.layer_macs(1 + 1), 0)}


def test_what_has_no_formula_is_none_and_the_total_is_of_the_rest():
    arm = make_arm({"grouping": "kmeans", "budget": 8})
    found = spent(arm, [answer(8, 6)], SIZES, CROPS)
    assert found["selection_macs"] is None
    assert found["total_macs"] == found["encoder_macs"] + found["llm_macs"]
    blind = spent(GRID, [answer(4, 6)], Sizes(LAYER, None, 17), CROPS)
    assert blind["encoder_macs"] is None and blind["selection_macs"] is None
    assert blind["total_macs"] == blind["llm_macs"]


def test_a_table_without_a_number_is_read_as_such(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(f"arm,{','.join(COLUMNS)}\nnone,6,8,1e3,,5,1005\n")
    found = read_costs(path).loc["none"]
    assert found["total_macs"] == 1005
    assert found["selection_macs"] != found["selection_macs"]


def test_an_image_in_crops_pays_for_each_of_them():
    arm = make_arm({"method": "scope", "budget": 4})
    one = spent(arm, [answer(4, 6)], SIZES, CROPS)
    three = spent(arm, [answer(12, 6)], SIZES, {"img": (16, 16, 16)})
    assert three["encoder_macs"] == 3 * one["encoder_macs"]
    assert three["selection_macs"] == 3 * one["selection_macs"]
