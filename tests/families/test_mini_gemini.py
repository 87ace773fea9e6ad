"""Mini-Gemini against the published image path written out, and its checkpoint map."""

from __future__ import annotations

import json
import re

import pytest
import torch
from builders import mini_gemini_data as data
from builders.tiny_llava import random_images
from transformers import AutoConfig, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunesid.families.mini_gemini import (
    MiniGeminiConfig,
    MiniGeminiForConditionalGeneration,
    MiniGeminiProcessor,
)
from prunesid.families.mini_gemini.mining import PatchInfoMining, windows

load = MiniGeminiForConditionalGeneration.from_pretrained


@pytest.fixture(scope="module")
def tensors():
    return data.published_tensors()


@pytest.fixture(scope="module")
def towers(tmp_path_factory, tensors):
    return data.save_towers(tmp_path_factory.mktemp("towers"), tensors)


@pytest.fixture(scope="module")
def published(tmp_path_factory, tensors, towers):
    """Both towers in the checkpoint; the tower's folder gives CLIP's configuration."""
    return data.save_published(tmp_path_factory.mktemp("published"), tensors, **towers)


@pytest.fixture(scope="module")
def model(published):
    return load(published, dtype=torch.float32)


@pytest.fixture(scope="module")
def pixels():
    torch.manual_seed(1)
    return torch.randn(2, 3, 56, 56), torch.randn(2, 3, 128, 128)


@pytest.fixture(scope="module")
def inputs(model, pixels):
    ids = torch.tensor([[1, 5, *[model.config.image_token_id] * 16, 9, 12, 6]] * 2)
    ids[1, -2] = 20
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels[0],
        "pixel_values_aux": pixels[1],
    }


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def embedded(tensors, inputs):
    """The language model's input, by the reference, with the image in its place."""
    tokens = data.reference_tokens(tensors, inputs["pixel_values"], inputs["pixel_values_aux"])
    ids = inputs["input_ids"]
    table = tensors["model.embed_tokens.weight"].double()
    return torch.cat(
        [table[ids[:, :2]], data.reference_projected(tensors, tokens), table[ids[:, 18:]]], dim=1
    )


# The image path


def test_the_trunk_is_the_one_written_out(model, tensors, pixels):
    with torch.no_grad():
        ours = model.model.vision_tower_aux(pixels[1])
    assert ours.shape == (2, sum(data.WIDTHS), 32, 32)
    expected = data.reference_trunk(tensors, pixels[1])
    torch.testing.assert_close(ours.double(), expected, atol=1e-4, rtol=1e-4)


def test_the_trunk_is_timm_s(model, tensors, pixels):
    """timm's own module, with the names of the published checkpoints; stage by stage."""
    convnext = pytest.importorskip("timm.models.convnext")
    trunk = convnext.ConvNeXt(depths=data.DEPTHS, dims=data.WIDTHS, num_classes=0).eval()
    own = {"stem." + n.removeprefix(data.STEM): t for n, t in tensors.items() if data.STEM in n}
    own |= {
        "stages." + n.removeprefix(data.STAGES): t for n, t in tensors.items() if data.STAGES in n
    }
    left = trunk.load_state_dict(own, strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith("head.") for name in left.missing_keys)
    with torch.no_grad():
        ours = model.model.vision_tower_aux(pixels[1])
        features = trunk.stem(pixels[1])
        start = 0
        for stage, width in zip(trunk.stages, data.WIDTHS, strict=True):
            features = stage(features)
            same = torch.nn.functional.interpolate(
                features, size=(32, 32), mode="bilinear", align_corners=False
            )
            torch.testing.assert_close(ours[:, start : start + width], same, atol=1e-5, rtol=1e-5)
            start += width


def test_windows_are_the_cells_under_each_patch():
    cells = torch.arange(2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
    found = windows(cells, 3)
    assert found.shape == (2, 9, 4, 3)
    for number in range(9):
        row, column = divmod(number, 3)
        patch = cells[1, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(found[1, number], patch.flatten(1).T)
    with pytest.raises(ValueError, match="6 x 6 cells do not make 4 x 4 windows"):
        windows(cells, 4)


def test_final_tokens_equal_the_published_image_path(model, tensors, pixels):
    with torch.no_grad():
        patches = model.model.patches(pixels[0])
        tokens = model.model.mine(patches, pixels[1])
        features = model.model.get_image_features(*pixels)
    expected = data.reference_tokens(tensors, *pixels)
    plain = data.reference_patches(tensors, pixels[0])
    torch.testing.assert_close(patches.double(), plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tokens.double(), expected, atol=1e-4, rtol=1e-4)
    # Mining has to matter, or the comparison says nothing.
    assert (tokens - patches).abs().mean() > 0.1
    torch.testing.assert_close(
        torch.stack(features.pooler_output).double(),
        data.reference_projected(tensors, expected),
        atol=1e-4,
        rtol=1e-4,
    )


def test_scores_that_are_not_numbers_count_as_zero():
    mining = PatchInfoMining(8, 6)
    patches, cells = torch.randn(1, 4, 8), torch.randn(1, 6, 4, 4)
    patches[0, 2] = float("nan")
    found = mining(patches, cells)
    plain = mining.value(windows(cells, 2))[0, 2].mean(0)
    torch.testing.assert_close(found[0, 2], plain)
    assert found.isfinite().all()


def test_logits_equal_the_reference(model, tensors, inputs):
    llama = data.reference_llama(tensors)
    with torch.no_grad():
        expected = llama(inputs_embeds=embedded(tensors, inputs)).logits
    torch.testing.assert_close(logits(model, inputs).double(), expected, atol=2e-3, rtol=1e-3)


def test_generation_equals_greedy_decoding_of_the_reference(model, tensors, inputs):
    ours = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    llama, sequence = data.reference_llama(tensors), embedded(tensors, inputs)
    for row in range(2):
        own, ids = sequence[row : row + 1], []
        while len(ids) < 6 and ids[-1:] != [2]:
            with torch.no_grad():
                ids.append(int(llama(inputs_embeds=own).logits[0, -1].argmax()))
            own = torch.cat(
                [own, tensors["model.embed_tokens.weight"].double()[ids[-1]][None, None]], 1
            )
        assert ours[row, 21 : 21 + len(ids)].tolist() == ids


def test_generation_from_embeddings_and_beams(model, inputs):
    ids = inputs["input_ids"]
    plain = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    with torch.no_grad():
        visual = torch.stack(
            model.get_image_features(
                inputs["pixel_values"], pixel_values_aux=inputs["pixel_values_aux"]
            ).pooler_output
        )
        embed = model.get_input_embeddings()
        whole = torch.cat([embed(ids[:, :2]), visual, embed(ids[:, 18:])], dim=1)
    found = model.generate(
        inputs_embeds=whole,
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        max_new_tokens=6,
    )
    assert torch.equal(found, plain[:, 21:])
    both = model.generate(**inputs, do_sample=False, num_beams=3, max_new_tokens=6)
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        alone = model.generate(**one, do_sample=False, num_beams=3, max_new_tokens=6)[0]
        assert torch.equal(both[row, : len(alone)], alone)


def test_fewer_tokens_enter_through_mm_encoder_outputs(model, inputs):
    features = model.get_image_features(
        inputs["pixel_values"], pixel_values_aux=inputs["pixel_values_aux"]
    )
    ids = inputs["input_ids"][:1, [*range(7), *range(18, 21)]]
    kept = BaseModelOutputWithPooling(pooler_output=[features.pooler_output[0][[2, 3, 7, 8, 15]]])
    found = logits(model, {"input_ids": ids, "mm_encoder_outputs": {"image": kept}})
    embed = model.get_input_embeddings()
    whole = torch.cat([embed(ids[:, :2]), kept.pooler_output[0][None], embed(ids[:, 7:])], dim=1)
    assert torch.equal(found, logits(model, {"inputs_embeds": whole}))


def test_inputs_that_do_not_fit_are_refused(model, inputs):
    with pytest.raises(ValueError, match="has 30 image tokens, the images have 32"):
        logits(model, inputs | {"input_ids": inputs["input_ids"][:, 3:]})
    with pytest.raises(ValueError, match="has 32 image tokens, the images have 0"):
        logits(model, {"input_ids": inputs["input_ids"]})
    with pytest.raises(ValueError, match="needs pixel_values_aux"):
        logits(model, {k: v for k, v in inputs.items() if k != "pixel_values_aux"})


def test_bfloat16_is_close(published, model, inputs):
    half = load(published, dtype=torch.bfloat16)
    pixels = inputs["pixel_values"].bfloat16(), inputs["pixel_values_aux"].bfloat16()
    with torch.no_grad():
        ours = half.model.mine(half.model.patches(pixels[0]), pixels[1])
        exact = model.model.mine(
            model.model.patches(inputs["pixel_values"]), inputs["pixel_values_aux"]
        )
    assert ours.dtype == torch.bfloat16
    near = torch.nn.functional.cosine_similarity(ours.float(), exact, dim=-1)
    assert near.min() > 0.98


# Checkpoints


def test_a_published_checkpoint_is_read_whole(model, published, tensors):
    config = model.config
    assert config.model_type == "mini_gemini" and config.image_token_id == 47
    assert config.aux_config.depths == list(data.DEPTHS)
    assert sum(t.numel() for t in model.state_dict().values()) == sum(
        t.numel() for t in tensors.values()
    )
    assert model.generation_config.eos_token_id == 2
    assert not model.training


def test_towers_come_from_their_own_checkpoints_where_absent(
    tmp_path, model, tensors, towers, inputs
):
    expected = logits(model, inputs)
    bare = {name: t for name, t in tensors.items() if "vision_tower" not in name}
    plain = data.save_published(tmp_path / "bare", bare, **towers)
    assert torch.equal(logits(load(plain), inputs), expected)
    # Paths of another machine, and the towers named by the caller.
    elsewhere = data.save_published(tmp_path / "elsewhere", bare)
    given = {name.removeprefix("mm_"): place for name, place in towers.items()}
    assert torch.equal(logits(load(elsewhere, **given), inputs), expected)
    with pytest.raises(ValueError, match="say where it is with vision_tower=FOLDER_OR_HUB_ID"):
        load(elsewhere)


def test_tuned_parts_of_a_tower_win_over_its_own_checkpoint(tmp_path, model, tensors, towers):
    tuned = {name: t for name, t in tensors.items() if "vision_stem" not in name}
    tuned |= {name: t + 1 for name, t in tuned.items() if "vision_stages" in name}
    found = load(data.save_published(tmp_path / "tuned", tuned, **towers)).state_dict()
    for name, tensor in model.state_dict().items():
        shift = 1 if "vision_tower_aux.stages" in name else 0
        torch.testing.assert_close(found[name], tensor + shift)


def test_constants_of_old_versions_are_left_out(tmp_path, model, tensors, towers, inputs):
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6),
        f"{data.TOWER}vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    folder = data.save_published(tmp_path / "old", tensors | old, **towers)
    assert torch.equal(logits(load(folder), inputs), logits(model, inputs))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (
            "model.layers.1.mlp.up_proj.weight",
            "model.language_model.layers.1.mlp.up_proj.weight",
        ),
        ("lm_head.weight", "lm_head.weight"),
        ("model.vlm_uni_aux_projector.0.bias", "model.mining.key.0.bias"),
        ("model.mm_projector.2.weight", "model.multi_modal_projector.linear_2.weight"),
        (
            f"{data.TOWER}vision_model.encoder.layers.3.mlp.fc1.bias",
            "model.vision_tower.encoder.layers.3.mlp.fc1.bias",
        ),
        (f"{data.STEM}1.weight", "model.vision_tower_aux.stem.layernorm.weight"),
        (
            f"{data.STAGES}2.blocks.1.gamma",
            "model.vision_tower_aux.stages.2.layers.1.layer_scale_parameter",
        ),
    ],
)
def test_each_missing_tensor_is_an_error(tmp_path, tensors, towers, name, ours):
    short = {other: tensor for other, tensor in tensors.items() if other != name}
    folder = data.save_published(tmp_path / "short", short, **towers)
    with pytest.raises(ValueError, match=f"missing: {re.escape(ours)}$"):
        load(folder)


def test_unexpected_and_misshapen_tensors_are_errors(tmp_path, tensors, towers):
    wrong = tensors | {
        "model.vlm_uni_extra.weight": torch.ones(3),
        "model.layers.7.mlp.up_proj.weight": torch.ones(3),
        "model.mm_projector.0.bias": torch.ones(3),
    }
    folder = data.save_published(tmp_path / "wrong", wrong, **towers)
    with pytest.raises(ValueError, match="does not fit Mini-Gemini") as error:
        load(folder)
    text = str(error.value)
    assert (
        "unexpected: model.language_model.layers.7.mlp.up_proj.weight, model.vlm_uni_extra" in text
    )
    assert "of another shape: model.multi_modal_projector.linear_1.bias (3,), not (48,)" in text


def test_pickles_are_not_read(tmp_path, published):
    (tmp_path / "config.json").write_bytes((published / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="holds no safetensors.*are not read.*Convert them once"):
        load(tmp_path)


def test_a_lost_shard_is_named(tmp_path, tensors, towers):
    folder = data.save_published(tmp_path / "lost", tensors, **towers)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks model-00002-of-00002.safetensors"):
        load(folder)


def test_saving_and_loading_keeps_everything(tmp_path, model, inputs):
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again, info = load(tmp_path, output_loading_info=True, attn_implementation="sdpa")
    assert torch.equal(logits(again, inputs), logits(model, inputs))
    assert again.config.to_dict().keys() == model.config.to_dict().keys()
    assert again.generation_config.eos_token_id == 2 and not info["missing_keys"]
    with pytest.raises(ValueError, match="holds its towers"):
        load(tmp_path, vision_tower="clip")


def test_our_own_form_has_to_be_whole_too(tmp_path, model):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.mining.key.1.bias"]
    save_file(state | {"extra": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="missing: model.mining.key.1.bias; unexpected: extra"):
        load(tmp_path)


# Configurations


def test_auto_config_reads_both_layouts(tmp_path, published, model):
    found = AutoConfig.from_pretrained(published)
    assert type(found) is MiniGeminiConfig and found.model_type == "mini_gemini"
    # The towers' geometry is that of the weights; until they are read it is the usual one.
    assert found.vision_config.hidden_size == 1024 and found.grid == 24
    assert found.text_config.hidden_size == 48 and found.image_size_aux == 128
    model.config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.aux_config.hidden_sizes == list(data.WIDTHS) and again.grid == 4


def test_the_default_is_the_published_7b():
    config = MiniGeminiConfig()
    assert config.image_seq_length == 576 and config.image_token_id == 32000
    assert sum(config.aux_config.hidden_sizes) == 2880 and config.image_size_aux == 768
    assert config.text_config.hidden_size == 4096
    with torch.device("meta"):
        model = MiniGeminiForConditionalGeneration(config)
    assert model.model.mining.key[1].weight.shape == (1024, 2880)
    trunk = sum(p.numel() for p in model.model.vision_tower_aux.parameters())
    # ConvNeXt-L without its classifier of 1000 classes and its last norm.
    assert trunk == 197_767_336 - 1_537_000 - 3_072


def test_everything_that_cannot_be_run_is_named_at_once(published):
    raw = json.loads((published / "config.json").read_text())
    bad = {"image_grid": 2, "image_global": True, "mm_projector_type": "linear"}
    bad |= {"architectures": ["MGMGemmaForCausalLM"], "image_size_aux": None}
    with pytest.raises(ValueError, match="This published Mini-Gemini cannot be run") as error:
        MiniGeminiConfig.from_dict(raw | bad)
    text = str(error.value)
    assert "image_grid is 2, and only 1 is supported" in text
    for part in ("image_global", "mm_projector_type", "MGMGemma", "image_size_aux is missing"):
        assert part in text


def test_own_configurations_are_checked():
    with pytest.raises(ValueError, match="Did you mean 'pad'?.*is in the vocabulary"):
        MiniGeminiConfig(image_token_id=3, image_aspect_ratio="padd")
    with pytest.raises(ValueError, match="25 cells per side, which 24 patches cannot share"):
        MiniGeminiForConditionalGeneration(MiniGeminiConfig(image_size_aux=100))


# Images and prompts


@pytest.fixture(scope="module")
def processor(model, tiny_llava):
    return MiniGeminiProcessor(model.config, AutoTokenizer.from_pretrained(tiny_llava))


def test_images_are_padded_sharpened_and_shrunk(processor):
    from PIL import Image

    picture = Image.new("RGB", (128, 64), (255, 0, 0))
    seen = processor.images([picture])
    sharp, small = seen["pixel_values_aux"], seen["pixel_values"]
    assert sharp.shape == (1, 3, 128, 128) and small.shape == (1, 3, 56, 56)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    red = (torch.tensor([1.0, 0.0, 0.0]) - mean) / deviation
    border = ((mean * 255).int() / 255 - mean) / deviation
    torch.testing.assert_close(sharp[0, :, 64, 64], red, atol=1e-5, rtol=0)
    torch.testing.assert_close(sharp[0, :, 0, 0], border, atol=1e-5, rtol=0)
    torch.testing.assert_close(sharp[0, :, 31, 64], border, atol=1e-5, rtol=0)
    # Without antialiasing each small pixel is a mean of at most four.
    noise = processor.images(random_images(1, size=90))
    step = 128 / 56
    place = (torch.tensor(10.0) + 0.5) * step - 0.5
    low, part = int(place), float(place - int(place))
    image = noise["pixel_values_aux"][0, 0]
    rows = image[low] * (1 - part) + image[low + 1] * part
    torch.testing.assert_close(
        noise["pixel_values"][0, 0, 10, 10], rows[low] * (1 - part) + rows[low + 1] * part
    )


def test_images_are_cropped_if_the_configuration_says_square(model, tiny_llava):
    from PIL import Image

    config = MiniGeminiConfig.from_dict(model.config.to_dict() | {"image_aspect_ratio": "square"})
    processor = MiniGeminiProcessor(config, AutoTokenizer.from_pretrained(tiny_llava))
    wide = Image.new("RGB", (256, 128), (255, 255, 255))
    wide.paste((0, 0, 0), (0, 0, 32, 128))
    sharp = processor.images([wide])["pixel_values_aux"]
    assert sharp.shape == (1, 3, 128, 128)
    assert (sharp[0, 0] > 1.5).all()


def test_texts_are_padded_and_generate_what_each_does_alone(processor, model):
    images = random_images(3)
    texts = ["USER: <image> is there a red circle ? ASSISTANT:", "USER: <image> <image> ASSISTANT:"]
    batch = processor(images, texts)
    assert (batch["input_ids"] == 47).sum(1).tolist() == [16, 32]
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][1, 0] == 1
    both = model.generate(**batch, do_sample=False, max_new_tokens=5)
    for row, own in ((0, images[:1]), (1, images[1:])):
        alone = processor(own, texts[row : row + 1])
        answer = model.generate(**alone, do_sample=False, max_new_tokens=5)
        new = answer[0, alone["input_ids"].shape[1] :]
        assert torch.equal(both[row, batch["input_ids"].shape[1] :][: len(new)], new)
    with pytest.raises(ValueError, match="3 times <image> in the texts, for 2 images"):
        processor(images[:2], texts)
