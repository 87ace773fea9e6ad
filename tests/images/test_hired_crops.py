"""HiRED's split of a budget among the crops of an image: records, LLaVA-NeXT, stages, `prune`."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from builders import reference_methods as reference
from builders.anyres_models import SIZES, pictures, save_tiny_llava_next
from builders.family_models import FAMILIES
from builders.reference_decoding import slow_greedy
from builders.synthetic import record
from builders.tiny_llava import random_images
from study.stages.test_families import check, run
from transformers import AutoModelForImageTextToText

import prunesid
from prunesid import compress, families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.families.adapter import kept_crops
from prunesid.generate import engine
from prunesid.images.medium import IMAGE, SUB_CROPS, Medium
from prunesid.images.records import ImageRecords
from prunesid.methods.features import requirements_in_crops
from prunesid.methods.features.hired import kept_count
from prunesid.methods.registry import requirements
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.files.features import read_features
from prunesid.study.files.kept import load_kept, save_kept
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.source import Source

QUESTION = "is there a red circle ?"
NEEDS = Needs(cls_attention=True, first_cls_attention=True)
SIDE = 4


def attended(images, grid, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = grid[0] * grid[1]
    return replace(
        record(images=images, tokens=tokens, grid=grid, seed=seed),
        first_cls_attention=(3 * torch.randn(images, tokens, generator=generator)).softmax(-1),
    )


def records(share=None):
    """Inputs of a base crop of 24 patches and sub-crops.

    `a` has 2 x 2 sub-crops, two of which show the image in 12 of their patches. `b` has 1 x 3, of
    which the second shows nothing. `c` has 1 x 3, which show nothing.
    """
    whole, half, none = [0, 0, 4, 6], [0, 0, 2, 6], [0, 0, 0, 6]
    layouts = [
        {"view": "whole", SUB_CROPS: {"grid": grid, "parts": [whole, *parts]}}
        for grid, parts in (
            ([2, 2], [whole, half, whole, half]),
            ([1, 3], [whole, none, whole]),
            ([1, 3], [none] * 3),
        )
    ]
    rows = range(5), range(5, 9), range(9, 13)
    media = [Medium(IMAGE, tuple(r), own) for r, own in zip(rows, layouts, strict=True)]
    group = attended(13, (4, 6), 1)
    never = {"unpad": "never"}
    return ImageRecords.named(
        [group], [range(13)], media, ["a", "b", "c"], share=share, crops=never
    )


def expected(found, name, total, *, alpha=0.5, regions="runs", rounding="exact"):
    """The tokens that the slow reference gives to each crop of an input."""
    (medium,) = found.inputs[name]
    rows, columns = medium.sub_crops
    attention = found.groups[0].first_cls_attention[medium.rows[0]].double()
    if rounding == "upstream":
        whole = 24 * (1 + rows * columns)
        total = kept_count(total, whole, "upstream")
    grid = (4, 6) if regions == "quadrants" else None
    return reference.crop_budgets(attention.numpy(), total, (rows, columns), alpha, grid)


@pytest.mark.parametrize("share", [None, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("regions", ["runs", "quadrants"])
@pytest.mark.parametrize("rounding", ["upstream", "exact"])
def test_every_crop_gets_what_the_reference_gives_it(share, alpha, regions, rounding):
    found, params = records(share), {"alpha": alpha, "regions": regions, "rounding": rounding}
    empty = 0
    for budget in (5, 13, 20, 47):
        kept = found.compress("hired", budget=budget, **params)
        even = found.budgets(budget)
        for name, (medium,) in found.inputs.items():
            rows = list(medium.rows)
            total = (
                int(even[rows].sum()) if share else min(budget, sum(found.sizes[r] for r in rows))
            )
            if bool((even[rows] >= torch.tensor(found.sizes)[rows]).all()):
                wanted = [found.sizes[row] for row in rows]
            else:
                wanted = expected(found, name, total, **params)
            if not any(wanted):
                wanted[0] = 1
            assert kept.count[rows].tolist() == wanted
            assert 1 <= sum(wanted) <= total
            empty += wanted.count(0)
    assert empty > 0 or alpha in (0.3, 0.5)


def test_every_crop_keeps_its_own_top():
    found = records()
    kept = found.compress("hired", budget=41)
    assert kept.count[0] == kept_count(20, 24) == 20
    for group, rows in zip(found.groups, found.members, strict=True):
        for place, row in enumerate(rows):
            count = int(kept.count[row])
            assert (kept.index[row, count:] == -1).all() and not kept.tokens[row, count:].any()
            if count:
                top = compress(group.rows([place]), "cls_topk", budget=count)
                assert kept.index[row, :count].tolist() == top.index[0].tolist()


def test_all_of_an_image_is_kept_where_the_budget_is_all_of_it():
    found = records()
    kept, whole = found.compress("hired", budget=120), found.all_tokens()
    assert torch.equal(kept.count, whole.count) and torch.equal(kept.tokens, whole.tokens)


def test_tokens_of_the_padding_are_dropped_after_the_choice():
    found = records()
    kept = found.compress("hired", budget=41)
    shown = replace(found, crops={}).compress("hired", budget=41)
    dropped = 0
    for row, size in enumerate([24, 24, 12, 24, 12, 24, 24, 0, 24, 24, 0, 0, 0]):
        chosen = kept.index[row, : int(kept.count[row])].tolist()
        left = [patch for patch in chosen if patch < size]
        assert shown.index[row, : int(shown.count[row])].tolist() == left
        dropped += len(chosen) - len(left)
    assert dropped > 5
    assert not shown.tokens[~shown.mask].any() and (shown.index[~shown.mask] == -1).all()


def test_a_crop_without_tokens_is_stored_and_comes_back(tmp_path):
    found = records()
    kept = found.compress("hired", budget=20, alpha=1)
    assert kept.count.tolist() == [20, 0, 0, 0, 0, *[20, 0, 0, 0] * 2]
    save_kept(kept, tmp_path / "kept.safetensors")
    again = load_kept(tmp_path / "kept.safetensors", found)
    for name in ("tokens", "index", "count"):
        assert torch.equal(getattr(again, name), getattr(kept, name))


def test_other_methods_and_other_media_share_evenly():
    found = records()
    assert found.compress("cls_topk", budget=20).count[:5].tolist() == [4] * 5
    plain = Medium(IMAGE, (0, 1, 2, 3, 4), {"view": "whole"})
    inputs = {**found.inputs, "a": (plain,)}
    frames = ImageRecords(found.groups, found.members, inputs)
    exact = frames.compress("hired", budget=20, rounding="exact")
    assert exact.count[:5].tolist() == [4] * 5
    for value in (0, -1):
        with pytest.raises(ValueError, match="budget must be at least 1"):
            compress(found.groups[0], "hired", budget=value)
    with pytest.raises(ValueError, match="cannot be shared among 5 crops"):
        found.compress("hired", budget=4)


def test_only_images_in_crops_need_the_first_block():
    assert requirements("hired") == Needs(cls_attention=True)
    assert requirements_in_crops("hired") == needs_of([make_arm({"method": "hired"})]) == NEEDS
    assert requirements_in_crops("cls_topk") == requirements("cls_topk")
    bare = [replace(group, first_cls_attention=None) for group in records().groups]
    with pytest.raises(ValueError, match="hired needs first_cls_attention of the base crop"):
        replace(records(), groups=tuple(bare)).compress("hired", budget=20)
    with pytest.raises(ValueError, match="alpha is a share in"):
        make_arm({"method": "hired", "alpha": 1.5})
    with pytest.raises(ValueError, match="Did you mean 'quadrants'"):
        make_arm({"method": "hired", "regions": "quadrant"})
    one = compress(record(), "hired", budget=6)
    other = compress(record(), "hired", budget=6, alpha=0.1, regions="quadrants")
    assert torch.equal(one.index, other.index)


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_llava_next")
    save_tiny_llava_next(path, tiny_llava)
    return path


@pytest.fixture(scope="module")
def loaded(folder):
    return lambda **options: families.load(folder, **options)


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


NAMES = [f"image {number}" for number in range(len(SIZES))]


def test_the_first_block_is_read_as_eager_attention_has_it(loaded, folder):
    adapter = loaded()
    inputs = adapter.preprocess(pictures())
    found = adapter.encode(inputs, NEEDS, NAMES)
    eager = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    counts = [len(medium.rows) for (medium,) in found.inputs.values()]
    pixels = [own[:count] for own, count in zip(inputs["pixel_values"], counts, strict=True)]
    with torch.no_grad():
        maps = eager.model.vision_tower(torch.cat(pixels), output_attentions=True).attentions
    own = found.groups[0].first_cls_attention
    torch.testing.assert_close(own, maps[0][:, :, 0, 1:].mean(1), atol=1e-5, rtol=0)
    assert adapter.encode(inputs, Needs(), NAMES).groups[0].first_cls_attention is None


@pytest.mark.parametrize("unpad", ["never", "before"])
@pytest.mark.parametrize("budget_for", ["full", "image"])
def test_llava_next_shares_by_the_first_block_of_the_base_crop(loaded, unpad, budget_for):
    adapter = loaded(unpad=unpad, budget_for=budget_for)
    found = adapter.encode(adapter.preprocess(pictures()), NEEDS, NAMES)
    kept, even = found.compress("hired", budget=40), found.budgets(40)
    uneven = 0
    for (medium,) in found.inputs.values():
        rows, grid = list(medium.rows), medium.sub_crops
        parts = medium.parts((SIDE, SIDE), unpad == "before")
        sizes, total = [part.size for part in parts], int(even[rows].sum())
        attention = found.groups[0].first_cls_attention[rows[0]].double().numpy()
        if all(share >= size for share, size in zip(even[rows].tolist(), sizes, strict=True)):
            wanted = sizes
        else:
            wanted = reference.crop_budgets(attention, total, grid)
            wanted = [min(pair) for pair in zip(wanted, sizes, strict=True)]
        assert kept.count[rows].tolist() == wanted
        uneven += len(set(wanted[1:])) > 1
    assert uneven > 2


def visual_of(plain, crops, columns, newline):
    """Entering tokens, by plain code; `crops` (tokens (n, D), patches (n,)), base crop first."""
    with torch.no_grad():
        visual = plain.model.multi_modal_projector(torch.cat([tokens for tokens, _ in crops]))
    base, places = len(crops[0][1]), []
    for number, (_, index) in enumerate(crops[1:]):
        top, left = number // columns * SIDE, number % columns * SIDE
        places += [(top + i // SIDE, left + i % SIDE) for i in index.tolist()]
    order = sorted(range(len(places)), key=places.__getitem__)
    parts = [visual[:base]]
    for number, place in enumerate(order):
        parts.append(visual[base + place][None])
        ends = number + 1 == len(order) or places[order[number + 1]][0] != places[place][0]
        if ends and newline == "rows":
            parts.append(plain.model.image_newline[None].detach())
    return torch.cat(parts)


@pytest.mark.parametrize("options", [{}, {"newline": "rows"}, {"unpad": "before"}])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_generation_equals_a_reference_from_inputs_embeds(loaded, plain, options, alpha):
    adapter = loaded(**options)
    found = adapter.encode(adapter.preprocess(pictures()), NEEDS, NAMES)
    kept = found.compress("hired", budget=30, alpha=alpha)
    questions, plainly, entered, empty = [], [], [], 0
    for name, (medium,) in found.inputs.items():
        crops = []
        for row in medium.rows:
            index = kept.index[row, : int(kept.count[row])]
            crops.append((found.groups[0].features[row][index], index))
            empty += not len(index)
        shown = medium.parts((SIDE, SIDE))
        if all(len(own) >= part.size for (_, own), part in zip(crops, shown, strict=True)):
            continue  # a narrow image that is kept whole
        visual = visual_of(plain, crops, medium.sub_crops[1], options.get("newline"))
        prompt = adapter.prompt(QUESTION, [IMAGE])
        plainly.append(
            adapter.decode(slow_greedy(plain, prompt.texts, [visual], adapter.end_ids, 5))
        )
        entering = adapter.enter(kept_crops(kept, medium), medium.layout).embeddings
        torch.testing.assert_close(entering, visual, rtol=1e-5, atol=1e-5)
        questions.append(Question(name, name, QUESTION, {"max_new_tokens": 5}))
        entered.append(len(visual))
    assert empty > 0 and len(plainly) > 3
    for batch_size in (1, 4):
        answers = engine.answer(adapter, kept, found.inputs, questions, batch_size=batch_size)
        assert [each.answer for each in answers] == plainly
        assert [each.tokens for each in answers] == entered
    assert len(set(plainly)) > 3


def test_an_image_gives_the_same_alone_and_in_company(loaded):
    adapter = loaded()
    together = adapter.encode(adapter.preprocess(pictures()), NEEDS, NAMES)
    kept = together.compress("hired", budget=21, alpha=0.2)
    for name, picture in zip(NAMES, pictures(), strict=True):
        alone = adapter.encode(adapter.preprocess([picture]), NEEDS, [name])
        own = alone.compress("hired", budget=21, alpha=0.2)
        (medium,) = together.inputs[name]
        for row, place in enumerate(medium.rows):
            count = int(kept.count[place])
            assert int(own.count[row]) == count
            assert own.index[row, :count].tolist() == kept.index[place, :count].tolist()


def test_a_crop_without_tokens_goes_through_every_stage(tiny_llava, tmp_path):
    FAMILIES["llava_next"](tmp_path / "model", tiny_llava)
    data = tmp_path / "mme.parquet"
    render("pocket_mme", data, 2)
    source, metric = Source("pocket_mme", data), "mme_perception_score"
    hired = make_arm({"budget": 12, "method": "hired", "alpha": 1.0})
    arms = (VANILLA, hired, make_arm({"budget": 12, "method": "hired", "regions": "quadrants"}))
    table = run(tmp_path / "run", tmp_path / "model", source, metric, batch_size=2, arms=arms)
    check(tmp_path / "run", table, arms)
    again = run(tmp_path / "again", tmp_path / "model", source, metric, batch_size=1, arms=arms)
    pd.testing.assert_frame_equal(table, again)
    stored, _ = read_features(tmp_path / "run" / "features.safetensors")
    assert all(group.first_cls_attention is not None for group in stored.groups)
    kept = stored.compress("hired", budget=12, alpha=1.0)
    assert (kept.count == 0).any()
    tokens = table[table["arm"] == hired.name].set_index("image_id")["tokens"]
    for name, (medium,) in stored.inputs.items():
        assert set(tokens.loc[[name]]) == {int(kept.count[list(medium.rows)].sum())}
    plain = (VANILLA, make_arm({"budget": 12, "method": "cls_topk"}))
    run(tmp_path / "plain", tmp_path / "model", source, metric, batch_size=2, arms=plain)
    stored, _ = read_features(tmp_path / "plain" / "features.safetensors")
    assert all(group.first_cls_attention is None for group in stored.groups)


def test_an_image_of_one_crop_stores_nothing_of_the_first_block(tiny_llava):
    adapter = families.load(tiny_llava)
    found = adapter.encode(adapter.preprocess(random_images(2)), NEEDS)
    assert found.single.first_cls_attention is None
    assert found.compress("hired", budget=8).count.tolist() == [kept_count(8, 16)] * 2


def test_pruned_leaves_the_crops_what_hired_gives_them(loaded, plain):
    adapter = loaded()
    picture = pictures()[:1]
    found = adapter.encode(adapter.preprocess(picture), NEEDS)
    (medium,) = found.inputs["0"]
    whole = adapter.enter(kept_crops(found.all_tokens(), medium), medium.layout)
    kept = found.compress("hired", budget=30, alpha=1.0)
    assert kept.count.tolist() == [16, 0, 0, 0, 0]
    question = Question("0", "0", QUESTION, {"max_new_tokens": 5})
    expected = engine.answer_plainly(adapter, kept, (medium,), question)
    prompt = adapter.prompt(QUESTION, [IMAGE])
    ids = [*prompt.texts[0], *[adapter.placeholders[IMAGE]] * len(whole), *prompt.after]
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    given |= adapter.preprocess(picture)
    with prunesid.pruned(plain, adapter.processor, method="hired", budget=30, alpha=1.0) as model:
        output = model.generate(**given, do_sample=False, max_new_tokens=5)
    assert adapter.decode(output[0, len(ids) :].tolist()) == expected
