"""Late methods in decoders whose tokens have three rotary positions: time, row and column."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from builders import reference_late as reference
from builders.late_models import MROPE, WIDTH, batch, build, mrope, prompt

from prunesid.generate.columns import AFTER, BEFORE, GONE, VISUAL, Columns
from prunesid.generate.decoder_pass import MODES, prefill, prefill_shared, rotary_axes
from prunesid.methods import decoder
from prunesid.methods.decoder import DecoderShape, Schedule
from prunesid.methods.decoder.schedule import Choice, Stage
from prunesid.methods.registry import DECODER, list_methods

STEPS = 4
TOKENS = 40
# Media of 40 tokens: an image, a clip, and one whose frames are seconds apart.
GRIDS = [((1, 4, 10), 1), ((2, 5, 4), 1), ((4, 2, 5), 7)]
CASES = {
    "fastv": ({}, 20),
    "dart": ({}, 22),
    "sparsevlm": ({}, 20),
    "mustdrop": ({"rule": "budget", "key_share": 0}, 20),
}


def planned(case):
    params, budget = CASES[case]
    return decoder.plan(case, DecoderShape(6, TOKENS, axes=3), budget, **params)


def reference_choice(case, schedule):
    counts = [stage.leaves for stage in schedule.stages]
    if case == "fastv":
        return reference.fastv(counts[0])
    if case == "dart":
        return reference.dart((counts[0] - 4) // 8)
    if case == "sparsevlm":
        return reference.sparsevlm([kept_of(*each) for each in pairwise([TOKENS, *counts])])
    return None


def kept_of(entering, left):
    """The number of tokens kept, from the number that leaves a stage with the clusters."""
    return next(
        kept
        for kept in range(left + 1)
        if kept + int((int(0.3 * (entering - kept)) + 1) / 10) + 1 == left
    )


def prompts_of(dtype=torch.float64):
    """Prompts of three lengths, and the positions of their tokens."""
    sizes = [(2 + row, 5 + 3 * row) for row in range(3)]
    texts = [
        prompt(10 + row, before=before, after=after, dtype=dtype)
        for row, (before, after) in enumerate(sizes)
    ]
    positions = [
        mrope(before, grid, after, gap)
        for (before, after), (grid, gap) in zip(sizes, GRIDS, strict=True)
    ]
    return texts, positions


def additions(seed, layers, dtype=torch.float64):
    """(TOKENS, E) added to the visual tokens after each of the first layers."""
    generator = torch.Generator().manual_seed(200 + seed)
    return [
        torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(layers)
    ]


def carrying(parts, later):
    """A prompt whose visual tokens carry these additions and whose text carries zeros."""
    return tuple(
        torch.cat([part, *(later if place == 1 else [part * 0] * len(later))], dim=1)
        for place, part in enumerate(parts)
    )


@torch.no_grad()
def decoded(model, state, added=0):
    """Greedy tokens (B, STEPS) and the logits (B, STEPS + 1, vocabulary) they come from."""
    logits, tokens = [model.lm_head(state.last)], []
    for _ in range(STEPS):
        tokens.append(logits[-1].argmax(-1))
        new = torch.nn.functional.pad(model.model.embed_tokens(tokens[-1]), (0, added * WIDTH))
        logits.append(model.lm_head(state.advance(new)))
    return torch.stack(tokens, dim=1), torch.stack(logits, dim=1)


@pytest.mark.parametrize("added", [0, 1, 4, 8])
@pytest.mark.parametrize("family", MROPE)
@pytest.mark.parametrize("case", ["fastv", "dart", "sparsevlm"])
def test_a_method_equals_its_reference(case, family, added):
    """Also if tokens carry what the first `added` of 6 layers add to them."""
    model, schedule = build(family), planned(case)
    assert schedule.positions == "original" and schedule.stages[0].after == 0
    choose = reference_choice(case, schedule)
    for seed, (each, own) in enumerate(zip(*prompts_of(), strict=True)):
        later = additions(seed, added)
        wide = carrying(each, later)
        state = prefill(model.model, batch([wide], positions=[own]), schedule)
        tokens, logits = decoded(model, state, added)
        new = [(own[-1][0] + step,) * 3 for step in range(1, STEPS + 1)]
        with torch.no_grad():
            expected = reference.run(
                model, *each, model.model.embed_tokens(tokens[0]),
                [stage.after for stage in schedule.stages], choose, False, [*own, *new], later,
            )  # fmt: skip
        assert [found[0].tolist() for found in state.kept] == expected.kept
        assert state.entering[0].tolist() == expected.entering
        assert min(expected.entering) < TOKENS
        torch.testing.assert_close(logits[0], expected.logits[-STEPS - 1 :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", MROPE)
def test_mustdrop_by_thresholds_equals_its_reference(family):
    given = {"global_threshold": 0.02, "individual_threshold": 0.02}
    schedule = decoder.plan(
        "mustdrop", DecoderShape(6, TOKENS, axes=3), None, key_share=0, shrink_cache=False, **given
    )
    model, choose = build(family), reference.mustdrop(*given.values())
    for each, own in zip(*prompts_of(), strict=True):
        state = prefill(model.model, batch([each], positions=[own]), schedule)
        with torch.no_grad():
            expected = reference.run(
                model, *each, each[0][:0], [stage.after for stage in schedule.stages], choose,
                False, own,
            )  # fmt: skip
            logits = model.lm_head(state.last)[0]
        assert [found[0].tolist() for found in state.kept] == expected.kept
        assert min(expected.entering) < TOKENS
        torch.testing.assert_close(logits, expected.logits[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("added", [0, 2])
@pytest.mark.parametrize("case", CASES)
def test_modes_and_batches_give_the_same(case, added):
    model, schedule = build("qwen2_vl", dtype=torch.float32), planned(case)
    prompts, positions = prompts_of(torch.float32)
    prompts = [
        carrying(each, additions(seed, added, torch.float32)) for seed, each in enumerate(prompts)
    ]
    single = [
        prefill(model.model, batch([each], positions=[own]), schedule)
        for each, own in zip(prompts, positions, strict=True)
    ]
    expected = [decoded(model, state, added) for state in single]
    assert len({tuple(tokens[0].tolist()) for tokens, _ in expected}) > 1
    for mode in MODES:
        for side in ("left", "right", "inside"):
            state = prefill(model.model, batch(prompts, side, positions), schedule, mode=mode)
            tokens, logits = decoded(model, state, added)
            for row, (alone, one) in enumerate(zip(single, expected, strict=True)):
                assert torch.equal(tokens[row], one[0][0])
                torch.testing.assert_close(logits[row], one[1][0], rtol=1e-4, atol=1e-4)
                assert torch.equal(state.entering[row], alone.entering[0])
                assert torch.equal(state.cached[row], alone.cached[0])


@pytest.mark.parametrize("added", [0, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["fastv", "sparsevlm"])
def test_a_shared_prefix_changes_nothing(case, mode, added):
    model, schedule = build("qwen2_5_vl"), planned(case)
    media = [
        (carrying(prompt(1, before=2), additions(1, added)), GRIDS[2]),
        (carrying(prompt(2, before=6), additions(2, added)), GRIDS[0]),
    ]
    texts = [
        carrying(prompt(30 + row, after=4 + 2 * row), additions(row, added))[2] for row in range(4)
    ]
    owner = [1, 0, 0, 1]
    plain = batch(
        [(*media[each][0][:2], text) for each, text in zip(owner, texts, strict=True)],
        positions=[
            mrope(len(media[each][0][0]), media[each][1][0], len(text), media[each][1][1])
            for each, text in zip(owner, texts, strict=True)
        ],
    )
    alone = prefill(model.model, plain, schedule, mode=mode)
    lengths = torch.tensor([len(text) for text in texts])
    shared = prefill_shared(
        model.model,
        batch(
            [(*each[:2], each[2][:0]) for each, _ in media],
            positions=[mrope(len(each[0]), grid, 0, gap) for each, (grid, gap) in media],
        ),
        torch.tensor([len(each[0]) + max(grid[1:]) for each, (grid, _) in media]),
        torch.tensor(owner),
        torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
        torch.where(torch.arange(10) < lengths[:, None], AFTER, GONE),
        schedule,
        mode=mode,
    )
    torch.testing.assert_close(shared.last, alone.last)
    both = (decoded(model, state, added) for state in (shared, alone))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_and_clusters_keep_their_positions():
    """The sources of merged tokens, and all tokens that go on."""
    model, schedule = build("qwen2_vl"), planned("sparsevlm")
    (each, *_), (own, *_) = prompts_of()
    centers = []

    def watched(stage):
        def choose(view):
            choice = stage.choose(view)
            assert choice.merged is not None and choice.positions is not None
            assert choice.positions.shape == (len(choice.merged), 3)
            places = {tuple(place) for place in view.position.tolist()}
            centers.append([tuple(place) for place in choice.positions.tolist()])
            assert set(centers[-1]) <= places
            return choice

        return Stage(stage.after, choose, stage.leaves)

    stages = tuple(watched(stage) for stage in schedule.stages)
    state = prefill(model.model, batch([each], positions=[own]), Schedule(stages, "original"))
    left = state.columns.row(0)
    found = [tuple(place) for place in state.columns.position[0, left].tolist()]
    stayed = [own[len(each[0]) + int(source)] for source in state.kept[-1][0] if source >= 0]
    before, after = own[: len(each[0])], own[len(each[0]) + TOKENS :]
    assert found[: len(before) + len(stayed)] == [*before, *stayed]
    assert found[-len(after) :] == after
    assert found[-len(after) - len(centers[-1]) : -len(after)] == centers[-1]


@pytest.mark.parametrize("family", MROPE)
def test_the_rows_of_attention_are_the_layers_own(family):
    model = build(family, layers=3, dtype=torch.float32)
    (each, *_), (own, *_) = prompts_of(torch.float32)
    rows = []

    def read(view):
        rows.append(view.attention())
        return Choice(torch.arange(TOKENS))

    columns = batch([each], positions=[own])
    prefill(model.model, columns, Schedule((Stage(1, read),)))
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model.model(
            inputs_embeds=columns.hidden,
            position_ids=columns.position.permute(2, 0, 1),
            output_attentions=True,
        ).attentions
    expected = attentions[1][0].mean(dim=0)[-5:, 2:42].double()
    torch.testing.assert_close(rows[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", list_methods(DECODER))
def test_renumbering_has_no_meaning(method):
    with pytest.raises(ValueError, match="'renumbered' has no meaning.*Available: original"):
        decoder.plan(method, DecoderShape(6, TOKENS, axes=3), TOKENS, positions="renumbered")
    model = build("qwen2_vl", layers=2)
    assert rotary_axes(model.model) == 3 and rotary_axes(build(layers=2).model) == 1
    columns = batch([prompt(1)], positions=[mrope(3, (1, 4, 10), 7)])
    with pytest.raises(ValueError, match="'renumbered' has no meaning"):
        prefill(model.model, columns, Schedule(positions="renumbered"))


def test_merged_tokens_have_to_carry_what_is_still_to_come():
    model, (each, *_) = build("qwen3_vl"), prompts_of()[0]
    columns = batch([carrying(each, additions(0, 2))], positions=[prompts_of()[1][0]])

    def narrow(view):
        assert view.tokens.shape[1] == 2 * view.hidden.shape[1]
        own = view.hidden[:2].mean(dim=0, keepdim=True)
        return Choice(torch.arange(4), own, view.position[:1])

    with pytest.raises(ValueError, match="merged tokens are \\(1, 32\\), not \\(m, 64\\)"):
        prefill(model.model, columns, Schedule((Stage(0, narrow),)))


def test_positions_have_to_fit_the_decoder():
    three = batch([prompt(1)], positions=[mrope(3, (1, 4, 10), 7)])
    with pytest.raises(ValueError, match="by 3 positions per token; the prompts have 1"):
        prefill(build("qwen2_vl", layers=2).model, batch([prompt(1)]), Schedule())
    with pytest.raises(ValueError, match="by 1 positions per token; the prompts have 3"):
        prefill(build(layers=2).model, three, Schedule())


def test_sliding_windows_are_refused():
    model = build("qwen2_5_vl", layers=2)
    model.model.config.layer_types = ["full_attention", "sliding_attention"]
    columns = batch([prompt(1)], positions=[mrope(3, (1, 4, 10), 7)])
    with pytest.raises(ValueError, match="sliding-window attention"):
        prefill(model.model, columns, Schedule())


def test_several_images_and_none():
    """Text between images comes before the last one; merged tokens follow the last image."""
    model, schedule = build(), decoder.plan("sparsevlm", DecoderShape(6, TOKENS), 20)
    before, visual, after = prompt(3)
    between = prompt(4)[0]
    kind = [BEFORE] * 3 + [VISUAL] * 25 + [BEFORE] * 3 + [VISUAL] * 15 + [AFTER] * 7
    hidden = torch.cat([before, visual[:25], between, visual[25:], after])
    columns = Columns.of(hidden[None], torch.tensor([kind]))
    assert columns.place.tolist() == [list(range(53))]
    states = [prefill(model.model, columns, schedule, mode=mode) for mode in MODES]
    torch.testing.assert_close(states[0].last, states[1].last)
    left = states[1].columns
    source, order = left.source[0], left.row(0)
    kinds = left.kind[0, order].tolist()
    visual_places = [place for place, found in enumerate(kinds) if found == VISUAL]
    merged = [place for place in visual_places if source[order[place]] < 0]
    assert merged and kinds[max(merged) + 1 :] == [AFTER] * 7
    assert min(merged) > max(set(visual_places) - set(merged))
    assert kinds.count(BEFORE) == 6
    text = Columns.of(after[None], torch.full((1, 7), AFTER))
    alone = prefill(model.model, text, Schedule())
    with torch.no_grad():
        expected = model.model(inputs_embeds=after[None]).last_hidden_state[:, -1]
    torch.testing.assert_close(alone.last, expected)
    assert alone.entering.tolist() == [[0] * 6]
