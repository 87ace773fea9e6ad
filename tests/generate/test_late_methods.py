"""Each late method against a plain reference, and the two modes against each other."""

from __future__ import annotations

import pytest
import torch
from builders import reference_late as reference
from builders.late_models import FAMILIES, batch, build, prompt

from prunesid.generate.columns import AFTER, GONE
from prunesid.generate.decoder_pass import MODES, prefill, prefill_shared
from prunesid.methods import decoder
from prunesid.methods.decoder import DecoderShape, Schedule
from prunesid.methods.decoder.mustdrop import mustdrop as mustdrop_plan
from prunesid.methods.decoder.schedule import Choice, Stage
from prunesid.methods.registry import DECODER, list_methods

STEPS = 4
TOKENS = 40
# The thresholds are set to drop some, not all, of 40 tokens.
CASES = {
    "fastv": ({}, 20),
    "fastv renumbered": ({"k": 2, "positions": "renumbered"}, 24),
    "dart": ({}, 22),
    "dart flag": ({"k": 2, "count": "flag", "image_pivots": 2, "text_pivots": 1}, 20),
    "sparsevlm": ({}, 20),
    "sparsevlm plain": ({"recycle": False, "positions": "original"}, 20),
    "mustdrop": (
        {"global_threshold": 0.02, "individual_threshold": 0.02, "shrink_cache": False},
        None,
    ),
    "mustdrop bare": (
        {
            "global_threshold": 0.015,
            "individual_threshold": 0.03,
            "key_share": 0,
            "shrink_cache": False,
            "positions": "original",
        },
        None,
    ),
}


def planned(case, depth=6, tokens=TOKENS):
    params, budget = CASES[case]
    return decoder.plan(case.split()[0], DecoderShape(depth, tokens), budget, **params)


def cls_attention_of(rows, tokens=TOKENS):
    return torch.stack([torch.randperm(tokens).double() for _ in range(rows)])


def reference_choice(case, schedule, cls_attention):
    method, (params, _) = case.split()[0], CASES[case]
    counts = [stage.leaves for stage in schedule.stages]
    if method == "fastv":
        return reference.fastv(counts[0])
    if method == "dart":
        pivots = params.get("image_pivots", 4), params.get("text_pivots", 4)
        return reference.dart((counts[0] - pivots[0]) // sum(pivots), *pivots)
    if method == "sparsevlm":
        kept = sparsevlm_counts(counts, params.get("recycle", True))
        return reference.sparsevlm(kept, params.get("recycle", True))
    share = params.get("key_share", 0.08)
    protected = reference.best(cls_attention, -int(-share * TOKENS // 1))
    return reference.mustdrop(
        params["global_threshold"], params["individual_threshold"], protected if share else ()
    )


def sparsevlm_counts(leaves, recycle):
    """Numbers of tokens kept, from the numbers that leave each stage with the clusters."""
    entering, found = TOKENS, []
    for left in leaves:
        for kept in range(left + 1):
            dropped = entering - kept
            clusters = int((int(0.3 * dropped) + 1) / 10) + 1 if recycle and dropped else 0
            if kept + clusters == left:
                found.append(kept)
        entering = left
    return found


@torch.no_grad()
def decoded(model, state, steps=STEPS):
    """Greedy tokens (B, steps) and the logits (B, steps + 1, vocabulary) they come from."""
    logits = [model.lm_head(state.last)]
    tokens = []
    for _ in range(steps):
        tokens.append(logits[-1].argmax(-1))
        hidden = state.advance(model.model.embed_tokens(tokens[-1]))
        logits.append(model.lm_head(hidden))
    return torch.stack(tokens, dim=1), torch.stack(logits, dim=1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_a_method_equals_its_reference(case, family):
    torch.manual_seed(1)
    model, schedule = build(family), planned(case)
    attention = cls_attention_of(2)
    for row, each in enumerate((prompt(3), prompt(4, before=1, after=12))):
        choose = reference_choice(case, schedule, attention[row])
        stages = [stage.after for stage in schedule.stages]
        renumbered = schedule.positions == "renumbered"
        state = prefill(
            model.model, batch([each]), schedule, cls_attention=attention[row : row + 1]
        )
        tokens, logits = decoded(model, state)
        new = model.model.embed_tokens(tokens[0])
        with torch.no_grad():
            expected = reference.run(model, *each, new, stages, choose, renumbered)
        assert [found[0].tolist() for found in state.kept] == expected.kept
        assert state.entering[0].tolist() == expected.entering
        assert min(expected.entering) < TOKENS
        torch.testing.assert_close(logits[0], expected.logits[-STEPS - 1 :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_modes_and_batches_give_the_same(case):
    model = build(dtype=torch.float32)
    schedule = planned(case)
    torch.manual_seed(2)
    attention = cls_attention_of(4)
    prompts = [
        prompt(10 + row, before=1 + row, after=5 + 3 * row, dtype=torch.float32) for row in range(4)
    ]
    single = [
        prefill(model.model, batch([each]), schedule, cls_attention=attention[row : row + 1])
        for row, each in enumerate(prompts)
    ]
    expected = [decoded(model, state) for state in single]
    assert len({tuple(tokens[0].tolist()) for tokens, _ in expected}) > 1
    for mode in MODES:
        for side in ("left", "right", "inside"):
            state = prefill(
                model.model, batch(prompts, side), schedule, mode=mode, cls_attention=attention
            )
            tokens, logits = decoded(model, state)
            for row, (alone, one) in enumerate(zip(single, expected, strict=True)):
                assert torch.equal(tokens[row], one[0][0])
                torch.testing.assert_close(logits[row], one[1][0], rtol=1e-4, atol=1e-4)
                assert torch.equal(state.entering[row], alone.entering[0])
                assert torch.equal(state.cached[row], alone.cached[0])
                for found, sources in zip(state.kept, alone.kept, strict=True):
                    assert torch.equal(found[row], sources[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["fastv", "sparsevlm"])
def test_a_shared_prefix_changes_nothing(case, mode):
    model, schedule = build(), planned(case)
    first, second = prompt(1), prompt(2, before=6)
    texts = [prompt(30 + row, after=4 + 2 * row)[2] for row in range(4)]
    owner = torch.tensor([1, 0, 0, 1])
    plain = batch(
        [
            ((first, second)[each][0], (first, second)[each][1], text)
            for each, text in zip(owner.tolist(), texts, strict=True)
        ]
    )
    lengths = torch.tensor([len(text) for text in texts])
    shared = prefill_shared(
        model.model,
        batch([(*each[:2], each[2][:0]) for each in (first, second)]),
        torch.tensor([len(each[0]) + len(each[1]) for each in (first, second)]),
        owner,
        torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
        torch.where(torch.arange(10) < lengths[:, None], AFTER, GONE),
        schedule,
        mode=mode,
    )
    alone = prefill(model.model, plain, schedule, mode=mode)
    torch.testing.assert_close(shared.last, alone.last)
    for one, other in zip(decoded(model, shared), decoded(model, alone), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(shared.kept, alone.kept, strict=True):
        assert [each.tolist() for each in one] == [each.tolist() for each in other]


def test_latency_mode_shortens_every_cache():
    model, schedule = build(), planned("sparsevlm")
    each = prompt(5)
    state = prefill(model.model, batch([each]), schedule)
    text = len(each[0]) + len(each[2])
    lengths = [state.cache.length(layer) for layer in range(6)]
    assert lengths == [int(count) + text for count in state.entering[0]]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 4
    masked = prefill(model.model, batch([each]), schedule, mode="accuracy")
    assert masked.cache.length(5) > masked.cache.length(0) == lengths[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_shrunk_cache_has_only_what_reached_the_last_layer(mode):
    model = build()
    params = {"global_threshold": 0.02, "individual_threshold": 0.02, "key_share": 0}
    each = [prompt(6), prompt(7, after=11)]
    states = {
        shrink: prefill(
            model.model,
            batch(each),
            decoder.plan("mustdrop", DecoderShape(6, TOKENS), None, shrink_cache=shrink, **params),
            mode=mode,
        )
        for shrink in (False, True)
    }
    final = states[False].entering[:, -1:]
    assert torch.equal(states[False].cached, states[False].entering)
    assert torch.equal(states[True].cached, final.expand(-1, 6))
    assert torch.equal(states[True].entering, states[False].entering)
    torch.testing.assert_close(states[True].last, states[False].last)
    if mode == "latency":
        most = int((final[:, 0] + torch.tensor([10, 14])).max())
        assert {states[True].cache.length(layer) for layer in range(6)} == {most}
    others = {
        other: prefill(
            model.model,
            batch(each),
            decoder.plan("mustdrop", DecoderShape(6, TOKENS), None, **params),
            mode=other,
        )
        for other in MODES
    }
    logits = [decoded(model, others[other])[1] for other in MODES]
    torch.testing.assert_close(*logits)
    assert not torch.allclose(logits[0], decoded(model, states[False])[1])


@pytest.mark.parametrize("mode", MODES)
def test_layers_before_the_first_pruned_one_keep_their_caches(mode):
    model = build(layers=16)
    params = {"global_threshold": 0.02, "individual_threshold": 0.02, "key_share": 0}
    schedule = decoder.plan("mustdrop", DecoderShape(16, TOKENS), None, **params)
    assert schedule.shrink_from == schedule.stages[0].after == 1
    state = prefill(model.model, batch([prompt(6)]), schedule, mode=mode)
    left = int(state.entering[0, -1])
    assert 0 < left < TOKENS
    assert state.cached[0].tolist() == [TOKENS] + [left] * 15
    if mode == "latency":
        lengths = [state.cache.length(layer) for layer in range(16)]
        assert lengths[0] - lengths[1] == TOKENS - left and set(lengths[1:]) == {lengths[1]}


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3"])
@pytest.mark.parametrize("mode", MODES)
def test_with_everything_kept_the_logits_are_the_models_own(family, mode):
    model = build(family, layers=4, dtype=torch.float32)
    prompts = [
        prompt(20 + row, before=1 + row, after=3 + 2 * row, dtype=torch.float32) for row in range(3)
    ]
    columns = batch(prompts, "left")
    with torch.no_grad():
        expected = model(
            inputs_embeds=columns.hidden,
            attention_mask=columns.seen.long(),
            position_ids=columns.position[..., 0],
        ).logits[:, -1]

    def everything(view):
        assert view.attention().shape == (len(view.text_hidden), TOKENS)
        return Choice(torch.arange(TOKENS))

    kept = Schedule((Stage(0, everything), Stage(2, everything)), "renumbered")
    for schedule in (Schedule(), kept):
        state = prefill(model.model, columns, schedule, mode=mode)
        torch.testing.assert_close(model.lm_head(state.last), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(state.entering, torch.full((3, 4), TOKENS))
        tokens, _ = decoded(model, state)
        for row, each in enumerate(prompts):
            generated = model.generate(
                inputs_embeds=torch.cat(each)[None],
                max_new_tokens=STEPS,
                do_sample=False,
                pad_token_id=0,
            )
            assert tokens[row].tolist() == generated[0].tolist()


def test_the_rows_of_attention_are_the_layers_own():
    for family in (*FAMILIES, "qwen3"):
        model = build(family, layers=3, dtype=torch.float32)
        each = prompt(8, dtype=torch.float32)
        rows = []

        def read(view, rows=rows):
            rows.append(view.attention())
            return Choice(torch.arange(TOKENS))

        prefill(model.model, batch([each]), Schedule((Stage(1, read),)))
        model.set_attn_implementation("eager")
        with torch.no_grad():
            attentions = model(
                inputs_embeds=torch.cat(each)[None], output_attentions=True
            ).attentions
        expected = attentions[1][0].mean(dim=0)[-7:, 3:43].double()
        torch.testing.assert_close(rows[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", list_methods(DECODER))
def test_a_budget_of_all_tokens_drops_nothing(method):
    assert decoder.plan(method, DecoderShape(6, TOKENS), TOKENS).stages == ()
    assert decoder.plan(method, DecoderShape(6, TOKENS), TOKENS + 5).stages == ()


@pytest.mark.parametrize("case", CASES)
def test_a_method_is_deterministic(case):
    model, schedule = build(), planned(case)
    torch.manual_seed(3)
    attention = cls_attention_of(1)
    torch.manual_seed(4)
    first = prefill(model.model, batch([prompt(9)]), schedule, cls_attention=attention)
    torch.manual_seed(5)
    second = prefill(model.model, batch([prompt(9)]), schedule, cls_attention=attention)
    assert torch.equal(first.last, second.last)


def test_key_tokens_stay_and_need_attention():
    model = build()
    schedule = decoder.plan(
        "mustdrop", DecoderShape(6, TOKENS), 128 // 8, rule="budget", key_share=0.2
    )
    attention = torch.zeros(1, TOKENS)
    attention[0, 30:38] = 1
    state = prefill(model.model, batch([prompt(2)]), schedule, cls_attention=attention)
    for kept in state.kept:
        assert set(range(30, 38)) <= set(kept[0].tolist())
    assert state.entering.double().mean() == pytest.approx(16, abs=0.5)
    with pytest.raises(ValueError, match="CLS attention.*key_share=0"):
        prefill(model.model, batch([prompt(2)]), schedule)
    assert mustdrop_plan.__module__ == "prunesid.methods.decoder.mustdrop"


def test_prompts_and_decoders_that_do_not_fit():
    model = build(layers=2)
    schedule = Schedule()
    bare = batch([(prompt(1)[0], prompt(1)[1], prompt(1)[2][:0])])
    with pytest.raises(ValueError, match="text after its image"):
        prefill(model.model, bare, schedule)
    with pytest.raises(ValueError, match="Unknown mode 'fast'.*accuracy, latency"):
        prefill(model.model, batch([prompt(1)]), schedule, mode="fast")
    with pytest.raises(ValueError, match="not built like Llama"):
        prefill(torch.nn.Module(), batch([prompt(1)]), schedule)
    before, visual, after = prompt(1)
    with pytest.raises(ValueError, match="end in the text after its visual tokens"):
        batch([(visual, before, after), (before, after, visual)]).of(
            torch.cat([before, after, visual])[None], torch.tensor([[0] * 3 + [2] * 7 + [1] * 40])
        )
