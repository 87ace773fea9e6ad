"""Some methods again, image by image and in loops, for input that the golden vectors lack.

Each takes one image's arrays in float64 and returns indices (or tokens where they are means).
"""

import numpy as np

from prunesid.core.numerics import COSINE_GRID as GRID


def cosine(x):
    lengths = np.sqrt((x**2).sum(1))
    unit = np.array([r / n if n > 0 else r for r, n in zip(x, lengths, strict=True)])
    return np.clip(np.round(unit @ unit.T / GRID) * GRID, -1, 1)


def first_max(values):
    """Index of the largest, the first of equals."""
    best = 0
    for i, value in enumerate(values):
        if value > values[best]:
            best = i
    return best


def by_attention(attention):
    return sorted(range(len(attention)), key=lambda i: (-attention[i], i))


def scope(x, attention, count, alpha=1.0):
    similarity, kept = cosine(x), []
    for _ in range(count):
        gains = []
        for j in range(len(x)):
            gain = 0.0
            for i in range(len(x)):
                nearest = max([similarity[i, s] for s in kept], default=0.0)
                gain += max(0.0, similarity[i, j] - max(nearest, 0.0))
            gains.append(-np.inf if j in kept else gain * attention[j] ** alpha)
        kept.append(first_max(gains))
    return sorted(kept)


def vispruner(x, attention, count, important=0.5):
    similarity, order = cosine(x), by_attention(attention)
    leading = int(count * important)
    kept, left = order[:leading], order[leading:]
    wanted = count - leading
    while len(left) > wanted:
        even, odd = left[::2], left[1::2]
        if not odd:
            left = left[:wanted]
            break
        scores = [max(similarity[e, o] for o in odd) for e in even]
        ranked = sorted(range(len(even)), key=lambda i: (-scores[i], i))
        removed = min(8, len(left) - wanted, len(even))
        left = [even[i] for i in ranked[removed:]] + odd
    return sorted(kept + left)


def pool(x, grid, size):
    (rows, columns), (high, wide) = grid, size
    cells = []
    for i in range(high):
        for j in range(wide):
            rs = range(i * rows // high, -(-(i + 1) * rows // high))
            cs = range(j * columns // wide, -(-(j + 1) * columns // wide))
            cells.append(np.mean([x[r * columns + c] for r in rs for c in cs], axis=0))
    return np.stack(cells)


def divprune(projected, count):
    distance, tokens = 1 - cosine(projected), range(len(projected))
    kept = [first_max([sorted(distance[:, i])[1] for i in tokens])]
    while len(kept) < count:
        nearest = [-1 if i in kept else min(distance[s, i] for s in kept) for i in tokens]
        kept.append(first_max(nearest))
    return kept


def cdpruner(projected, count, relevance=None):
    """Every gain as a ratio of determinants: the Schur complement of what is kept."""
    tokens = len(projected)
    weight = np.ones(tokens)
    if relevance is not None:
        low, high = min(-relevance), max(-relevance)
        weight = np.round((-relevance - low + 1e-6) / (high - low) / GRID) * GRID
    lengths = np.sqrt((projected**2).sum(1))
    unit = np.array([r / n if n > 0 else r for r, n in zip(projected, lengths, strict=True)])
    kernel = np.outer(weight, weight) * (unit @ unit.T)
    kept, regular = [], []  # all that are kept, and those that added to the determinant
    while len(kept) < count:
        gains = []
        for j in range(tokens):
            gain = kernel[j, j]
            if regular:
                across = kernel[regular, j]
                gain -= across @ np.linalg.solve(kernel[np.ix_(regular, regular)], across)
            gains.append(-np.inf if j in kept else round(gain / GRID) * GRID)
        pick = first_max(gains)
        if gains[pick] > 0:
            regular.append(pick)
        else:
            pick = first_max([-np.inf if j in kept else weight[j] for j in range(tokens)])
        kept.append(pick)
    return sorted(kept)


def crop_budgets(attention, total, crops, alpha=0.5, grid=None):
    """Base crop, then sub-crops; with a grid the regions are rectangles of it, else runs."""
    tokens, (high, wide) = len(attention), crops
    base = min(int(total * alpha), tokens)
    top = by_attention(attention)[: int(tokens * (1 - alpha))]
    votes = [0] * (high * wide)
    for token in top:
        if grid is None:
            votes[token * high * wide // tokens] += 1
        else:
            row, column = divmod(token, grid[1])
            votes[row * high // grid[0] * wide + column * wide // grid[1]] += 1
    return [base, *(min(tokens, (total - base) * v // max(1, len(top))) for v in votes)]
