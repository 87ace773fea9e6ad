"""The LLaVA-OneVision adapter against transformers' own model."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from anyres_models import ONEVISION_SIZES, pictures, save_tiny_onevision
from torch.nn.functional import interpolate
from transformers import AutoModelForImageTextToText

import prunesid
from prunesid import models
from prunesid.answering import Question, engine
from prunesid.media import Clip
from prunesid.methods import Needs
from prunesid.models.adapter import kept_crops
from prunesid.records import IMAGE, PADDED, WHOLE

QUESTION = "is there a red circle ?"
CONTEXTS = (QUESTION, "what color is the star ?", "how many bars are taller than 3 ?")
SIZES = ONEVISION_SIZES
SIDE = 4
# Rows and columns of the map of each; None where nothing of it is left.
MAPS = ((4, 4), (4, 12), (12, 4), (8, 8), (8, 6), (8, 8), None, None, None)


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_onevision")
    save_tiny_onevision(path, tiny_llava)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def adapter(folder):
    return models.load(folder)


@pytest.fixture(scope="module")
def inputs(adapter):
    return adapter.preprocess(shown())


def shown():
    return pictures(SIZES)


def theirs(inputs):
    """Only what the model's own processor gives."""
    return {name: value for name, value in inputs.items() if name != "pixel_values_squares"}


def packed(plain, inputs):
    with torch.no_grad():
        return plain.get_image_features(**theirs(inputs)).pooler_output


def entering(adapter, kept, records, name):
    return [
        adapter.enter(kept_crops(kept, medium), json.loads(json.dumps(medium.layout))).embeddings
        for medium in records.inputs[name]
    ]


def whole_prompt(adapter, counts, question=QUESTION):
    prompt = adapter.prompt(question, [IMAGE] * len(counts))
    ids = list(prompt.texts[0])
    for count, text in zip(counts, prompt.texts[1:], strict=True):
        ids += [*[adapter.placeholders[IMAGE]] * count, *text]
    return torch.tensor([ids])


@torch.no_grad()
def slow(plain, texts, media, ends, length):
    """Greedy decoding of the unmodified model that sees the whole sequence again every time."""
    embed = plain.get_input_embeddings()
    parts = [embed(torch.tensor(texts[0]))]
    for medium, text in zip(media, texts[1:], strict=True):
        parts += [medium, embed(torch.tensor(text))]
    sequence, ids = torch.cat(parts)[None], []
    while len(ids) < length and not (ids and ids[-1] in ends):
        logits = plain(inputs_embeds=sequence, use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        sequence = torch.cat([sequence, embed(torch.tensor([[ids[-1]]]))], dim=1)
    return ids


def test_records(adapter, inputs):
    for size in SIZES:
        print(size, adapter.encode(adapter.preprocess(pictures([size]))).inputs)


def test_all(adapter, inputs, plain):
    records = adapter.encode(inputs)
    kept = records.all_tokens()
    for name, expected in zip(records.names, packed(plain, inputs), strict=True):
        (found,) = entering(adapter, kept, records, name)
        print(name, found.shape, expected.shape, torch.equal(found, expected))
