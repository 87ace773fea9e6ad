"""The LLaVA-NeXT adapter against transformers' own model."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from builders.anyres_models import SIZES, pictures, save_tiny_llava_next
from builders.reference_decoding import slow_greedy
from transformers import AutoModelForImageTextToText, AutoProcessor

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.core.rectangle import Box
from prunesid.families.adapter import Crop, kept_crops
from prunesid.families.inputs.anyres import shown_box
from prunesid.generate import engine
from prunesid.images.medium import IMAGE, WHOLE
from prunesid.images.records import ImageRecords

QUESTION = "is there a red circle ?"
CONTEXTS = (QUESTION, "what color is the star ?", "how many bars are taller than 3 ?")
SIDE = 4
OPTIONS = ({}, {"newline": "rows"}, {"unpad": "before"}, {"scope": "image", "crop_order": "method"})


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_llava_next")
    save_tiny_llava_next(path, tiny_llava)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def loaded(plain, processor):
    """The same weights under other options."""
    return lambda **options: families.adapt(plain, processor, **options)


@pytest.fixture(scope="module")
def inputs(adapter):
    return adapter.preprocess(pictures())


@pytest.fixture(scope="module")
def packed(plain, inputs):
    """The tokens of each image in the unmodified model."""
    with torch.no_grad():
        return plain.get_image_features(**inputs).pooler_output


def entering(adapter, kept, records, name):
    (medium,) = records.inputs[name]
    return adapter.enter(kept_crops(kept, medium), medium.layout).embeddings


def test_preprocessing_is_the_processor_s(inputs, processor):
    text = [f"USER: <image>\n{QUESTION} ASSISTANT:"] * len(SIZES)
    theirs = processor(images=pictures(), text=text, return_tensors="pt", padding=True)
    assert inputs.keys() == {"pixel_values", "image_sizes"}
    assert all(torch.equal(inputs[name], theirs[name]) for name in inputs)
    assert inputs["image_sizes"].tolist() == [list(size) for size in SIZES]


def test_features_are_the_hidden_states_of_the_real_crops(adapter, plain, inputs):
    records = adapter.encode(inputs, Needs(layers=frozenset({0})))
    record = records.groups[0]
    pixels = inputs["pixel_values"]
    real = [own[: len(m.rows)] for own, (m,) in zip(pixels, records.inputs.values(), strict=True)]
    assert sum(map(len, real)) < pixels.shape[0] * pixels.shape[1]
    with torch.no_grad():
        tower = plain.model.vision_tower(torch.cat(real), output_hidden_states=True)
    assert torch.equal(record.features, tower.hidden_states[-2][:, 1:])
    assert torch.equal(record.hidden[0], tower.hidden_states[1][:, 1:])
    assert torch.equal(record.cls, tower.hidden_states[-2][:, 0])


def test_the_parts_of_crops_that_show_the_image_are_those_that_the_model_packs(
    plain, inputs, adapter
):
    records = adapter.encode(inputs)
    for size, (medium,) in zip(SIZES, records.inputs.values(), strict=True):
        grid = _grid(plain, size)
        assert medium.sub_crops == grid
        shown = Box(*medium.layout["shown"])
        assert shown == shown_box(size, grid, SIDE)
        base, *parts = medium.parts((SIDE, SIDE))
        assert base == Box(0, 0, SIDE, SIDE) and sum(part.size for part in parts) == shown.size
        assert medium.parts((SIDE, SIDE), unpad=False) == [base] * len(medium.rows)
        states = torch.arange((1 + len(parts)) * SIDE**2).view(-1, SIDE**2, 1)
        crops = _reference_crops(states, grid, size)[1:]
        real = [number for number, part in enumerate(parts) if part.size]
        assert len(crops) == len(real)
        for number, crop in zip(real, crops, strict=True):
            patches = parts[number].patches(SIDE)
            assert torch.equal(crop[:, 0], patches + (1 + number) * SIDE**2)


@pytest.mark.parametrize("options", OPTIONS)
def test_an_image_kept_whole_enters_as_the_model_packs_it(loaded, inputs, packed, options):
    adapter = loaded(**options)
    records = adapter.encode(inputs)
    kept = records.all_tokens()
    for name, expected in zip(records.names, packed, strict=True):
        found = entering(adapter, kept, records, name)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (medium,) = records.inputs["0"]
    assert medium.layout["view"] == WHOLE and medium.kind == IMAGE
    alone = adapter.encode(adapter.preprocess(pictures()[:1]))
    with torch.no_grad():
        own = adapter.model.get_image_features(**adapter.preprocess(pictures()[:1]))
    found = entering(adapter, alone.all_tokens(), alone, "0")
    assert torch.equal(found, own.pooler_output[0])


def test_packing_is_the_model_s_bit_for_bit(loaded, plain, inputs, monkeypatch):
    adapter = loaded()
    records = adapter.encode(inputs)
    monkeypatch.setattr(adapter, "project", lambda tokens: tokens)
    generator = torch.Generator().manual_seed(1)
    for size, (medium,) in zip(SIZES, records.inputs.values(), strict=True):
        grid = _grid(plain, size)
        marked = torch.randn(1 + grid[0] * grid[1], SIDE**2, 48, generator=generator)
        (theirs,), _ = plain.model.pack_image_features(
            [marked], torch.tensor([size]), "default", plain.model.image_newline
        )
        crops = [Crop(own, torch.arange(SIDE**2)) for own in marked]
        assert torch.equal(adapter.enter(crops, medium.layout).embeddings, theirs)


def test_a_permutation_of_the_sub_crops_shows(adapter, inputs, monkeypatch):
    records = adapter.encode(inputs)
    monkeypatch.setattr(adapter, "project", lambda tokens: tokens)
    (medium,) = records.inputs["0"]
    marked = torch.arange(5.0)[:, None, None].expand(5, SIDE**2, 48)
    crops = [Crop(own, torch.arange(SIDE**2)) for own in marked]
    rows = adapter.enter(crops, medium.layout).embeddings[SIDE**2 :, 0].view(8, 9)[:, :-1]
    assert rows[:4].tolist() == [[1.0] * 4 + [2.0] * 4] * 4
    assert rows[4:].tolist() == [[3.0] * 4 + [4.0] * 4] * 4
    for swapped in ((0, 2, 1, 3, 4), (0, 1, 3, 2, 4)):
        other = adapter.enter([crops[n] for n in swapped], medium.layout).embeddings
        assert not torch.equal(other[SIDE**2 :, 0].view(8, 9)[:, :-1], rows)
    some = [Crop(crop.tokens[:3], crop.index[:3]) for crop in crops]
    order = adapter.enter(some, medium.layout).embeddings[:, 0].tolist()
    assert order == [float(n) for n in range(5) for _ in range(3)]


def test_upstream_bug_scrambled_sub_crop_order(adapter, inputs, monkeypatch):
    """Upstream PruneSID sorts the positions of a sub-crop's tokens, not the tokens."""
    records = adapter.encode(inputs, Needs(cls_attention=True))
    kept = records.compress("prunesid", budget=40, preset="release", cls_token=False)
    monkeypatch.setattr(adapter, "project", lambda tokens: tokens)
    unsorted = 0
    for (medium,) in records.inputs.values():
        crops, columns = kept_crops(kept, medium), medium.sub_crops[1]
        # Every token carries the cell of the map that its patch shows.
        cells = []
        for number, crop in enumerate(crops[1:]):
            top, left = number // columns * SIDE, number % columns * SIDE
            cells.append(torch.stack([top + crop.index // SIDE, left + crop.index % SIDE], 1))
        base = replace(crops[0], tokens=_wide(torch.zeros(len(crops[0].index), 2)))
        marked = [
            replace(crop, tokens=_wide(own.float() + 1))
            for own, crop in zip(cells, crops[1:], strict=True)
        ]
        found = adapter.enter([base, *marked], medium.layout).embeddings[len(base.index) :]
        expected = sorted(cell for own in cells for cell in own.tolist())
        assert (found[:, :2] - 1).long().tolist() == expected
        if any(crop.index.tolist() != sorted(crop.index.tolist()) for crop in crops[1:]):
            unsorted += 1
            wrong = [replace(own, place=own.place.sort().values) for own in marked]
            bug = adapter.enter([base, *wrong], medium.layout).embeddings[len(base.index) :]
            assert not torch.equal(bug, found)
    assert unsorted > 3


def test_all_tokens_give_the_logits_and_answers_of_the_unmodified_model(loaded, plain, processor):
    for options in OPTIONS:
        adapter = loaded(**options)
        for picture in pictures():
            text = f"USER: <image>\n{QUESTION} ASSISTANT:"
            whole = processor(images=[picture], text=[text], return_tensors="pt")
            with torch.no_grad():
                expected = plain(**whole).logits[0]
                theirs = plain.generate(**whole, do_sample=False, max_new_tokens=6)
            records = adapter.encode(adapter.preprocess([picture]))
            visual = entering(adapter, records.all_tokens(), records, "0")
            prompt = adapter.prompt(QUESTION, [IMAGE])
            image = [adapter.placeholders[IMAGE]] * len(visual)
            assert [*prompt.texts[0], *image, *prompt.after] == whole["input_ids"][0].tolist()
            hidden = adapter.run(_embedded(adapter, visual, prompt), adapter.new_cache())
            found = adapter.logits(hidden)[0]
            assert torch.equal(found, expected)
            answer = engine.answer_plainly(
                adapter,
                records.all_tokens(),
                records.inputs["0"],
                Question("0", "0", QUESTION, {"max_new_tokens": 6}),
            )
            assert answer == adapter.decode(theirs[0, whole["input_ids"].shape[1] :])


def test_pruned_generation_equals_a_reference_from_inputs_embeds(loaded, plain, inputs):
    adapter = loaded(unpad="before", crop_order="method")
    records = adapter.encode(inputs)
    kept = records.compress("random", budget=30, seed=3)
    with torch.no_grad():
        pixels = inputs["pixel_values"]
        states = plain.model.vision_tower(pixels.flatten(0, 1), output_hidden_states=True)
        states = states.hidden_states[-2].unflatten(0, pixels.shape[:2])[:, :, 1:]
    for number, size in enumerate(SIZES[:4]):
        (medium,) = records.inputs[str(number)]
        crops = _reference_crops(states[number], _grid(plain, size), size)
        assert len(crops) == len(medium.rows)
        # Patches are numbered within the whole crop.
        picked = []
        for crop, row, part in zip(crops, medium.rows, medium.parts((SIDE, SIDE)), strict=True):
            own = part.patches(SIDE).tolist()
            index = kept.index[row, : int(kept.count[row])].tolist()
            picked.append(crop[[own.index(patch) for patch in index]])
        with torch.no_grad():
            visual = plain.model.multi_modal_projector(torch.cat(picked))
        prompt = adapter.prompt(QUESTION, [IMAGE])
        question = Question("0", str(number), QUESTION, {"max_new_tokens": 6})
        ours = engine.answer_plainly(adapter, kept, [medium], question)
        expected = slow_greedy(plain, prompt.texts, [visual], adapter.end_ids, 6)
        assert ours == adapter.decode(expected)


@pytest.mark.parametrize("newline", ["drop", "rows"])
def test_ragged_batches_equal_one_at_a_time(loaded, inputs, newline):
    adapter = loaded(newline=newline)
    names = [f"image {number}" for number in range(len(SIZES))]
    records = adapter.encode(inputs, names=names)
    kept = records.compress("random", budget=21)
    questions = [
        Question(f"{name} {number}", name, text, {"max_new_tokens": 5})
        for name in names
        for number, text in enumerate(CONTEXTS)
    ]
    together = engine.answer(adapter, kept, records.inputs, questions, batch_size=7)
    assert together == engine.answer(adapter, kept, records.inputs, questions, batch_size=1)
    plainly = [
        engine.answer_plainly(adapter, kept, records.inputs[question.image_id], question)
        for question in questions
    ]
    assert [each.answer for each in together] == plainly
    assert len({each.answer for each in together}) > 5
    realized = {name: len(entering(adapter, kept, records, name)) for name in names}
    assert [each.tokens for each in together] == [realized[q.image_id] for q in questions]
    assert len(set(realized.values())) > (2 if newline == "rows" else 1)


def test_an_image_gives_the_same_alone_and_in_company(adapter, inputs):
    together = adapter.encode(inputs, names=[f"image {n}" for n in range(len(SIZES))])
    kept = together.compress("random", budget=21)
    for number, picture in enumerate(pictures()):
        alone = adapter.encode(adapter.preprocess([picture]), names=[f"image {number}"])
        own = alone.compress("random", budget=21)
        (medium,) = together.inputs[f"image {number}"]
        for row, place in enumerate(medium.rows):
            count = int(kept.count[place])
            assert (
                own.index[row, : int(own.count[row])].tolist() == kept.index[place, :count].tolist()
            )


def test_budgets_are_meant_for_a_full_image_or_for_each(loaded, inputs):
    records = loaded().encode(inputs)
    assert records.share == 5
    budgets = records.budgets(22)
    for (medium,) in records.inputs.values():
        assert budgets[list(medium.rows)].tolist() == [5, 5, 4, 4, 4][: len(medium.rows)]
    each = loaded(budget_for="image").encode(inputs)
    kept = each.compress("grid", budget=50)
    assert torch.equal(kept.count, each.budgets(50))
    for (medium,) in each.inputs.values():
        rows = list(medium.rows)
        assert kept.count[rows].sum() == min(50, len(rows) * SIDE**2)
    # Without padding a narrow image has its base crop alone, and its share.
    shown = loaded(unpad="before").encode(inputs)
    kept = shown.compress("grid", budget=22)
    for name in ("8", "9"):
        (medium,) = shown.inputs[name]
        assert kept.count[list(medium.rows)].tolist() == [5, 0, 0, 0]


def test_several_images_of_one_question(adapter, plain, processor):
    media = pictures()[1:3]
    records = adapter.encode(adapter.preprocess(media), names=["both", "both"])
    text = f"USER: <image>\n<image>\n{QUESTION} ASSISTANT:"
    whole = processor(images=media, text=[text], return_tensors="pt")
    with torch.no_grad():
        theirs = plain.generate(**whole, do_sample=False, max_new_tokens=6)
    question = Question("0", "both", QUESTION, {"max_new_tokens": 6})
    (answer,) = engine.answer(adapter, records.all_tokens(), records.inputs, [question])
    assert answer.answer == adapter.decode(theirs[0, whole["input_ids"].shape[1] :])
    assert answer.tokens == int((whole["input_ids"] == adapter.placeholders[IMAGE]).sum())


def test_records_of_batches_join(adapter, inputs):
    names = [f"image {number}" for number in range(len(SIZES))]
    whole = adapter.encode(inputs, names=names)
    parts = [
        adapter.encode(
            adapter.preprocess(pictures()[start : start + 3]), names=names[start : start + 3]
        )
        for start in range(0, len(SIZES), 3)
    ]
    joined = ImageRecords.cat(parts)
    first, second = (each.compress("grid", budget=20) for each in (whole, joined))
    for name in names:
        torch.testing.assert_close(
            entering(adapter, first, whole, name), entering(adapter, second, joined, name)
        )
    assert joined.share == 5


def test_errors_name_the_choices(folder, plain, processor, adapter, images):
    with pytest.raises(ValueError, match="Did you mean 'drop'"):
        families.load(folder, newline="drops")
    with pytest.raises(ValueError, match="Available: crop, image, packed"):
        families.load(folder, scope="total")
    with pytest.raises(
        ValueError,
        match="Available: budget_for, conv_template, crop_order, newline, scope, text_tower, unpad",
    ):
        families.load(folder, pad=True)
    with pytest.raises(ValueError, match="leave newline out"):
        families.load(folder, scope="packed", newline="rows")
    other = copy.deepcopy(processor)
    other.image_processor.image_grid_pinpoints = [[56, 112]]
    with pytest.raises(ValueError, match=r"its processor \[\[56, 112\]\]"):
        families.adapt(plain, other)
    with pytest.raises(ValueError, match="images, not clips"):
        adapter.preprocess([object()])
    with pytest.raises(ValueError, match="cannot be shared among 5 crops"):
        adapter.encode(adapter.preprocess(images[:1])).compress("grid", budget=4)
    assert adapter.num_tokens is None


def _grid(plain, size):
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

    return get_anyres_image_grid_shape(list(size), plain.config.image_grid_pinpoints, 56)


def _wide(cells):
    return torch.cat([cells, cells.new_zeros(len(cells), 46)], dim=1)


def _reference_crops(states, grid, size):
    """(T, D) patches of each crop that show the image, by the model's own unpadding of a map."""
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    rows, columns = grid
    number = torch.arange(1, 1 + rows * columns).view(rows, columns)
    number = number.repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1)
    patch = torch.arange(SIDE**2).view(SIDE, SIDE).repeat(rows, columns)
    shown = unpad_image(torch.stack([number, patch]), list(size)).flatten(1)
    return [
        states[0],
        *(states[crop][shown[1][shown[0] == crop]] for crop in shown[0].unique().tolist()),
    ]


def _embedded(adapter, visual, prompt):
    before, after = (adapter.embed(torch.tensor(ids)) for ids in prompt.texts)
    return torch.cat([before, visual, after])[None]
