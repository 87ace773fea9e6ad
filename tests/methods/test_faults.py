"""A method that raises or gives what none may is refused, by name of method, image and arm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders.tiny_llava import random_images
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid
from prunesid import VisionRecord, compress, families
from prunesid.core.costs import EncoderShape
from prunesid.core.faults import MethodError
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.core.record import keep
from prunesid.core.registry import withdraw
from prunesid.generate.late import answer_late
from prunesid.methods import decoder, encoder, features
from prunesid.methods.decoder.schedule import Choice, Schedule, Stage
from prunesid.methods.encoder import Plan
from prunesid.methods.registry import METHODS
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import make_arm
from prunesid.study.config.plugins import load_plugins
from prunesid.study.provenance.store import Store
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import extract
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

IDS = ("a", "b", "c")
PLUGIN = """
import torch
from prunesid.core.record import keep
from prunesid.methods import decoder, encoder, features
from prunesid.methods.decoder.schedule import Choice, Schedule, Stage


@features.register("faulty")
def faulty(record, budget, draws):
    if any(name.endswith("2") for name in record.image_ids):
        raise IndexError("list index out of range")
    rank = torch.arange(record.num_tokens).expand(len(record), -1)
    return keep(record, rank, budget)


@encoder.register("faulty_plan")
def faulty_plan(shape, budget):
    raise KeyError("side")


@decoder.register("faulty_late")
def faulty_late(shape, budget):
    def choose(view):
        if len(view.text_hidden) > 0:
            raise ZeroDivisionError("division by zero")

    return Schedule((Stage(0, choose),))
"""


@pytest.fixture(autouse=True)
def own_methods(monkeypatch):
    """What a test registers goes with it."""
    METHODS.names()
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))


@pytest.fixture
def record():
    values = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    return VisionRecord(values, grid=(3, 4), image_ids=IDS)


def only_b(record, wrong, right):
    """`wrong` for the image b, `right` for all others."""
    rows = torch.tensor([name == "b" for name in record.image_ids])
    return torch.where(rows.reshape(-1, *[1] * (right.ndim - 1)), wrong, right)


def _first(record, budget):
    return keep(record, torch.arange(record.num_tokens).expand(len(record), -1), budget)


def _with(kept, record, **fields):
    wrong = {name: only_b(record, value, getattr(kept, name)) for name, value in fields.items()}
    return replace(kept, **wrong)


# What is done to tokens that are right, and what is said of it.
WRONG = {
    "NaN": (lambda k, r: _with(k, r, tokens=k.tokens * torch.nan), "NaN or infinite"),
    "infinite": (lambda k, r: _with(k, r, tokens=k.tokens / 0), "NaN or infinite"),
    "fewer": (lambda k, r: _with(k, r, count=k.count - 1), "keeps 4 tokens, not 5"),
    "none": (lambda k, r: _with(k, r, count=k.count * 0), "keeps 0 tokens, not 5"),
    "twice": (lambda k, r: _with(k, r, index=k.index * 0), "keeps a patch twice"),
    "outside": (lambda k, r: _with(k, r, index=k.index + 9), "keeps patch 13 .* 0 to 11"),
    "negative": (lambda k, r: _with(k, r, index=k.index - 9), "an index below 0 is not -1"),
    "other patch": (lambda k, r: _with(k, r, tokens=k.tokens + 1), "is not that patch"),
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("exact", [True, False])
def test_tokens_that_no_method_may_keep_are_refused_with_method_and_image(record, fault, exact):
    change, message = WRONG[fault]

    @features.register("faulty", exact=exact)
    def faulty(own, budget, draws):
        return change(_first(own, budget), own)

    if not exact and fault == "fewer":
        # The last row is then padding, which has to look like it.
        message = "padding has one"
    if not exact and fault == "none":
        message = "keeps 0 tokens, not 1 to 12"
    with pytest.raises(MethodError, match=f"^faulty on image 'b': .*{message}"):
        compress(record, "faulty", budget=5)
    compress(record.rows([0, 2]), "faulty", budget=5)


def test_what_is_no_kept_of_these_images_is_refused(record):
    forms = {
        "returned a tuple, not a Kept": lambda k: (k.tokens, k.index, k.count),
        r"tokens are \(1, 5, 4\) of float64 .*, not \(1, 5, 4\) of float32": lambda k: replace(
            k, tokens=k.tokens.double()
        ),
        r"index are \(1, 5\) of int32 .*, not \(1, 5\) of int64": lambda k: replace(
            k, index=k.index.int()
        ),
        r"count are \(1, 1\) of int64": lambda k: replace(k, count=k.count[:, None]),
    }
    for number, (message, change) in enumerate(forms.items()):

        @features.register(f"faulty_{number}")
        def faulty(own, budget, draws, change=change):
            return change(_first(own, budget))

        with pytest.raises(
            MethodError, match=f"faulty_{number} on image 'a': its.* {message}|{message}"
        ):
            compress(record.rows([0]), f"faulty_{number}", budget=5)


def test_a_method_may_keep_fewer_only_if_it_says_so(record):
    for name, exact in (("fewer", True), ("declared", False)):

        @features.register(name, exact=exact)
        def half(own, budget, draws):
            return _first(own, budget // 2)

    assert compress(record, "declared", budget=8).count.tolist() == [4] * 3
    with pytest.raises(MethodError, match="fewer on image 'a': it keeps 4 tokens, not 8"):
        compress(record, "fewer", budget=8)


def test_the_image_that_a_method_raises_on_is_found_and_the_cause_is_the_only_one(record):
    @features.register("faulty")
    def faulty(own, budget, draws):
        if "b" in own.image_ids:
            raise TypeError("no such thing")
        return _first(own, budget)

    with pytest.raises(
        MethodError, match="^faulty on image 'b': TypeError: no such thing$"
    ) as told:
        compress(record, "faulty", budget=5)
    assert isinstance(told.value.__cause__, TypeError)
    assert told.value.__cause__.__cause__ is None and told.value.__suppress_context__
    unnamed = replace(record, image_ids=None)
    with pytest.raises(MethodError, match="^faulty on row 0 of 3: TypeError"):
        compress(unnamed, "faulty", budget=5)


def test_running_out_of_memory_is_no_fault_of_a_method(record):
    @features.register("faulty")
    def faulty(own, budget, draws):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        compress(record, "faulty", budget=5)


def test_values_that_are_wrong_before_the_method_name_their_image(record):
    bad = record.features.clone()
    bad[2, 3, 1] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite values, before random: image 'c'"):
        compress(replace(record, features=bad), "random", budget=5)


# Choices among 16 tokens; three are wanted.
CHOICES = {
    "outside": (lambda v: Choice(torch.tensor([0, 1, 16])), "outside of the 16"),
    "twice": (lambda v: Choice(torch.tensor([0, 1, 1])), "does not ascend, or has a token twice"),
    "count": (lambda v: Choice(torch.arange(4)), "leaves 4 tokens, not 3"),
    "NaN": (lambda v: Choice(torch.arange(2), v.tokens[:1] * torch.nan), "NaN or infinite"),
    "type": (lambda v: torch.arange(3), "returned a Tensor, not a Choice"),
    "raises": (lambda v: v.tokens[:, None] @ v.keys, "RuntimeError: "),
}


@pytest.fixture(scope="module")
def model(tiny_llava):
    return AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()


@pytest.fixture(scope="module")
def processor(tiny_llava):
    return AutoProcessor.from_pretrained(tiny_llava)


@pytest.mark.parametrize("fault", CHOICES)
def test_a_choice_between_layers_is_refused_with_method_question_and_prompt(
    model, processor, fault
):
    wrong, message = CHOICES[fault]

    @decoder.register("faulty")
    def faulty(shape, budget):
        def choose(view):
            # The longer question of the two.
            return wrong(view) if len(view.text_hidden) > 6 else Choice(torch.arange(3))

        return Schedule((Stage(0, choose, leaves=3),))

    adapter = families.adapt(model, processor)
    pictures = random_images(2)
    records = adapter.encode(adapter.preprocess(pictures), Needs(), ["a", "b"])
    asked = [
        Question("0", "a", "is there a circle ?", {"max_new_tokens": 2}),
        Question("1", "b", "how many bars are taller than 3 ? A 1 B 2", {"max_new_tokens": 2}),
    ]
    with pytest.raises(MethodError, match=f"^faulty on question 1, image 'b': .*{message}"):
        answer_late(adapter, records.all_tokens(), records.inputs, asked, "faulty", budget=5)
    texts, shown = zip(
        *(
            prunesid.prepare(model, processor, q.context, [p])
            for q, p in zip(asked, pictures, strict=True)
        ),
        strict=True,
    )
    inputs = processor(
        text=list(texts), images=[p for own in shown for p in own], padding=True,
        padding_side="left", return_tensors="pt",
    )  # fmt: skip
    with (
        prunesid.pruned(model, processor, method="faulty", budget=5),
        pytest.raises(MethodError, match=f"^faulty on prompt 1: .*{message}"),
    ):
        model.generate(**inputs, max_new_tokens=2)


def test_pruned_names_the_row_of_a_choice_among_features(model, processor):
    @features.register("faulty")
    def faulty(own, budget, draws):
        kept = _first(own, budget)
        kept.tokens[1, 0, 0] = torch.nan
        return kept

    text, images = prunesid.prepare(model, processor, "is there a circle ?", random_images(1))
    inputs = processor(text=[text] * 2, images=images * 2, return_tensors="pt")
    with (
        prunesid.pruned(model, processor, method="faulty", budget=5),
        pytest.raises(MethodError, match=r"^faulty on row 1 of 2: its tokens hold NaN"),
    ):
        model.generate(**inputs, max_new_tokens=2)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda shape, budget: 1 / 0, "faulty has no plan: ZeroDivisionError"),
        (lambda shape, budget: None, "faulty returned a NoneType, not a Plan"),
        (lambda shape, budget: Plan(shape.side, (1, 1)), "cannot follow"),
        (lambda shape, budget: Plan(shape.side, (9, 0, 0)), "cannot follow"),
        (lambda shape, budget: Plan(shape.side, (0, 0, 0)), "for 12 tokens .* cannot follow"),
    ],
)
def test_plans_that_an_encoder_cannot_follow_are_refused(run, message):
    encoder.register("faulty")(run)
    with pytest.raises(MethodError, match=message):
        encoder.plan("faulty", EncoderShape(layers=4, side=4, read=3), 12)


@pytest.mark.parametrize("grid", [(3, 4), (0, 3), (7, 1), [2, 2], (1.0, 2)])
def test_grids_beyond_the_budget_or_the_image_are_refused(grid):
    encoder.register("faulty", grid=lambda whole, budget: grid)(lambda shape, budget: None)
    with pytest.raises(MethodError, match="faulty shrinks 6 x 6 tokens to"):
        encoder.plans("faulty", None, 10).grid((6, 6), 10)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda shape, budget: {}[budget], "faulty has no plan: KeyError"),
        (lambda shape, budget: [], "faulty returned a list, not a Schedule"),
        (
            lambda shape, budget: Schedule((Stage(3, lambda view: None),)),
            r"after the layers \[3\]; those of this decoder are 0 to 2",
        ),
    ],
)
def test_schedules_that_a_decoder_cannot_run_are_refused(run, message):
    decoder.register("faulty")(run)
    with pytest.raises(MethodError, match=message):
        decoder.plan("faulty", decoder.DecoderShape(4, 16), 8)


def test_an_encoder_pass_that_ends_in_nan_names_method_and_image(tiny_llava):
    adapter = families.load(tiny_llava)
    pixels = adapter.preprocess(random_images(2))
    pixels["pixel_values"][1] = torch.nan
    with pytest.raises(MethodError, match="^tome on image 'b': its tokens hold NaN"):
        adapter.reduce(pixels, adapter.plans("tome", 8, {}), ["a", "b"])


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "faulty_methods.py").write_text(PLUGIN)
    yield load_plugins(["faulty_methods.py"], tmp_path)
    withdraw("prunesid_plugin_faulty_methods")


def test_a_study_names_the_arm_too(plugin, tmp_path):
    render("pocket_mme", tmp_path / "mme.parquet", 3)
    source, runtime = Source("pocket_mme", tmp_path / "mme.parquet"), Runtime("pocket")
    early, late = (
        make_arm({"method": "faulty", "budget": 9}),
        make_arm({"method": "faulty_late", "budget": 400}),
    )
    inside = make_arm({"method": "faulty_plan", "budget": 9})
    path, store, output = tmp_path / "features.safetensors", Store(tmp_path), tmp_path / "keys.json"
    extract(source, runtime, needs_of([early]), path)
    with pytest.raises(
        ValueError, match=rf"^arm '{early.name}': faulty on image '\S+2': IndexError: list index"
    ) as told:
        select_arms(path, [early], store, output)
    assert type(told.value.__cause__) is IndexError
    with pytest.raises(
        ValueError, match=rf"^arm '{inside.name}': faulty_plan has no plan: KeyError"
    ):
        encode_arms(source, runtime, path, [inside], store, output)
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(
        ValueError,
        match=rf"^arm '{late.name}': faulty_late on question 0, image '\S+': ZeroDivisionError",
    ):
        answer_benchmark(source, runtime, path, tmp_path / "none.json", [late], store, output)
