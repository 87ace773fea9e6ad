"""Late methods written out for one prompt: whole attention matrices, no cache, no batch.

Every layer is a plain sequence that gets shorter; tokens generated after the prompt run along as
`new` columns that no method looks at. In float64 for a model in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass
class Trace:
    """`logits` of every text and new token; `kept` sources of what each stage keeps (-1: merged
    at an earlier one); `entering` visual tokens per layer."""

    logits: torch.Tensor
    kept: list[list[int]]
    entering: list[int]


def run(model, before, visual, after, new, stages, choose, renumbered, positions=None, added=()):
    """`stages`: layers after which tokens are dropped; `choose(number, facts)` -> the places among
    the visual tokens that stay, and a list of merged ones, each its state and what is still to be
    added to it, with its center's place, or [].

    `positions` of all tokens, the new ones too: tuples of one or three; 0, 1, ... without them.
    `added` (V, E) to the visual tokens after each of the first layers; who merges them merges it
    too.
    """
    decoder = model.model
    states = torch.cat([before, visual, after, new])
    added = [torch.cat([before * 0, each, after * 0, new * 0]) for each in added]
    sources = list(range(len(visual)))
    head = len(before)
    positions = positions or [(place,) for place in range(len(states))]
    trace = Trace(None, [], [])
    for number, layer in enumerate(decoder.layers):
        trace.entering.append(len(sources))
        attention, keys = attention_of(decoder, layer, states, positions)
        states = layer_output(decoder, layer, states, positions)
        if added:
            states = states + added.pop(0)
        if number not in stages:
            continue
        tail = head + len(sources)
        text = list(range(tail, tail + len(after)))
        facts = {
            "attention": attention[text][:, head:tail],
            "states": states[head:tail],
            "added": [each[head:tail] for each in added],
            "text_states": states[text],
            "keys": keys[head:tail],
            "text_keys": keys[text],
            "sources": sources,
            "inputs": visual,
            "text_inputs": after,
            "norm": decoder.norm,
        }
        stay, merged = choose(stages.index(number), facts)
        columns = [*range(head), *[head + place for place in stay]]
        rest = list(range(tail, len(states)))
        for index, values in enumerate([states, *added]):
            new_ones = torch.stack([means[index] for means, _ in merged]) if merged else values[:0]
            values = torch.cat([values[columns], new_ones, values[rest]])
            if index:
                added[index - 1] = values
            else:
                states = values
        sources = [sources[place] for place in stay]
        trace.kept.append(sources)
        sources = sources + [-1] * len(merged)
        if renumbered:
            positions = [(place,) for place in range(len(states))]
        else:
            centers = [head + center for _, center in merged]
            positions = [positions[column] for column in columns + centers + rest]
    tail = head + len(sources)
    trace.logits = model.lm_head(decoder.norm(states[tail:]))
    return trace


def layer_output(decoder, layer, states, positions):
    axes = torch.tensor(positions).T[:, None]
    rotary = decoder.rotary_emb(states[None], axes if len(axes) == 3 else axes[0])
    return layer(states[None], attention_mask=None, position_embeddings=rotary)[0]


def attention_of(decoder, layer, states, positions):
    """(S, S) attention, mean over heads, and (S, heads * d) rotated keys."""
    module = layer.self_attn
    normed = layer.input_layernorm(states)
    angles = torch.stack([angles_of(decoder, position) for position in positions])
    cos, sin = (each.repeat(1, 2).to(states.dtype) for each in (angles.cos(), angles.sin()))

    def heads(tensor):
        return tensor.view(len(states), -1, module.head_dim)

    def normed_heads(tensor, name):
        """Qwen3 norms the heads of queries and keys."""
        return getattr(module, name, lambda each: each)(heads(tensor))

    def turned(tensor):
        half = module.head_dim // 2
        swapped = torch.cat([-tensor[..., half:], tensor[..., :half]], dim=-1)
        return tensor * cos[:, None] + swapped * sin[:, None]

    queries = turned(normed_heads(module.q_proj(normed), "q_norm"))
    keys = turned(normed_heads(module.k_proj(normed), "k_norm"))
    group = queries.shape[1] // keys.shape[1]
    hidden = torch.ones(len(states), len(states), dtype=torch.bool).triu(1)
    matrices = []
    for head in range(queries.shape[1]):
        scores = queries[:, head] @ keys[:, head // group].T / math.sqrt(module.head_dim)
        matrices.append(scores.masked_fill(hidden, -math.inf).softmax(dim=1))
    return torch.stack(matrices).mean(dim=0), keys.flatten(1)


def angles_of(decoder, position):
    """The angle of each pair of channels; in M-RoPE sections of pairs turn with time, row, column.

    Interleaved, rows and columns take turns with time as long as their sections last.
    """
    frequencies = decoder.rotary_emb.inv_freq.float()
    axis = [0] * len(frequencies)
    if len(position) == 3:
        sections = decoder.config.rope_parameters["mrope_section"]
        axis = [number for number, size in enumerate(sections) for _ in range(size)]
        if decoder.config.rope_parameters.get("mrope_interleaved"):
            axis = [
                place % 3 if place < 3 * sections[place % 3] else 0
                for place in range(len(frequencies))
            ]
    return torch.stack([position[own] * f for own, f in zip(axis, frequencies, strict=True)])


def best(scores, count):
    """Places of the highest `count` scores, ascending."""
    order = sorted(range(len(scores)), key=lambda place: (-float(scores[place]), place))
    return sorted(order[:count])


def fastv(count):
    return lambda stage, facts: (best(facts["attention"][-1], count), [])


def dart(each, image_pivots=4, text_pivots=4):
    def choose(stage, facts):
        def strongest(keys, count):
            norms = keys.abs().sum(dim=1)
            return sorted(range(len(keys)), key=lambda place: -float(norms[place]))[:count]

        states = facts["norm"](facts["states"])
        text = facts["norm"](facts["text_states"])
        pivots = strongest(facts["keys"], image_pivots)
        leaders = [states[place] for place in pivots]
        leaders += [text[place] for place in strongest(facts["text_keys"], text_pivots)]
        pool = [place for place in range(len(states)) if place not in pivots]
        kept = list(pivots)
        for leader in leaders:
            cosine = {p: float(torch.cosine_similarity(states[p], leader, dim=0)) for p in pool}
            for place in sorted(pool, key=lambda place: cosine[place])[:each]:
                kept.append(place)
                pool.remove(place)
        return sorted(kept), []

    return choose


def sparsevlm(counts, recycle=True):
    def choose(stage, facts):
        likeness = facts["inputs"] @ facts["text_inputs"].T
        m = torch.stack([row.softmax(dim=0) for row in likeness]).mean(dim=0)
        raters = [place for place in range(len(m)) if m[place] > m.mean()]
        p = facts["attention"][raters].mean(dim=0)
        stay = best(p, counts[stage])
        dropped = [place for place in range(len(p)) if place not in stay]
        if not recycle or not dropped:
            return stay, []
        number = int(0.3 * len(dropped)) + 1
        again = sorted(dropped, key=lambda place: (-float(p[place]), place))[:number]
        carried = [facts["states"], *facts["added"]]
        merged = merge(facts["states"][again], int(number / 10) + 1)
        return stay, [
            ([each[again][members].mean(dim=0) for each in carried], again[center])
            for members, center in merged
        ]

    return choose


def merge(points, count):
    """Density-peak clustering -> members and center of each cluster, highest score first."""
    total, width = points.shape
    distance = [
        [float((points[i] - points[j]).norm()) / math.sqrt(width) for j in range(total)]
        for i in range(total)
    ]
    noise = torch.rand(total, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density = []
    for i in range(total):
        near = sorted(distance[i])[:count]
        density.append(math.exp(-sum(d * d for d in near) / len(near)) + 1e-6 * float(noise[i]))
    score = []
    for i in range(total):
        higher = [distance[i][j] for j in range(total) if density[j] > density[i]]
        score.append(density[i] * (min(higher) if higher else max(map(max, distance))))
    centers = sorted(range(total), key=lambda i: -score[i])[:count]
    members = {center: [center] for center in centers}
    for i in range(total):
        if i not in centers:
            members[min(centers, key=lambda center: distance[i][center])].append(i)
    return [(members[center], center) for center in centers]


def mustdrop(overall, individual, protected=()):
    def choose(stage, facts):
        attention = facts["attention"]
        total = attention.sum()
        stay = []
        for place, source in enumerate(facts["sources"]):
            faint = attention[:, place].sum() < overall * total
            nobody = attention[:, place].max() < individual
            if not (faint and nobody) or source in protected:
                stay.append(place)
        return stay, []

    return choose
