"""The lmms-eval model on questions that show several images, clips, or nothing."""

from __future__ import annotations

import pytest
from builders.family_models import FAMILIES
from builders.qwen_models import clip
from builders.tiny_llava import random_images
from datasets import Dataset
from lmms_eval.api.instance import Instance

from prunesid.lmms.plugin import PruneSID

QUESTIONS = ("is there a red circle ?", "what color is the star ?")
PICTURES = random_images(3, size=84)
SHOWN = ([PICTURES[0]], [PICTURES[0]], PICTURES[1:], [], [])


def ask(model, shown):
    """Answers to one question on each of `shown`, asked as lmms-eval does."""
    docs = Dataset.from_dict({"number": list(range(len(shown)))})
    model.task_dict = {"made up": {"test": docs}}
    requests = [
        Instance(
            request_type="generate_until",
            arguments=(
                QUESTIONS[number % 2], {"max_new_tokens": 5}, lambda doc: shown[doc["number"]],
                number, "made up", "test",
            ),
            idx=0,
            metadata={"task": "made up", "doc_id": number, "repeats": 1},
        )
        for number in range(len(shown))
    ]  # fmt: skip
    return model.generate_until(requests)


@pytest.mark.parametrize(
    "arm",
    [
        {},
        {"method": "grid", "budget": 5},
        {"method": "tome", "budget": 5},
        {"method": "cdpruner", "budget": 5},
    ],
)
def test_several_images_and_none_answer_the_same_shared_or_alone(tiny_llava, arm):
    answers = [
        ask(PruneSID(str(tiny_llava), batch_size=size, share_prefix=share, **arm), SHOWN)
        for size, share in ((1, False), (1, True), (4, True))
    ]
    assert answers[0] == answers[1] == answers[2]
    assert all(isinstance(answer, str) for answer in answers[0])
    assert len(set(answers[0])) > 2


@pytest.mark.parametrize("family", ["llava_next", "qwen2_vl", "qwen3_vl"])
def test_crops_and_frames_are_chosen_by_the_question_shared_or_alone(tiny_llava, tmp_path, family):
    FAMILIES[family](tmp_path / family, tiny_llava)
    shown = [[PICTURES[0]], [PICTURES[0]], PICTURES[1:], [PICTURES[1]], [PICTURES[1]]]
    if family != "llava_next":
        shown += [[clip(6, seed=3), PICTURES[0]], [clip(4)], []]
    arm = {"method": "cdpruner", "budget": 10}
    answers = [
        ask(PruneSID(str(tmp_path / family), batch_size=size, share_prefix=share, **arm), shown)
        for size, share in ((1, False), (4, True))
    ]
    assert answers[0] == answers[1]
    assert answers[0] != ask(PruneSID(str(tmp_path / family), **arm | {"method": "dpp"}), shown)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_methods_inside_the_language_model_take_any_number_of_media(tiny_llava, tmp_path, family):
    FAMILIES[family](tmp_path / "qwen", tiny_llava)
    clips = [*([clip(4, seed=seed)] for seed in range(6)), [clip(6, seed=3), PICTURES[0]], []]
    for model, shown, budget in ((tiny_llava, SHOWN, 10), (tmp_path / "qwen", clips, 14)):
        arm = {"method": "fastv", "budget": budget}
        answers = [ask(PruneSID(str(model), batch_size=size, **arm), shown) for size in (1, 4)]
        assert answers[0] == answers[1]
        assert answers[0] != ask(PruneSID(str(model)), shown)
    with pytest.raises(ValueError, match="'renumbered' has no meaning"):
        PruneSID(str(tmp_path / "qwen"), positions="renumbered", **arm)


def test_clips_and_options_of_the_family(tiny_llava, tmp_path):
    FAMILIES["qwen2_vl"](tmp_path / "qwen", tiny_llava)
    shown = [[clip(4)], [clip(6, seed=3), PICTURES[0]]]
    arm = {"method": "prunesid", "budget": 8}
    shared, alone = (
        ask(PruneSID(str(tmp_path / "qwen"), batch_size=2, share_prefix=share, **arm), shown)
        for share in (True, False)
    )
    assert shared == alone
    FAMILIES["llava_next"](tmp_path / "next", tiny_llava)
    model = PruneSID(str(tmp_path / "next"), newline="rows", budget_for="image", **arm)
    chosen = {name: value for name, value in model.adapter.options.items() if value is not None}
    assert chosen == {"newline": "rows", "budget_for": "image"}
    assert len(ask(model, SHOWN[:3])) == 3
    tome = {"method": "tome", "budget": 11, "newline": "rows"}
    shared, alone = (
        ask(PruneSID(str(tmp_path / "next"), batch_size=2, share_prefix=share, **tome), SHOWN)
        for share in (True, False)
    )
    assert shared == alone
    hired = {"method": "hired", "budget": 20, "alpha": 1.0}
    shared, alone = (
        ask(PruneSID(str(tmp_path / "next"), batch_size=2, share_prefix=share, **hired), SHOWN[:3])
        for share in (True, False)
    )
    assert shared == alone
    with pytest.raises(ValueError, match="Did you mean 'rows'"):
        PruneSID(str(tmp_path / "next"), newline="rosw", **arm)


def test_images_and_questions_are_the_authors_unless_told_otherwise(tiny_llava):
    wide = [[picture.resize((120, 60))] for picture in PICTURES]
    told = {"aspect": "crop", "conv_template": "vicuna_v1"}
    answers = {}
    for options in ({}, {"aspect": "crop"}, told):
        model = PruneSID(str(tiny_llava), batch_size=2, method="grid", budget=5, **options)
        assert {name: model.adapter.options[name] for name in options} == options
        answers[tuple(options)] = ask(model, wide)
    assert len({tuple(each) for each in answers.values()}) == 3
    with pytest.raises(ValueError, match=r"aspect.*Available: crop, pad"):
        PruneSID(str(tiny_llava), aspect="square")


def test_what_it_does_not_do_is_said(tiny_llava):
    model = PruneSID(str(tiny_llava))
    with pytest.raises(NotImplementedError, match="generate_until tasks only"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="single-round"):
        model.generate_until_multi_round([])
