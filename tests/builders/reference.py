"""PruneSID once more, image by image and in loops, as plainly as the paper has it: the slow truth.

Shares with the library only the grid on which equal numbers are equal (`prunesid.core.numerics`)
and the Gaussian block of the randomized solver.
"""

import math

import numpy as np
import torch

GRID = 2.0**-30
COSINE_GRID = 2.0**-40
# Presets that have the quotas of the authors' code.
RELEASED = ("release", "release_qwen")


def grid(values, step=GRID):
    return np.round(values / step) * step


def components(x, k, center="tokens", solver="exact", generator=None):
    """|V| (T, k) of equations 1 and 2; directions that the data do not determine are zero."""
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-x))
    xc = s - s.mean(axis=0 if center == "tokens" else 1, keepdims=True)
    if solver == "exact":
        _, values, vt = np.linalg.svd(xc.T, full_matrices=True)
        values = np.concatenate([values, np.zeros(len(x) - len(values))])
        absent = values**2 <= max(1e-12 * values[0] ** 2, 1e-20 * x.size)
        if absent.sum() == 1:
            absent[:] = False
    else:
        a = xc.T if xc.shape[0] <= xc.shape[1] else xc
        block = torch.randn((a.shape[1], k), generator=generator, dtype=torch.float64).numpy()
        q, _ = np.linalg.qr(a @ block)
        for _ in range(2):
            q, _ = np.linalg.qr(a.T @ q)
            q, _ = np.linalg.qr(a @ q)
        u, values, vt = np.linalg.svd(q.T @ a, full_matrices=False)
        if xc.shape[0] > xc.shape[1]:
            vt = (q @ u).T
        absent = values**2 <= max(1e-12 * values[0] ** 2, 1e-20 * x.size)
    v = np.abs(vt[:k].T)
    v[:, absent[:k]] = 0
    return grid(v)


def similarity(x):
    t = len(x)
    sim = np.zeros((t, t))
    norms = [math.sqrt(float(row @ row)) for row in x]
    for i in range(t):
        for j in range(t):
            if norms[i] > 0 and norms[j] > 0:
                sim[i, j] = float((x[i] / norms[i]) @ (x[j] / norms[j]))
    return np.clip(grid(sim, COSINE_GRID), -1, 1)


def redundancy(sim, triangle=False):
    t = len(sim)
    pairs = [sim[i, j] for i in range(t) for j in range(i if triangle else i + 1, t)]
    if not pairs:
        return 0.0
    return grid(math.fsum(pairs) / (t * t if triangle else len(pairs)), COSINE_GRID)


def nms(sim, group, score, tau):
    survivors = set()
    for k in sorted(set(group)):
        kept = []
        members = [i for i in range(len(group)) if group[i] == k]
        for i in sorted(members, key=lambda i: (-score[i], i)):
            if all(sim[i, j] <= tau for j in kept):
                kept.append(i)
        survivors |= set(kept)
    return survivors


def matched_tau(sim, group, score, wanted):
    low, high = -(2**30) - 1, 2**30
    while high - low > 1:
        middle = (low + high) // 2
        if len(nms(sim, group, score, middle * GRID)) >= wanted:
            high = middle
        else:
            low = middle
    return high * GRID


def paper_quotas(m, n):
    """Largest remainder, for sum(m) > n; in integers, since equal remainders must be equal."""
    counts = [mk * n // sum(m) for mk in m]
    order = sorted(range(len(m)), key=lambda k: (-(m[k] * n % sum(m)), k))
    for k in order[: n - sum(counts)]:
        counts[k] += 1
    return counts


def release_quotas(c, m, n, reserved=1):
    lower = [min(1, ck) for ck in c]
    upper = [min(5 * math.ceil(n / 64), ck, mk) for ck, mk in zip(c, m, strict=True)]
    while sum(upper) < n:
        upper = [min(u + 1, ck) for u, ck in zip(upper, c, strict=True)]
    by_survivors = sorted(range(len(m)), key=lambda k: (-m[k], k))
    if sum(lower) > n - reserved:
        chosen = [k for k in by_survivors if c[k]][: n - reserved]
        return [int(k in chosen) for k in range(len(c))]
    r = n - reserved - sum(lower)
    edges, before, extra = 0, 0, []
    for mk in m:
        edges += mk
        edge = round(edges * r / sum(m))
        extra.append(edge - before)
        before = edge
    counts = [min(lo + e, u) for lo, e, u in zip(lower, extra, upper, strict=True)]
    for k in by_survivors:
        counts[k] += min(upper[k] - counts[k], r + sum(lower) - sum(counts))
    return counts


def prunesid(x, n, preset="paper", k=None, attention=None, generator=None):
    """Kept indices of one image (T, D) float64, -1 for CLS, and facts about it."""
    t, d = x.shape
    qwen = preset == "release_qwen"
    if qwen:
        n = max(round(t * n / 576), 16)
    sim = similarity(x)
    rho = redundancy(sim, triangle=qwen)
    if n >= t:
        return list(range(t)), {"rho": rho, "tau": 1.0, "survivors": t}
    k = min(k or max(4 if qwen else 1, n // 4), t, d)
    if preset in RELEASED:
        v = components(x, k, "channels", "randomized", generator)
    else:
        v = components(x, k)
    group = [int(np.argmax(row)) for row in v]
    score = [float(row.max()) for row in v]
    if preset == "release":
        score = [float(a) for a in attention]

    def by_score(tokens):
        return sorted(tokens, key=lambda i: (-score[i], i))

    if preset == "matched":
        tau = matched_tau(sim, group, score, n)
        survivors = nms(sim, group, score, tau)
        kept = sorted(by_score(survivors)[:n])
        return kept, {"rho": rho, "tau": tau, "survivors": len(survivors)}

    tau = max(18 * n / t, 1 if qwen else 0) * rho
    survivors = nms(sim, group, score, tau)
    facts = {"rho": rho, "tau": tau, "survivors": len(survivors)}
    members = [[i for i in range(t) if group[i] == j] for j in range(k)]
    ranked = [
        by_score(i for i in own if i in survivors) + by_score(i for i in own if i not in survivors)
        for own in members
    ]
    m = [sum(i in survivors for i in own) for own in members]
    if preset in RELEASED:
        counts = release_quotas([len(own) for own in members], m, n, 0 if qwen else 1)
        kept = [i for own, c in zip(ranked, counts, strict=True) for i in own[:c]]
        return (kept if n <= 150 else sorted(kept)) if qwen else [-1, *kept], facts
    if sum(m) <= n:
        kept = list(survivors)
        kept += by_score(i for i in range(t) if i not in survivors)[: n - len(kept)]
    else:
        counts = paper_quotas(m, n)
        kept = [i for own, c in zip(ranked, counts, strict=True) for i in own[:c]]
    return sorted(kept), facts
