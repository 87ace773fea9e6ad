"""Methods that choose by image and question: encoders, and equal tokens and answers everywhere."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
import torch
from builders.family_models import FAMILIES
from builders.tiny_clip import JOINT, SEGMENT, save_tiny_clip
from builders.tiny_llava import random_images
from datasets import Dataset, Image
from lmms_eval.api.instance import Instance
from torch.nn.functional import cosine_similarity
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

import prunesid
from prunesid import families
from prunesid.core.needs import ASKED, Needs
from prunesid.core.questions import Question, read_answers
from prunesid.core.record import CLIP, EMBEDDINGS, VisionRecord, keep
from prunesid.generate.engine import answer, answer_plainly
from prunesid.images import relevance as asking
from prunesid.lmms.plugin import PruneSID
from prunesid.methods.features import compress, register
from prunesid.methods.registry import METHODS
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import VANILLA, make_arm, shared_budgets
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.kept_patches import Patches
from prunesid.study.config.study import parse_study
from prunesid.study.files.costs import read_costs
from prunesid.study.files.features import read_features, read_head
from prunesid.study.files.kept import load_kept
from prunesid.study.files.question_rows import asked_rows
from prunesid.study.files.questions import read_questions
from prunesid.study.provenance.contents import model_path
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.budgets import read_budgets, write_budgets
from prunesid.study.stages.costs import write_costs
from prunesid.study.stages.features import extract
from prunesid.study.stages.information import write_part
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.patches import first_crops, read_scenes
from prunesid.study.stages.questions import write_questions
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

FORM = "\nAnswer the question using a single word or phrase."
LONG = "is there a red circle left of the blue star ?"


@pytest.fixture(scope="module")
def tower(tiny_llava, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, tiny_llava)
    return folder


def test_equal_questions_on_an_image_are_one_input_and_images_stay_together():
    asked = [("0", "b", "x ?"), ("1", "a", "x ?"), ("2", "b", "y ?"), ("3", "b", "x ?")]
    questions = [Question(*each) for each in asked]
    prompts = asking.prompts_of(["a", "b", "nothing asked"], questions)
    assert [(prompt.image, prompt.context, prompt.questions) for prompt in prompts.values()] == [
        ("a", "x ?", ("1",)),
        ("b", "x ?", ("0", "3")),
        ("b", "y ?", ("2",)),
    ]
    shown = [question.shown for question in asking.by_question(questions)]
    assert shown[0] == shown[3] and len(set(shown)) == 3 and set(shown) == set(prompts)
    assert [question.shown for question in questions] == ["b", "a", "b", "b"]


def test_the_text_of_a_question_is_without_the_sentence_on_its_form():
    options = "what color ?\nA. red\nB. blue"
    letter = "\nAnswer with the option's letter from the given choices directly."
    for form in ("", FORM, letter):
        assert asking.question_text(f"<image>\n{options}{form}", ["<image>"]) == options
    assert asking.question_text(f"{options}\nAnswer briefly.") == f"{options}\nAnswer briefly."


def test_what_relevance_is_by_follows_the_text_tower():
    needs = Needs(relevance=ASKED)
    assert asking.reading(needs, None) == Needs(projected=True)
    assert asking.reading(needs, "some/clip") == Needs(joint=True)
    both = Needs(relevance=(CLIP,)) | Needs(relevance=(EMBEDDINGS,), keys=True)
    assert both.relevance == (CLIP, EMBEDDINGS)
    assert asking.reading(both, "some/clip") == Needs(joint=True, projected=True, keys=True)
    assert asking.reading(Needs(keys=True), None) == Needs(keys=True)
    with pytest.raises(
        ValueError, match="needs CLIP's text tower: name it in the option text_tower"
    ):
        asking.reading(both, None)
    with pytest.raises(ValueError, match="Unknown relevance 'siglip'.*clip, embeddings, question"):
        asking.reading(Needs(relevance=("siglip",)), None)


def test_a_study_is_told_of_an_encoder_that_it_does_not_name_before_anything_runs(tmp_path):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "by.yaml").write_text(
        "title: By\nvary: {relevance: [clip, embeddings]}\nacross: {method: [cdpruner]}\n"
        "reference: {relevance: clip}\n"
    )
    document = {"title": "By", "benchmarks": ["pocket_mme"], "ablations": ["by"]}
    with pytest.raises(
        ConfigError, match="arm method-cdpruner_relevance-clip: relevance by 'clip'"
    ):
        parse_study(document, folder=tmp_path)
    tower = tmp_path / "clip"
    tower.mkdir()
    (tower / "config.json").write_text('{"model_type": "clip"}')
    named = {"model_options": {"text_tower": str(tower)}}
    arms = parse_study(document | named, folder=tmp_path).arms
    assert [arm.asked for arm in arms[1:]] == [(CLIP,), (EMBEDDINGS,)]


@pytest.mark.parametrize("text", ["how many ?", LONG])
def test_by_clip_relevance_is_the_mean_cosine_to_the_segments_of_the_text(tiny_llava, tower, text):
    adapter = families.load(tiny_llava, text_tower=str(tower))
    pixels = adapter.preprocess(random_images(3))
    needs = Needs(relevance=(CLIP,))
    joint = adapter.encode(pixels, needs).single.joint
    # Upstream's way, by transformers' own classes: LLaVA's tower, CLIP's projections.
    vision = adapter.model.model.vision_tower(pixels["pixel_values"], output_hidden_states=True)
    projection = CLIPVisionModelWithProjection.from_pretrained(tower).visual_projection
    patches = adapter.model.model.vision_tower.post_layernorm(vision.hidden_states[-2][:, 1:])
    wanted = projection(patches)
    torch.testing.assert_close(joint, wanted, atol=1e-5, rtol=1e-5)
    assert joint.shape == (3, 16, JOINT)
    ids = AutoTokenizer.from_pretrained(tower)(text)["input_ids"]
    segments = [ids[i : i + SEGMENT] for i in range(0, len(ids), SEGMENT)]
    assert (len(segments) > 1) == (text == LONG)
    encoder = CLIPTextModelWithProjection.from_pretrained(tower).eval()
    embeddings = []
    for own in segments:
        empty = SEGMENT - len(own)
        inputs, mask = torch.tensor([own + [0] * empty]), [[1] * len(own) + [0] * empty]
        embeddings.append(encoder(inputs, attention_mask=torch.tensor(mask)).text_embeds[0])
    mean = torch.stack([cosine_similarity(wanted, each, dim=2) for each in embeddings]).mean(0)
    vector = adapter.question(CLIP, f"<image>\n{text}{FORM}", ["image"])
    found = asking.relevance(joint, [vector] * 3)
    torch.testing.assert_close(found.float(), mean, atol=1e-5, rtol=1e-4)


def test_by_embeddings_a_question_is_all_text_of_its_prompt(tiny_llava):
    adapter = families.load(tiny_llava)
    record = adapter.encode(adapter.preprocess(random_images(2)), Needs(relevance=ASKED)).single
    vector = adapter.question(EMBEDDINGS, LONG, ["image", "image"])
    ids = [i for text in adapter.prompt(LONG, ["image", "image"]).texts for i in text]
    mean = adapter.model.get_input_embeddings()(torch.tensor(ids)).mean(0)
    torch.testing.assert_close(
        asking.relevance(record.projected, [vector] * 2).float(),
        cosine_similarity(record.projected, mean, dim=2),
        atol=1e-5,
        rtol=1e-4,
    )
    assert torch.equal(vector, adapter.question_of([*ids, *adapter.placeholders.values()]))
    assert asking.relevance(record.projected, [adapter.question_of([])] * 2).eq(0).all()


def test_a_text_tower_fits_the_models_vision_tower_or_is_refused(tiny_llava, tmp_path):
    save_tiny_clip(tmp_path / "wide", tiny_llava, hidden_size=64)
    with pytest.raises(ValueError, match="vision tower of hidden_size 64, and this model's has 32"):
        families.load(tiny_llava, text_tower=str(tmp_path / "wide"))
    with pytest.raises(ValueError, match="no CLIP model at"):
        families.load(tiny_llava, text_tower=str(tmp_path / "nothing"))
    adapter = families.load(tiny_llava)
    with pytest.raises(ValueError, match="needs CLIP's text tower"):
        adapter.encode(adapter.preprocess(random_images(1)), Needs(relevance=(CLIP,)))
    FAMILIES["qwen2_vl"](tmp_path / "qwen", tiny_llava)
    with pytest.raises(ValueError, match="parameter of the model family qwen2_vl 'text_tower'"):
        families.load(tmp_path / "qwen", text_tower="x")


ARMS = (
    VANILLA,
    make_arm({"method": "dpp"}),
    make_arm({"method": "cdpruner"}),
    make_arm({"method": "cdpruner", "budget": 24, "dynamic": "benchmark"}),
    make_arm({"method": "cdpruner", "budget": 576}),
)
ASKED_ARM, SHARED, WHOLE_ARM = ARMS[2:]
RUNTIME = Runtime("pocket", batch_size=4)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The results of all stages on 4 images of Pocket-MME; one of the questions is asked twice."""
    folder = tmp_path_factory.mktemp("asked")
    data = folder / "mme.parquet"
    render("pocket_mme", data, 4)
    table = pd.read_parquet(data)
    Dataset.from_pandas(pd.concat([table, table[:1]]), preserve_index=False).cast_column(
        "image", Image()
    ).to_parquet(data)
    source, store = Source("pocket_mme", data), Store(folder / "store")
    features, questions, selections, answers = (
        folder / name for name in ("features", "questions", "selections", "answers")
    )
    extract(source, RUNTIME, needs_of(ARMS), features)
    write_questions(source, RUNTIME, ARMS, features, questions)
    write_part("pocket_mme", features, folder / "information")
    wanted = {"pocket_mme": shared_budgets(ARMS)}
    write_budgets(folder / "information", wanted, None, folder / "budgets")
    budgets = read_budgets(folder / "budgets", "pocket_mme")
    select_arms(features, ARMS, store, selections, budgets, questions=questions)
    answer_benchmark(
        source, RUNTIME, features, selections, ARMS, store, answers, questions=questions
    )
    return folder, source, store, budgets


def test_each_question_gets_the_tokens_that_it_has_alone(work):
    folder, source, store, budgets = work
    records, _ = read_features(folder / "features")
    adapter = families.load(model_path("pocket"))
    keys = read_keys(folder / "selections")
    found = {arm.name: store.get(keys[arm.name]) for arm in ARMS[1:]}
    rows = asked_rows(found[ASKED_ARM.name])
    assert sorted(q for row in rows for q in row.questions) == sorted(
        q.id for q in source.open().questions()
    )
    assert len(rows) == len(source.open().questions()) - 1
    assert asked_rows(found["method-dpp"]) == ()
    share = budgets["benchmark", 24]
    several = Counter(row.image for row in rows)
    assert max(several.values()) > 1
    places = list(records.names)
    plain, dynamic = (
        load_kept(found[arm.name], records, [places.index(row.image) for row in rows])
        for arm in (ASKED_ARM, SHARED)
    )
    assert len(plain) == len(rows)
    differ = 0
    for number, row in enumerate(rows):
        alone = records.single.rows([places.index(row.image)])
        vector = adapter.question(EMBEDDINGS, row.context, ["image"])
        relevance = asking.relevance(alone.projected, [vector])
        alone = VisionRecord(
            alone.features,
            projected=alone.projected,
            relevance=relevance,
            relevance_by=EMBEDDINGS,
        )
        wanted = compress(alone, "cdpruner", budget=64)
        assert torch.equal(plain.index[number], wanted.index[0])
        assert torch.equal(plain.tokens[number], wanted.tokens[0])
        tokens = share[row.image]
        wanted = compress(alone, "cdpruner", budget=tokens).index[0]
        assert torch.equal(dynamic.index[number, :tokens], wanted)
        assert dynamic.count[number] == tokens
        differ += not torch.equal(plain.index[number], plain.index[0])
    assert differ > len(rows) // 2


def test_answers_are_those_of_the_models_own_generate_on_a_questions_tokens(work):
    folder, source, store, _ = work
    records, _ = read_features(folder / "features")
    given = read_answers(store.get(read_keys(folder / "answers")[ASKED_ARM.name]))
    path = store.get(read_keys(folder / "selections")[ASKED_ARM.name])
    rows = {question: row for row in asked_rows(path) for question in row.questions}
    inputs, sources = read_questions(folder / "questions").rows(records.inputs)
    kept = load_kept(path, records, sources)
    adapter = families.load(model_path("pocket"))
    for found, question in zip(given, source.open().questions(), strict=True):
        assert (found.question_id, found.image_id) == (question.id, question.image_id)
        assert found.tokens == 64
        row = rows[question.id]
        media = inputs[asking.ImagePrompt(row.image, row.context).name]
        assert media[0].rows[0] == row.row
        assert found.answer == answer_plainly(adapter, kept, media, question)


def test_all_tokens_are_the_unmodified_models_whoever_is_asked_to_choose(work):
    keys = read_keys(work[0] / "answers")
    assert keys[WHOLE_ARM.name] == keys[VANILLA.name] != keys[ASKED_ARM.name]


def test_equal_questions_share_a_prefix_and_others_do_not(work):
    _, source, store, _ = work
    answered = [each for each in store.entries() if each.material["stage"] == "answer"]
    distinct = len(source.open().questions()) - 1
    asked = [each for each in answered if each.cost["images"] == distinct]
    # Tokens of all arms: those of images, and twice those of questions.
    assert (len(answered), len(asked)) == (4, 2)
    assert 64 * distinct in {entry.cost["tokens"] for entry in asked}


def test_the_choice_of_each_question_counts_with_the_comparison(work):
    folder, _, store, _ = work
    write_costs([folder / "features"], [folder / "answers"], ARMS, store, folder / "costs")
    table = read_costs(folder / "costs")["selection_macs"]
    width = read_head(folder / "features").model_sizes.decoder.width
    assert table[ASKED_ARM.name] - table["method-dpp"] == 576 * width
    assert table[WHOLE_ARM.name] == table[VANILLA.name] == 0


def test_clips_text_tower_counts_once_a_question(tiny_llava, tower):
    sizes = families.load(tiny_llava, text_tower=str(tower)).sizes
    again = type(sizes).from_json(sizes.to_json())
    assert again == sizes and again.text is not None
    visual = sizes.visual(16)
    assert sizes.relevance_macs(visual, CLIP) == 16 * JOINT * 32 + 16 * JOINT
    assert sizes.relevance_macs(visual, EMBEDDINGS) == 16 * 48
    # Two layers: projections, attention of 6 tokens, two FFN matrices; then the projection of one.
    layer = 4 * 6 * 24**2 + 2 * 6**2 * 24 + 2 * 6 * 24 * 40
    assert sizes.asking_macs(CLIP) == 2 * layer + 24 * JOINT
    assert sizes.asking_macs(EMBEDDINGS) == 0
    with pytest.raises(ValueError, match="without a text tower"):
        families.load(tiny_llava).sizes.asking_macs(CLIP)


def test_the_picture_of_kept_patches_tells_the_question(work):
    folder, source, store, _ = work
    chosen = Patches("pocket_mme", 2, (("DPP", ARMS[1]), ("CDPruner", ASKED_ARM)))
    crops = first_crops([folder / "features"], [folder / "selections"])
    scenes = read_scenes(chosen, source, folder / "information", crops, store)
    first = {q.image_id: q.context for q in reversed(source.open().questions())}
    path = store.get(read_keys(folder / "selections")[ASKED_ARM.name])
    records, _ = read_features(folder / "features")
    sources = read_questions(folder / "questions").rows(records.inputs)[1]
    kept = load_kept(path, records, sources)
    for scene in scenes:
        assert scene.question == first[scene.image_id]
        (row,) = (
            row.row
            for row in asked_rows(path)
            if (row.image, row.context) == (scene.image_id, scene.question)
        )
        assert scene.kept[1].index.tolist() == kept.index[row].tolist()


def test_the_library_the_study_and_lmms_eval_give_the_same_answers(work):
    folder, source, store, _ = work
    given = read_answers(store.get(read_keys(folder / "answers")[ASKED_ARM.name]))
    task = source.open()
    questions = task.questions()
    for share in (True, False):
        model = PruneSID(
            model_path("pocket"), method="cdpruner", budget=64, batch_size=3, share_prefix=share
        )
        model.task_dict = {task.name: {"test": task.task.eval_docs}}
        requests = [
            Instance(
                request_type="generate_until",
                idx=0,
                arguments=(
                    q.context,
                    dict(q.gen_kwargs),
                    task.task.doc_to_visual,
                    int(q.id),
                    task.name,
                    "test",
                ),
                metadata={"task": task.name, "doc_id": int(q.id), "repeats": 1},
            )
            for q in questions
        ]
        assert model.generate_until(requests) == [each.answer for each in given]
    model = AutoModelForImageTextToText.from_pretrained(model_path("pocket")).eval()
    processor = AutoProcessor.from_pretrained(model_path("pocket"))
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q.context}]}],
            add_generation_prompt=True,
        )
        for q in questions
    ]
    some = range(0, len(questions), 3)
    inputs = processor(
        images=[task.image(questions[n]) for n in some],
        text=[texts[n] for n in some],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    with prunesid.pruned(model, processor, "cdpruner", 64):
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    found = processor.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert [text.strip() for text in found] == [given[n].answer for n in some]


TEXTS = (
    "USER: <image>\n is there a red circle ? ASSISTANT:",
    "USER: <image> <image>\n what color ? ASSISTANT:",
    "USER: is there a star ? ASSISTANT:",
    "USER: <image>\n how many bars are taller than 3 ? ASSISTANT:",
)


@pytest.mark.parametrize("by", [CLIP, EMBEDDINGS])
def test_prompts_of_a_batch_are_asked_one_by_one(tiny_llava, tower, by):
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()
    processor = AutoProcessor.from_pretrained(tiny_llava)
    pictures, shown = random_images(4), ((0,), (1, 2), (), (3,))
    asked = ["is there a red circle ?", "what color ?", "", "how many bars are taller than 3 ?"]
    given = {"method": "cdpruner", "budget": 5}
    if by == CLIP:
        given["options"] = {"text_tower": str(tower)}
    batch = processor(images=pictures, text=list(TEXTS), padding=True, return_tensors="pt")
    named = {"question": asked} if by == CLIP else {}
    short = prunesid.prune(model, processor, batch, **given, **named)
    kept = list(short["mm_encoder_outputs"]["image"].pooler_output)
    for number, pair in enumerate(shown):
        if not pair:
            continue
        own = processor(images=[pictures[n] for n in pair], text=TEXTS[number], return_tensors="pt")
        named = {"question": asked[number]} if by == CLIP else {}
        alone = prunesid.prune(model, processor, own, **given, **named)
        for place, tokens in zip(
            pair, alone["mm_encoder_outputs"]["image"].pooler_output, strict=True
        ):
            torch.testing.assert_close(kept[place], tokens)
    # Another question, other tokens.
    if by == CLIP:
        other = prunesid.prune(model, processor, batch, **given, question=LONG)
        found = other["mm_encoder_outputs"]["image"].pooler_output
        assert any(not torch.equal(a, b) for a, b in zip(kept, found, strict=True))


def test_a_question_is_given_where_it_is_read_and_nowhere_else(tiny_llava, tower):
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()
    processor = AutoProcessor.from_pretrained(tiny_llava)
    clip = {"method": "cdpruner", "budget": 5, "options": {"text_tower": str(tower)}}
    inputs = processor(images=random_images(1), text=TEXTS[0], return_tensors="pt")
    with pytest.raises(ValueError, match="question: CLIP's text tower reads what is asked as text"):
        prunesid.prune(model, processor, inputs, **clip)
    with pytest.raises(ValueError, match="question: 2 for 1 prompts"):
        prunesid.prune(model, processor, inputs, **clip, question=["a", "b"])
    with pytest.raises(ValueError, match="cdpruner does not read it, but the prompts themselves"):
        prunesid.prune(model, processor, inputs, "cdpruner", 5, question="is there ?")
    with pytest.raises(ValueError, match="question: dpp does not read it$"):
        prunesid.prune(model, processor, inputs, "dpp", 5, question="is there ?")


def test_a_method_that_draws_does_so_by_image_and_question(tiny_llava):
    @register("drawn", needs=Needs(relevance=ASKED), random=True)
    def drawn(record, budget, draws):
        order = [
            torch.randperm(record.num_tokens, generator=draws.generator(row, "order"))
            for row in range(len(record))
        ]
        return keep(record, torch.stack(order), budget)

    try:
        adapter = families.load(tiny_llava)
        records = adapter.encode(
            adapter.preprocess(random_images(2)), Needs(relevance=ASKED), ["a", "b"]
        )
        texts = {
            "a\nx": ("a", "is there ?"),
            "a\ny": ("a", "how many ?"),
            "b\nx": ("b", "is there ?"),
        }
        vectors = {
            n: adapter.question(EMBEDDINGS, text, ["image"]) for n, (_, text) in texts.items()
        }
        own = {name: image for name, (image, _) in texts.items()}
        all_of_them = records.asked(own, vectors, EMBEDDINGS)
        kept = all_of_them.compress("drawn", budget=5)
        assert not torch.equal(kept.index[0], kept.index[1])
        one = records.asked({"a\ny": "a"}, vectors, EMBEDDINGS).compress("drawn", budget=5)
        assert torch.equal(one.index[0], kept.index[1])
        assert torch.equal(one.tokens[0], kept.tokens[1])
        questions = [
            Question(str(n), image, text, {"max_new_tokens": 4}, input=name)
            for n, (name, (image, text)) in enumerate(texts.items())
        ]
        found = answer(adapter, kept, all_of_them.inputs, questions, batch_size=2)
        assert [each.image_id for each in found] == ["a", "a", "b"]
    finally:
        del METHODS._entries["drawn"]
