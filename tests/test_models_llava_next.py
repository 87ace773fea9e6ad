"""The LLaVA-NeXT adapter against transformers' own model."""

from __future__ import annotations

import copy

import pytest
import torch
from anyres_models import SIZES, pictures, save_tiny_llava_next
from reference_decoding import slow_greedy
from transformers import AutoModelForImageTextToText, AutoProcessor

from prunesid import models
from prunesid.answering import Question, engine
from prunesid.box import Box
from prunesid.methods import Needs
from prunesid.models.adapter import Crop, kept_crops
from prunesid.models.anyres import crop_boxes, shown_box
from prunesid.record import OPTIONAL
from prunesid.records import IMAGE, WHOLE, Records

QUESTION = "is there a red circle ?"
CONTEXTS = (QUESTION, "what color is the star ?", "how many bars are taller than 3 ?")
SIDE = 4


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
    return models.load(folder)


@pytest.fixture(scope="module")
def loaded(plain, processor):
    """The same weights under other options."""
    return lambda **options: models.adapt(plain, processor, **options)


@pytest.fixture(scope="module")
def inputs(adapter):
    return adapter.preprocess(pictures())


@pytest.fixture(scope="module")
def packed(plain, inputs):
    """What the unmodified model makes of each image."""
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


def test_features_are_the_hidden_states_of_the_real_crops(loaded, plain, inputs):
    adapter = loaded(unpad=False)
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


def test_unpadding_cuts_every_field_alike(loaded, inputs):
    # Texts are compared with patches only where there is a text tower.
    fields = {name: True for name in OPTIONAL if name not in ("relevance", "joint")}
    asked = Needs(layers=frozenset({1}), **fields)
    names = [f"image {number}" for number in range(len(SIZES))]
    full = loaded(unpad=False).encode(inputs, asked, names)
    records = loaded().encode(inputs, asked, names)
    assert len(full.groups) == 1 and len(records.groups) > 2
    rows = {row: (g, n) for g, own in enumerate(records.members) for n, row in enumerate(own)}
    for size, (medium,), (entire,) in zip(
        SIZES, records.inputs.values(), full.inputs.values(), strict=True
    ):
        whole = [Box(0, 0, SIDE, SIDE), *(Box(*values) for values in entire.layout["boxes"])]
        cut = [Box(0, 0, SIDE, SIDE), *(Box(*values) for values in medium.layout["boxes"])]
        shown = Box(*medium.layout["shown"])
        assert shown == shown_box(size, (whole[-1].bottom // SIDE, whole[-1].right // SIDE), SIDE)
        assert sum(box.size for box in cut[1:]) == shown.size
        left = iter(zip(medium.rows, cut, strict=True))
        for number, (row, box) in enumerate(zip(entire.rows, whole, strict=True)):
            if number and not shown.within(box).size:
                continue
            small, part = next(left)
            group, place = rows[small]
            record, other = records.groups[group], full.groups[0]
            assert record.grid == part.grid
            inside = part.within(box)
            patches = (
                torch.arange(SIDE**2)
                .view(SIDE, SIDE)[inside.top : inside.bottom, inside.left : inside.right]
                .flatten()
            )
            assert torch.equal(record.features[place], other.features[row][patches])
            assert torch.equal(record.hidden[1][place], other.hidden[1][row][patches])
            assert torch.equal(record.cls[place], other.cls[row])
            for name in ("cls_attention", "keys"):
                assert torch.equal(
                    getattr(record, name)[place], getattr(other, name)[row][:, patches]
                )
            for name in (
                "last_attention", "last_keys", "first_cls_attention", "last_cls_attention"
            ):  # fmt: skip
                assert torch.equal(getattr(record, name)[place], getattr(other, name)[row][patches])
            torch.testing.assert_close(record.projected[place], other.projected[row][patches])
        assert next(left, None) is None
    named = {row: i for g, own in zip(records.groups, records.members, strict=True)
             for row, i in zip(own, g.image_ids, strict=True)}  # fmt: skip
    (medium,) = records.inputs["image 1"]
    assert [named[row] for row in medium.rows] == [f"image 1/{n}" for n in range(4)]


@pytest.mark.parametrize("newline", ["drop", "rows"])
@pytest.mark.parametrize("unpad", [True, False])
def test_an_image_kept_whole_enters_as_the_model_packs_it(loaded, inputs, packed, newline, unpad):
    adapter = loaded(newline=newline, unpad=unpad)
    records = adapter.encode(inputs)
    kept = records.all_tokens()
    for name, expected in zip(records.names, packed, strict=True):
        found = entering(adapter, kept, records, name)
        # Without the padding's patches the projector multiplies fewer rows at once than the model
        # does, and a BLAS may then sum in another order.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (medium,) = records.inputs["0"]
    assert medium.layout["view"] == WHOLE and medium.kind == IMAGE
    if not unpad:
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
        ours = adapter.enter(_cut(marked, grid, medium.layout["boxes"]), medium.layout).embeddings
        assert torch.equal(ours, theirs)


def test_a_permutation_of_the_sub_crops_shows(loaded, plain, inputs, monkeypatch):
    adapter = loaded(newline="rows")
    records = adapter.encode(inputs)
    monkeypatch.setattr(adapter, "project", lambda tokens: tokens)
    (medium,) = records.inputs["0"]
    marked = torch.arange(5.0)[:, None, None].expand(5, SIDE**2, 48)
    crops = _cut(marked, (2, 2), medium.layout["boxes"])
    rows = adapter.enter(crops, medium.layout).embeddings[SIDE**2 :, 0].view(8, 9)[:, :-1]
    assert rows[:4].tolist() == [[1.0] * 4 + [2.0] * 4] * 4
    assert rows[4:].tolist() == [[3.0] * 4 + [4.0] * 4] * 4
    for swapped in ((0, 2, 1, 3, 4), (0, 1, 3, 2, 4)):
        other = adapter.enter([crops[n] for n in swapped], medium.layout).embeddings
        assert not torch.equal(other[SIDE**2 :, 0].view(8, 9)[:, :-1], rows)
    dropped = loaded(newline="drop")
    monkeypatch.setattr(dropped, "project", lambda tokens: tokens)
    some = [Crop(crop.tokens[:3], crop.index[:3]) for crop in crops]
    order = dropped.enter(some, medium.layout).embeddings[:, 0].tolist()
    assert order == [float(n) for n in range(5) for _ in range(3)]


def test_upstream_bug_scrambled_sub_crop_order(loaded, inputs, monkeypatch):
    """Upstream PruneSID sorts the positions of a sub-crop's tokens, but not the tokens with them."""
    adapter = loaded(newline="rows")
    records = adapter.encode(inputs, Needs(cls_attention=True))
    kept = records.compress("prunesid", budget=40, preset="release", cls_token=False)
    monkeypatch.setattr(adapter, "project", lambda tokens: tokens)
    unsorted = 0
    for (medium,) in records.inputs.values():
        crops = kept_crops(kept, medium)
        boxes = [Box(*values) for values in medium.layout["boxes"]]
        # Every token carries the cell of the map that its patch shows.
        cells = [
            torch.stack(
                [crop.index // box.grid[1] + box.top, crop.index % box.grid[1] + box.left], 1
            )
            for crop, box in zip(crops[1:], boxes, strict=True)
        ]
        marked = [
            Crop(_wide(own.float() + 1), crop.index)
            for own, crop in zip(cells, crops[1:], strict=True)
        ]
        base = Crop(_wide(torch.zeros(len(crops[0].index), 2)), crops[0].index)
        found = adapter.enter([base, *marked], medium.layout).embeddings[len(base.index) :]
        newline = adapter.model.model.image_newline
        real = found[~(found == newline).all(dim=1)]
        expected = sorted(cell for own in cells for cell in own.tolist())
        assert (real[:, :2] - 1).long().tolist() == expected
        ends = [n for n, token in enumerate(found) if torch.equal(token, newline)]
        assert len(ends) == len({row for row, _ in expected})
        if any(crop.index.tolist() != sorted(crop.index.tolist()) for crop in crops[1:]):
            unsorted += 1
            wrong = [Crop(own.tokens, own.index.sort().values) for own in marked]
            bug = adapter.enter([base, *wrong], medium.layout).embeddings[len(base.index) :]
            assert not torch.equal(bug, found)
    assert unsorted > 3


def test_tokens_of_no_patch_stand_behind_the_map(loaded, inputs):
    adapter = loaded(newline="rows")
    records = adapter.encode(inputs, Needs(cls_attention=True))
    kept = records.compress("prunesid", budget=40, preset="release")
    (medium,) = records.inputs["0"]
    crops = kept_crops(kept, medium)
    assert all(crop.index[0] == -1 and (crop.index[1:] >= 0).all() for crop in crops)
    found = adapter.enter(crops, medium.layout).embeddings
    torch.testing.assert_close(found[:8], adapter.project(crops[0].tokens), rtol=1e-5, atol=1e-5)
    last = adapter.project(torch.stack([crop.tokens[0] for crop in crops[1:]]))
    torch.testing.assert_close(found[-4:], last, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[-5], adapter.model.model.image_newline)


def test_all_tokens_give_the_logits_and_answers_of_the_unmodified_model(loaded, plain, processor):
    for unpad in (True, False):
        adapter = loaded(unpad=unpad)
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
            if not unpad:
                assert torch.equal(found, expected)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
            answer = engine.answer_plainly(
                adapter, records.all_tokens(), records.inputs["0"],
                Question("0", "0", QUESTION, {"max_new_tokens": 6}),
            )  # fmt: skip
            assert answer == adapter.decode(theirs[0, whole["input_ids"].shape[1] :])


def test_pruned_generation_equals_a_reference_from_inputs_embeds(adapter, plain, inputs):
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
        picked = [
            crop[kept.index[row, : int(kept.count[row])]]
            for crop, row in zip(crops, medium.rows, strict=True)
        ]
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
    # Narrow images have their base crop alone, and its share.
    assert realized["image 8"] == realized["image 9"] == 5
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


def test_budgets_follow_the_scope(loaded, inputs):
    records = loaded().encode(inputs)
    assert records.share == 5
    budgets = records.budgets(22)
    for (medium,) in records.inputs.values():
        assert budgets[list(medium.rows)].tolist() == [5, 5, 4, 4, 4][: len(medium.rows)]
    whole = loaded(scope="image").encode(inputs)
    sizes = torch.tensor(whole.sizes)
    budgets = whole.budgets(50)
    kept = whole.compress("grid", budget=50)
    assert torch.equal(kept.count, budgets) and (budgets <= sizes).all()
    for (medium,) in whole.inputs.values():
        rows = list(medium.rows)
        assert budgets[rows].sum() == min(50, int(sizes[rows].sum()))


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
    joined = Records.cat(parts)
    first, second = (each.compress("grid", budget=20) for each in (whole, joined))
    for name in names:
        torch.testing.assert_close(
            entering(adapter, first, whole, name), entering(adapter, second, joined, name)
        )
    assert joined.share == 5


def test_errors_name_the_choices(folder, plain, processor, adapter, images):
    with pytest.raises(ValueError, match="Did you mean 'drop'"):
        models.load(folder, newline="drops")
    with pytest.raises(ValueError, match="Available: crop, image"):
        models.load(folder, scope="total")
    with pytest.raises(ValueError, match=r"Available: newline, scope, text_tower, unpad"):
        models.load(folder, pad=True)
    other = copy.deepcopy(processor)
    other.image_processor.image_grid_pinpoints = [[56, 112]]
    with pytest.raises(ValueError, match=r"its processor \[\[56, 112\]\]"):
        models.adapt(plain, other)
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


def _cut(marked, grid, boxes):
    """Crops of whole tokens (C, T, E) of which the map's `boxes` are left."""
    crops = [Crop(marked[0], torch.arange(SIDE**2))]
    for values in boxes:
        box = Box(*values)
        number, own = next(
            (n, box.within(crop))
            for n, crop in enumerate(crop_boxes(grid, SIDE))
            if box.within(crop).size
        )
        full = marked[1 + number].view(SIDE, SIDE, -1)[own.top : own.bottom, own.left : own.right]
        crops.append(Crop(full.flatten(0, 1), torch.arange(box.size)))
    return crops


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
