"""Each method on LLaVA-NeXT as its authors ran it: what enters, and in which order."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from builders import reference_crops as reference
from builders import reference_methods
from builders.anyres_models import pictures, save_tiny_llava_next
from builders.synthetic_scores import ROOT
from safetensors.torch import load_file
from study.stages.test_families import run
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid
from prunesid import compress, families
from prunesid.core.crops import CHOICES, ENCODER, Crops
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.core.record import NEWLINE, OPTIONAL, PLACE, VisionRecord
from prunesid.families.adapter import kept_crops
from prunesid.generate import engine
from prunesid.images.medium import IMAGE, SUB_CROPS
from prunesid.methods import features, registry
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.files.costs import read_costs
from prunesid.study.files.features import read_features
from prunesid.study.files.kept import kept_digest, load_kept, save_kept
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages.source import Source

SIDE, BUDGET = 4, 30
# Square, wide, tall, with padding above and below or beside, and too narrow for a row of patches.
SIZES = ((100, 100), (60, 150), (150, 60), (41, 130), (111, 87), (10, 300), (300, 10))
NAMES = [f"image {number}" for number in range(len(SIZES))]
ALL = Needs(**{name: True for name in OPTIONAL if name not in ("relevance", "joint")})
# Crop by crop, with a fifth of the budget each, tokens in the order of the map.
USUAL = (
    ("visionzip", {}),
    ("prunesid", {"preset": "release"}),
    ("prunesid", {}),
    ("vispruner", {}),
    ("dpp", {}),
    ("cls_topk", {}),
    ("random", {}),
    ("grid", {}),
    ("prumerge", {}),
)
EVERY = (*USUAL, ("scope", {}), ("hired", {}), ("holov", {}), ("divprune", {}))


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_llava_next")
    save_tiny_llava_next(path, tiny_llava)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def loaded(plain, folder):
    processor = AutoProcessor.from_pretrained(folder)
    return lambda **options: families.adapt(plain, processor, **options)


@pytest.fixture(scope="module")
def adapter(loaded):
    return loaded()


@pytest.fixture(scope="module")
def records(adapter):
    return adapter.encode(adapter.preprocess(pictures(SIZES)), ALL, NAMES)


@pytest.fixture(scope="module")
def images(adapter, records):
    """(name, size, grid, record of its crops) of each image."""
    found = []
    for name, size in zip(NAMES, SIZES, strict=True):
        (medium,) = records.inputs[name]
        record = records.groups[0].rows(medium.rows)
        found.append((name, size, tuple(medium.layout[SUB_CROPS]["grid"]), record))
    return found


def entering(adapter, kept, records, name):
    (medium,) = records.inputs[name]
    return adapter.enter(kept_crops(kept, medium), medium.layout).embeddings


def sent(record, method, budgets, params):
    """The tokens that each crop sends by itself, and those (D,) that are no patches."""
    found, made = [], {}
    for crop, budget in enumerate(budgets):
        own = []
        if budget:
            kept = compress(record.rows([crop]), method, budget=budget, **params)
            cls = registry.requirements(method, **params).cls
            for number, patch in enumerate(kept.index[0, : int(kept.count[0])].tolist()):
                token = (crop, patch)
                if patch < 0:
                    kind = "cls" if cls and not number else number
                    token = (crop, None, kind)
                    made[token] = kept.tokens[0, number]
                own.append(token)
        found.append(own)
    return found, made


def embedded(plain, record, tokens, made):
    """(N, E) of tokens as `reference_crops` names them."""
    found = []
    for token in tokens:
        if token[0] == "newline":
            found.append(plain.model.image_newline.detach())
            continue
        own = made[token] if token in made else record.features[token[0], token[1]]
        with torch.no_grad():
            found.append(plain.model.multi_modal_projector(own[None])[0])
    return torch.stack(found) if found else torch.zeros(0, 48)


def same(found, expected):
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def differ(found, other):
    assert found.shape != other.shape or (found - other).abs().max() > 1e-3


@pytest.mark.parametrize(("method", "params"), USUAL)
def test_crops_by_themselves_enter_in_the_order_of_the_map(
    adapter, plain, records, images, method, params
):
    kept = records.compress(method, budget=BUDGET, **params)
    reordered = 0
    for name, _, grid, record in images:
        crops, made = sent(record, method, [BUDGET // 5] * len(record), params)
        tokens = reference.in_map_order(crops, grid, SIDE)
        found = entering(adapter, kept, records, name)
        same(found, embedded(plain, record, tokens, made))
        assert len(found) == BUDGET // 5 * len(record)
        after = [token for own in crops for token in own]
        if after != tokens:
            differ(found, embedded(plain, record, after, made))
            reordered += 1
    # Merged tokens, and tokens of crops one above the other, have only one order.
    assert reordered >= (0 if method == "prumerge" else 3)


def test_scope_drops_what_crops_cannot_share_evenly(adapter, plain, records, images):
    kept = records.compress("scope", budget=BUDGET + 1)
    for name, _, grid, record in images:
        crops, _ = sent(record, "scope", [(BUDGET + 1) // len(record)] * len(record), {})
        tokens = reference.in_map_order(crops, grid, SIDE)
        same(entering(adapter, kept, records, name), embedded(plain, record, tokens, {}))


def test_hired_drops_what_it_chose_of_the_padding(adapter, plain, records, images):
    kept = records.compress("hired", budget=BUDGET)
    dropped = 0
    for name, size, grid, record in images:
        attention = record.first_cls_attention[0].double().numpy()
        total = BUDGET * len(record) // 5
        rounded = features.hired.kept_count(total, len(record) * SIDE**2)
        budgets = reference_methods.crop_budgets(attention, rounded, grid)
        crops, _ = sent(record, "cls_topk", budgets, {})
        chosen = reference.in_map_order(crops, grid, SIDE)
        tokens = reference.without_padding(chosen, grid, SIDE, size)
        dropped += len(chosen) - len(tokens)
        same(entering(adapter, kept, records, name), embedded(plain, record, tokens, {}))
    assert dropped > 3


def test_holov_has_its_runs_over_all_crops(adapter, plain, records, images):
    kept = records.compress("holov", budget=BUDGET)
    for name, size, grid, record in images:
        candidates = reference.packed(grid, SIDE, size, newlines=False)
        if len(candidates) <= BUDGET:
            continue
        attention = record.cls_attention.double().sum(1)
        own = torch.stack([attention[crop, patch] for crop, patch in candidates])
        # HoloV itself is compared with its authors' code elsewhere.
        joined = VisionRecord(torch.ones(1, len(own), 2), cls_attention=own[None, None])
        chosen = compress(joined, "holov", budget=BUDGET).index[0].tolist()
        tokens = [candidates[number] for number in chosen]
        found = entering(adapter, kept, records, name)
        same(found, embedded(plain, record, tokens, {}))
        differ(found, embedded(plain, record, sorted(tokens), {}))
        by_crop, _ = sent(record, "holov", [BUDGET // len(record)] * len(record), {})
        assert {token for own in by_crop for token in own} != set(tokens)


@pytest.mark.parametrize("crop_order", [None, "map"])
def test_divprune_has_the_packed_sequence_with_its_newlines(loaded, plain, images, crop_order):
    """In raster order, which is that of the map."""
    adapter = loaded(crop_order=crop_order)
    given = adapter.preprocess(pictures(SIZES))
    records = adapter.encode(given, ALL, NAMES)
    kept = records.compress("divprune", budget=BUDGET)
    with torch.no_grad():
        sequences = plain.get_image_features(**given).pooler_output
    lines = 0
    for (name, size, grid, _), packed in zip(images, sequences, strict=True):
        count = round(BUDGET * len(packed) / (5 * SIDE**2))
        candidates = reference.packed(grid, SIDE, size, newlines=True)
        assert len(candidates) == len(packed)
        chosen = sorted(reference_methods.divprune(packed.double().numpy(), count))
        same(entering(adapter, kept, records, name), packed[chosen])
        base = kept.index[records.inputs[name][0].rows[0]]
        rows = [candidates[number][1] for number in chosen if candidates[number][0] == "newline"]
        assert (NEWLINE - base[base <= NEWLINE]).tolist() == rows
        lines += len(rows)
    assert lines > 2


@pytest.mark.parametrize(("method", "params"), EVERY)
def test_an_image_kept_whole_enters_as_the_model_packs_it(adapter, plain, records, method, params):
    kept = records.compress(method, budget=2000, **params)
    with torch.no_grad():
        given = adapter.preprocess(pictures(SIZES))
        sequences = plain.get_image_features(**given).pooler_output
    for name, packed in zip(NAMES, sequences, strict=True):
        same(entering(adapter, kept, records, name), packed)


@pytest.mark.parametrize(("method", "params"), EVERY)
def test_an_image_gives_the_same_alone_and_in_company(adapter, records, method, params):
    kept = records.compress(method, budget=BUDGET, seed=1, **params)
    for name, picture in zip(NAMES, pictures(SIZES), strict=True):
        alone = adapter.encode(adapter.preprocess([picture]), ALL, [name])
        own = alone.compress(method, budget=BUDGET, seed=1, **params)
        (here,), (there,) = records.inputs[name], alone.inputs[name]
        for row, row_alone in zip(here.rows, there.rows, strict=True):
            count = int(kept.count[row])
            assert int(own.count[row_alone]) == count
            patches = kept.index[row, :count].tolist()
            assert own.index[row_alone, :count].tolist() == patches
            for fact, value in own.info.items():
                mine, theirs = kept.info[fact][row], value[row_alone]
                mine = mine[: len(theirs)] if mine.ndim else mine
                torch.testing.assert_close(mine, theirs, msg=fact)


@pytest.mark.parametrize(("method", "params"), EVERY)
def test_a_stored_selection_comes_back_with_its_order(adapter, records, tmp_path, method, params):
    kept = records.compress(method, budget=BUDGET, **params)
    save_kept(kept, tmp_path / "kept.safetensors")
    again = load_kept(tmp_path / "kept.safetensors", records)
    for name in NAMES:
        one, other = (entering(adapter, each, records, name) for each in (kept, again))
        assert torch.equal(one, other)


def test_what_enters_in_another_order_has_other_answers_to_store(records, tmp_path):
    kept = records.compress("cls_topk", budget=BUDGET)
    turned = replace(kept, info={**kept.info, PLACE: kept.info[PLACE].flip(1)})
    told = replace(kept, info={**kept.info, "rho": torch.zeros(len(kept))})
    digests = []
    for number, each in enumerate((kept, turned, told)):
        save_kept(each, tmp_path / str(number))
        digests.append(kept_digest(tmp_path / str(number)))
    assert digests[0] == digests[2] != digests[1]
    assert PLACE in "".join(load_file(tmp_path / "0"))


@pytest.mark.parametrize("method", ["divprune", "holov", "visionzip"])
def test_answers_are_those_of_the_sequence(adapter, plain, records, images, method):
    kept = records.compress(method, budget=BUDGET)
    question = "is there a red circle ?"
    asked = [Question(name, name, question, {"max_new_tokens": 5}) for name in NAMES]
    for batch_size in (1, 3):
        answers = engine.answer(adapter, kept, records.inputs, asked, batch_size=batch_size)
        for name, answer in zip(NAMES, answers, strict=True):
            visual = entering(adapter, kept, records, name)
            assert answer.tokens == len(visual)
            alone = engine.answer_plainly(
                adapter, kept, records.inputs[name], asked[NAMES.index(name)]
            )
            assert answer.answer == alone


@pytest.mark.parametrize(("method", "params"), EVERY)
def test_pruned_enters_what_a_study_enters(adapter, plain, method, params):
    picture = pictures(SIZES)[1]
    inputs = adapter.preprocess([picture])
    records = adapter.encode(inputs, ALL)
    expected = entering(adapter, records.compress(method, budget=BUDGET, **params), records, "0")
    prompt = adapter.prompt("what color is the star ?", [IMAGE])
    whole = entering(adapter, records.all_tokens(), records, "0")
    ids = [*prompt.texts[0], *[adapter.placeholders[IMAGE]] * len(whole), *prompt.after]
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    short = prunesid.prune(
        plain, adapter.processor, given | inputs, method=method, budget=BUDGET, **params
    )
    (found,) = short["mm_encoder_outputs"][IMAGE].pooler_output
    same(found, expected)


# What a user may choose


def test_explicit_values_hold_for_every_method():
    assert Crops().under({"scope": None, "crop_order": "method"}) == Crops(crop_order="method")
    for method in features.list_feature_methods():
        own = features.crops_of(method)
        assert own == (features.authors_crops(method) or Crops())
        for name, choices in CHOICES.items():
            for value in choices:
                if name == "scope" and value == "packed" and method not in ("divprune", "dpp"):
                    with pytest.raises(ValueError, match="Methods that do not: divprune, dpp"):
                        features.crops_of(method, {name: value})
                    continue
                found = features.crops_of(method, {name: value})
                if (name, found.scope) != ("unpad", "packed"):
                    assert getattr(found, name) == value
    assert features.crops_of("divprune", {"newline": "rows"}) == Crops(
        "image", "map", "rows", "before", "full"
    )
    with pytest.raises(ValueError, match="leave newline out or take scope='image'"):
        features.crops_of("divprune", {"newline": "drop", "scope": "packed"})


def test_lmms_eval_can_tell_options_from_parameters():
    for method, facts in registry.list_methods().items():
        assert not set(CHOICES) & set(facts.parameters), method


def row_of(crops):
    return [crops.scope, crops.crop_order, crops.unpad, crops.budget_for]


def test_the_table_of_the_docs_says_what_methods_do():
    text = (ROOT / "docs" / "models.md").read_text()
    table = text.split("| method | `scope` |")[1].split("\n\n")[0].splitlines()[2:]
    seen = []
    for line in table:
        names, *cells = line.strip("|").split("|")
        for method in re.findall(r"`(\w+)`", names):
            own = features.crops_of(method)
            assert [cell.strip(" `") for cell in cells[:4]] == row_of(own)
            assert (features.authors_crops(method) is None) == ("no code" in names)
            seen.append(method)
    assert sorted(seen) == features.list_feature_methods()
    (inside,) = (line for line in table if line.startswith("| inside the encoder"))
    assert [cell.strip(" `") for cell in inside.split("|")[2:6]] == row_of(ENCODER)


@pytest.mark.parametrize("method", ["visionzip", "prunesid", "holov", "divprune"])
def test_newlines_after_the_rows_that_hold_a_token(loaded, plain, images, method):
    """With newlines the order is that of the map, and nothing else changes."""
    bare, rows = loaded(newline="drop", crop_order="map"), loaded(newline="rows")
    sets = [each.encode(each.preprocess(pictures(SIZES)), ALL, NAMES) for each in (bare, rows)]
    kept = [each.compress(method, budget=BUDGET) for each in sets]
    assert torch.equal(kept[0].index, kept[1].index)
    newline, lines = plain.model.image_newline.detach(), 0
    for name, _, grid, _ in images:
        (medium,) = sets[0].inputs[name]
        crops = kept_crops(kept[0], medium)
        if len(crops[0].index) == SIDE**2:  # kept whole
            continue
        parts = sorted(
            (int(place), reference.cell_of((crop, int(patch)), grid, SIDE)[0])
            for crop, own in enumerate(crops)
            if crop
            for place, patch in zip(own.place, own.index, strict=True)
            if patch >= 0
        )
        expected, tokens = [], list(entering(bare, kept[0], sets[0], name))
        rows_of = dict(parts)
        for place, token in enumerate(tokens):
            expected.append(token)
            row = rows_of.get(place)
            if row is not None and rows_of.get(place + 1) != row:
                expected.append(newline)
                lines += 1
        assert [row for _, row in parts] == sorted(row for _, row in parts)
        same(entering(rows, kept[1], sets[1], name), torch.stack(expected))
    assert lines > 9


@pytest.mark.parametrize("method", ["visionzip", "prunesid", "random", "cls_topk", "scope"])
def test_padding_that_cannot_be_chosen(loaded, images, method):
    adapter = loaded(unpad="before", crop_order="method", budget_for="image")
    records = adapter.encode(adapter.preprocess(pictures(SIZES)), ALL, NAMES)
    kept = records.compress(method, budget=BUDGET)
    sizes = []
    for name, size, grid, _ in images:
        (medium,) = records.inputs[name]
        shown = set(reference.packed(grid, SIDE, size, newlines=False))
        for crop, row in enumerate(medium.rows):
            patches = kept.index[row, : int(kept.count[row])].tolist()
            assert all((crop, patch) in shown for patch in patches if patch >= 0)
            assert (int(kept.count[row]) == 0) == (not any(token[0] == crop for token in shown))
        sizes.append(int(kept.count[list(medium.rows)].sum()))
        assert sizes[-1] == min(BUDGET, len(shown)) or method == "scope"
    assert all(fact.shape[0] == len(kept) for fact in kept.info.values())
    assert not any(fact.isnan().any() for name, fact in kept.info.items())
    if method == "prunesid":
        group = kept.info["group"]
        assert group.shape[1] == SIDE**2
        for name, size, grid, _ in images:
            (medium,) = records.inputs[name]
            shown = set(reference.packed(grid, SIDE, size, newlines=False))
            for crop, row in enumerate(medium.rows):
                real = [patch for patch in range(SIDE**2) if (crop, patch) in shown]
                assert (group[row] >= 0).nonzero()[:, 0].tolist() == real


@pytest.mark.parametrize(
    ("method", "params"),
    [(m, p) for m, p in EVERY if m not in ("divprune", "holov", "hired", "scope")],
)
def test_any_method_can_choose_among_all_crops(loaded, records, images, method, params):
    adapter = loaded(scope="image", crop_order="method", budget_for="image")
    own = adapter.encode(adapter.preprocess(pictures(SIZES)), ALL, NAMES)
    kept = own.compress(method, budget=16, **params)
    for name, _, _, record in images:
        (medium,) = own.inputs[name]
        rows = list(medium.rows)
        if len(record) == 1:
            continue
        assert int(kept.count[rows].sum()) == 16
        places = torch.cat([kept.info[PLACE][row, : int(kept.count[row])] for row in rows])
        assert places.sort().values.tolist() == list(range(16))
    assert len(own.compress(method, budget=16, **params)) == len(kept)


def test_no_newline_is_stored_where_none_can_be_chosen(adapter):
    inputs = adapter.preprocess(pictures(SIZES[:1]))
    assert adapter.encode(inputs, Needs(cls_attention=True)).newline is None
    records = adapter.encode(inputs, Needs(projected=True))
    assert torch.equal(records.newline, adapter.model.model.image_newline)
    kept = records.compress("divprune", budget=BUDGET)
    lines = kept.index[kept.index <= NEWLINE]
    assert len(lines) and ((NEWLINE - lines) < 2 * SIDE).all()
    with pytest.raises(ValueError, match="projected tokens, which are missing"):
        replace(records, newline=None).compress("divprune", budget=BUDGET)


@pytest.mark.parametrize("options", [{}, {"unpad": "before"}, {"crop_order": "method"}])
def test_every_scope_goes_through_every_stage(folder, tmp_path, options):
    data = tmp_path / "mme.parquet"
    render("pocket_mme", data, 2)
    source, metric = Source("pocket_mme", data), "mme_perception_score"
    named = ("visionzip", "divprune", "holov", "scope", "hired")
    arms = (VANILLA, *(make_arm({"budget": 12, "method": method}) for method in named))
    tables = [
        run(
            tmp_path / str(size), folder, source, metric, size, arms, tuple(sorted(options.items()))
        )
        for size in (2, 1)
    ]
    pd.testing.assert_frame_equal(*tables)
    # Two tokens of each of five crops and the rest of 12; 13 of the 88 that the model packs.
    wanted = {"visionzip": {12}, "divprune": {13}, "holov": {12}, "scope": {10}}
    for method, arm in zip(named, arms[1:], strict=True):
        tokens = set(tables[0].loc[tables[0]["arm"] == arm.name, "tokens"])
        assert tokens == wanted.get(method, tokens)
    costs = read_costs(tmp_path / "2" / "costs.csv")
    by_name = {method: costs.loc[arm.name] for method, arm in zip(named, arms[1:], strict=True)}
    stored, _ = read_features(tmp_path / "2" / "features.safetensors")
    assert stored.crops == options and stored.newline is not None
    assert by_name["divprune"]["selection_macs"] == 88**2 * stored.newline.numel()


@pytest.mark.parametrize(
    "chosen",
    [
        {"scope": "image"},
        {"crop_order": "method"},
        {"newline": "rows", "unpad": "before"},
        {"unpad": "after", "budget_for": "image"},
    ],
)
def test_a_choice_of_an_arm_is_the_model_s_option_for_it_alone(folder, tmp_path, chosen):
    data = tmp_path / "mme.parquet"
    render("pocket_mme", data, 2)
    source, metric = Source("pocket_mme", data), "mme_perception_score"

    def table(name, options, **crops):
        methods = ("prunesid", "visionzip")
        settings = [{"budget": 12, "method": method, **crops} for method in methods]
        arms = (VANILLA, *map(make_arm, settings))
        found = run(tmp_path / name, folder, source, metric, 2, arms, options)
        kept = [read_keys(tmp_path / name / "selections.json")[arm.name] for arm in arms[1:]]
        files = [load_file(Store(tmp_path / name / "store").get(key)) for key in kept]
        costs = read_costs(tmp_path / name / "costs.csv").reset_index(drop=True)
        return found.drop(columns="arm"), files, costs

    ours, kept, costs = table("arms", (), **chosen)
    theirs, wanted, counted = table("options", tuple(sorted(chosen.items())))
    pd.testing.assert_frame_equal(ours, theirs)
    pd.testing.assert_frame_equal(costs, counted)
    for own, other in zip(kept, wanted, strict=True):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in other)


def test_choices_for_crops_name_an_arm_and_are_refused_where_nothing_chooses_by_them():
    arm = make_arm({"scope": "image", "unpad": None, "budget": 12})
    assert arm.name == "budget-12_scope-image" and arm.crops == {"scope": "image"}
    assert arm.resolved()["scope"] == "image"
    with pytest.raises(ValueError, match="scope 'cropp'.*Available: clip, crop, frame, image"):
        make_arm({"scope": "cropp"})
    for method in ("fastv", "tome"):
        with pytest.raises(ValueError, match=f"scope: {method} does not choose among"):
            make_arm({"method": method, "scope": "image"})
