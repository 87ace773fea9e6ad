"""ToMe inside a CLIP tower once more, image by image and token by token, as plainly as can be.

Shares with the library only the grid on which equal numbers are equal (`prunesid.core.numerics`).
"""

import math

import numpy as np

GRID = 2.0**-30


def weights(module):
    """(weight, bias) of a linear layer or norm, float64."""
    return module.weight.detach().double().numpy(), module.bias.detach().double().numpy()


def norm(module, x):
    scale, shift = weights(module)
    centered = x - x.mean()
    return centered / math.sqrt((centered**2).mean() + module.eps) * scale + shift


def linear(module, x):
    matrix, bias = weights(module)
    return matrix @ x + bias


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def tome(tower, embedded, schedule, proportional=True, padding=()):
    """Embeddings (1 + T, D) of an image -> [(token, the patches in it)] as the last merge left
    them.

    padding  patches that are attended to, and neither merge nor come out
    """
    shown = [patch for patch in range(len(embedded) - 1) if patch not in padding]
    order = [0, *(1 + patch for patch in (*shown, *padding))]
    tokens = [norm(tower.pre_layrnorm, embedded[place]) for place in order]
    # Patches of each token; CLS is None.
    sources = [None, *([place - 1] for place in order[1:])]
    for layer, merged in zip(tower.encoder.layers, schedule, strict=False):
        attention, heads = layer.self_attn, layer.self_attn.num_heads
        normed = [norm(layer.layer_norm1, x) for x in tokens]
        query, key, value = (
            [linear(module, x).reshape(heads, -1) for x in normed]
            for module in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        size = [1 if own is None else len(own) for own in sources]
        for i in range(len(tokens)):
            mixed = []
            for h in range(heads):
                scale = 1 / math.sqrt(len(query[i][h]))
                logits = [
                    scale * query[i][h] @ key[j][h] + (math.log(size[j]) if proportional else 0)
                    for j in range(len(tokens))
                ]
                exponents = [math.exp(logit - max(logits)) for logit in logits]
                mixed.append(sum(e * value[j][h] for j, e in enumerate(exponents)) / sum(exponents))
            tokens[i] = tokens[i] + linear(attention.out_proj, np.concatenate(mixed))
        if merged:
            end = len(tokens) - len(padding)
            means, held = _merge(
                tokens[:end], sources[:end], [k.mean(axis=0) for k in key[:end]], merged
            )
            tokens, sources = means + tokens[end:], held + sources[end:]
        tokens = [
            x + linear(layer.mlp.fc2, quick_gelu(linear(layer.mlp.fc1, norm(layer.layer_norm2, x))))
            for x in tokens
        ]
    end = len(tokens) - len(padding)
    return list(zip(tokens[1:end], sources[1:end], strict=True))


def _merge(tokens, sources, metric, merged):
    unit = [m / np.linalg.norm(m) for m in metric]
    first, second = range(0, len(tokens), 2), range(1, len(tokens), 2)
    best = {}
    for a in first:
        if sources[a] is None:
            continue
        scores = [round(float(unit[a] @ unit[b]) / GRID) for b in second]
        best[a] = max(scores), second[scores.index(max(scores))]
    going = sorted(best, key=lambda a: (-best[a][0], a))[:merged]
    found = {b: ([tokens[b]], [sources[b]]) for b in second}
    for a in going:
        found[best[a][1]][0].append(tokens[a])
        found[best[a][1]][1].append(sources[a])
    means = []
    for members, own in found.values():
        count = [len(patches) for patches in own]
        mean = sum(n * x for n, x in zip(count, members, strict=True)) / sum(count)
        means.append((mean, [patch for patches in own for patch in patches]))
    staying = [(tokens[a], sources[a]) for a in first if a not in going]
    return tuple(map(list, zip(*staying, *means, strict=True)))
