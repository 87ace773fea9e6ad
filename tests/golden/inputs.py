"""Deterministic synthetic inputs for the golden vectors in this directory.

numpy only.  Nothing here comes from any other project.  All arrays are drawn with
``numpy.random.default_rng`` in float64 and cast to float32 at the end; matrix products use
``numpy.einsum`` without optimization, so no BLAS library takes part.

    case = make_case("clustered", 0)          # vision side, one image (or crop)
    llm = make_llm_case("clustered", 0)       # decoder side, one prompt
    digests(case)                             # sha256 of every array, to compare with the JSON files
"""

import hashlib

import numpy as np

KINDS = ("random", "clustered", "tight")
SEEDS = (0, 1)
SIDE = 24  # patches per side
T = SIDE * SIDE  # 576 patch tokens; CLS is an extra token in front
D = 64  # width of the hidden states, of q and of k
HEADS = 4
D_HEAD = D // HEADS
D_PROJ = 48  # width of the projected embeddings E
D_WIDE = 320  # width of E_wide; must exceed the largest budget (the DPP kernel needs rank >= N)

# Decoder side: SYS system tokens, T image tokens, TEXT text tokens.
SYS = 35
TEXT = 40

#          clusters, center std, noise std, std of the direction common to all tokens
_MIX = {
    "random": (0, 0.0, 1.0, 0.47),
    "clustered": (12, 0.9, 0.77, 0.45),
    "tight": (40, 1.0, 0.22, 0.40),
}


def _softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _grid():
    yy, xx = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    return np.stack([yy.ravel(), xx.ravel()], axis=1).astype(np.float64)


def _field(rng, bumps=5):
    """A smooth function on the patch grid, zero mean and unit standard deviation."""
    pos = _grid()
    out = np.zeros(T)
    for _ in range(bumps):
        center = rng.uniform(0, SIDE - 1, size=2)
        width = rng.uniform(2.0, 6.0)
        height = rng.uniform(0.5, 1.5)
        out += height * np.exp(-((pos - center) ** 2).sum(axis=1) / (2 * width * width))
    return (out - out.mean()) / out.std()


def _linear(x, w):
    return np.einsum("ij,jk->ik", x, w) / np.sqrt(x.shape[1])


def _cls_rows(rng, salience, smooth, noise):
    """Logits (HEADS, T + 1) of the CLS query: a smooth field and a salience, plus noise per head."""
    field = _field(rng)
    out = np.zeros((HEADS, T + 1))
    out[:, 1:] = smooth * field + 0.4 * salience + noise * rng.standard_normal((HEADS, T))
    return out


def _attention(rng, salience, smooth, noise):
    """(HEADS, T + 1, T + 1) softmax rows; row 0 is CLS, the other rows look around themselves."""
    pos = _grid()
    d2 = ((pos[:, None, :] - pos[None, :, :]) ** 2).sum(axis=-1)
    logits = 0.5 * rng.standard_normal((HEADS, T + 1, T + 1))
    logits[:, 1:, 1:] += -d2 / 50.0 + 0.5 * salience
    logits[:, 0, :] = _cls_rows(rng, salience, smooth, noise)
    return _softmax(logits)


def make_case(kind, seed, crop=0):
    """Vision-side arrays of one image; ``crop`` > 0 gives further crops of the same image.

    H        (577, 64)        hidden_states[-2], CLS first
    attn     (4, 577, 577)    softmax attention of the block that produced H
    keys     (4, 577, 16)     keys of that block, per head (key projection output, not scaled)
    q_last   (577, 64)        query projection output of the last block
    k_last   (577, 64)        key projection output of the last block
    attn0    (4, 577, 577)    softmax attention of block 0
    E        (576, 48)        projected patch embeddings
    E_wide   (576, 320)       projected patch embeddings of higher rank, for CDPruner only
    text_cos (576,)           cosine of every patch with the text (CDPruner's raw relevance)
    """
    clusters, s_center, s_noise, s_common = _MIX[kind]
    rng = np.random.default_rng([20260101, KINDS.index(kind), seed, crop])
    pos = _grid()
    common = s_common * rng.standard_normal(D)
    if clusters:
        centers = s_center * rng.standard_normal((clusters, D))
        sites = rng.uniform(0, SIDE - 1, size=(clusters, 2))
        label = ((pos[:, None, :] - sites[None]) ** 2).sum(-1).argmin(axis=1)
        flip = rng.uniform(size=T) < 0.1
        label = np.where(flip, rng.integers(0, clusters, size=T), label)
        base = centers[label]
        salience = rng.standard_normal(clusters)[label]
    else:
        base = np.zeros((T, D))
        salience = rng.standard_normal(T)
    patches = common + base + s_noise * rng.standard_normal((T, D))
    patches = patches * (1.0 + 0.3 * rng.uniform(-1, 1, size=(T, 1)))
    cls = common + rng.standard_normal(D)
    H = np.concatenate([cls[None], patches])

    attn = _attention(rng, salience, smooth=0.8, noise=0.5)
    attn0 = _attention(rng, rng.standard_normal(T), smooth=0.6, noise=0.6)

    k = _linear(H, rng.standard_normal((D, D))) + 0.3 * rng.standard_normal((T + 1, D))
    keys = k.reshape(T + 1, HEADS, D_HEAD).transpose(1, 0, 2)

    k_last = _linear(H, rng.standard_normal((D, D))) + 0.3 * rng.standard_normal((T + 1, D))
    q_last = _linear(H, rng.standard_normal((D, D))) + 0.3 * rng.standard_normal((T + 1, D))
    u = rng.standard_normal(D)
    u /= np.sqrt((u * u).sum())
    k_last[1:] += 1.5 * _field(rng)[:, None] * u
    along = np.einsum("ij,j->i", k_last[1:], u)
    q_last[0] = u * (0.9 * np.sqrt(D) / along.std())

    e = _linear(patches, rng.standard_normal((D, D_PROJ)))
    E = np.where(e > 0, e, 0.3 * e) + 0.2 * rng.standard_normal((T, D_PROJ))

    text_cos = 0.2 + 0.05 * _field(rng) + 0.02 * rng.standard_normal(T)

    rng = np.random.default_rng([20260103, KINDS.index(kind), seed, crop])
    e = _linear(patches, rng.standard_normal((D, D_WIDE)))
    E_wide = np.where(e > 0, e, 0.3 * e) + 0.2 * rng.standard_normal((T, D_WIDE))

    out = {"H": H, "attn": attn, "keys": keys, "q_last": q_last, "k_last": k_last, "attn0": attn0}
    out.update(E=E, E_wide=E_wide, text_cos=text_cos)
    return {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in out.items()}


def make_llm_case(kind, seed):
    """Decoder-side arrays of one prompt of L = SYS + T + TEXT = 651 tokens.

    h          (651, 48)       hidden states; rows SYS .. SYS+575 are E of make_case(kind, seed)
    k          (4, 651, 12)    keys of the layer before the pruned one, per head
    attn_text  (4, 40, 651)    attention rows of the TEXT last tokens (causal, softmax)
    """
    E = make_case(kind, seed)["E"].astype(np.float64)
    rng = np.random.default_rng([20260102, KINDS.index(kind), seed])
    L = SYS + T + TEXT
    topic = E[rng.integers(0, T, size=TEXT)]
    text = 0.6 * topic + 0.8 * rng.standard_normal((TEXT, D_PROJ))
    h = np.concatenate([rng.standard_normal((SYS, D_PROJ)), E, text])
    k = _linear(h, rng.standard_normal((D_PROJ, D_PROJ))) + 0.5 * rng.standard_normal((L, D_PROJ))
    k = k.reshape(L, HEADS, D_PROJ // HEADS).transpose(1, 0, 2)
    logits = 0.6 * rng.standard_normal((HEADS, TEXT, L))
    logits[:, :, SYS : SYS + T] += 0.7 * _field(rng) + 0.3 * rng.standard_normal((TEXT, T))
    logits[:, :, :SYS] += 1.0
    cols = np.arange(L)[None, :]
    rows = (SYS + T + np.arange(TEXT))[:, None]
    logits = np.where(cols <= rows, logits, -np.inf)
    out = {"h": h, "k": k, "attn_text": _softmax(logits)}
    return {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in out.items()}


def make_text_attention(kind, seed, stage, n_vis):
    """Softmax rows (4, 40, SYS + n_vis + TEXT) of the text tokens once n_vis visual tokens are left.

    Used for the second and third pruning layer of SparseVLM (stage 1 and 2); stage 0 uses attn_text.
    """
    rng = np.random.default_rng([20260104, KINDS.index(kind), seed, stage, n_vis])
    L = SYS + n_vis + TEXT
    logits = 0.6 * rng.standard_normal((HEADS, TEXT, L)) + 0.7 * rng.standard_normal(L)
    cols = np.arange(L)[None, :]
    rows = (SYS + n_vis + np.arange(TEXT))[:, None]
    return np.ascontiguousarray(_softmax(np.where(cols <= rows, logits, -np.inf)), dtype=np.float32)


def digests(case):
    """sha256 (first 16 hex digits) of every array's little-endian float32 bytes."""
    return {
        n: hashlib.sha256(a.astype("<f4").tobytes()).hexdigest()[:16]
        for n, a in sorted(case.items())
    }


if __name__ == "__main__":
    for kind in KINDS:
        for seed in SEEDS:
            print(kind, seed, digests(make_case(kind, seed)), digests(make_llm_case(kind, seed)))
