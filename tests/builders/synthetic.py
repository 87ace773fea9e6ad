"""Small synthetic vision records."""

import torch

from prunesid import VisionRecord

KINDS = ("random", "clustered", "duplicated", "identical", "zero", "flat", "saturated")


def features(kind, images, tokens, channels, seed):
    """(images, tokens, channels) float32 of one of KINDS."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    if kind == "random":
        return normal(images, tokens, channels) + 0.5 * normal(images, 1, channels)
    if kind in ("clustered", "duplicated"):
        centers = normal(images, 4, channels)
        member = torch.randint(4, (images, tokens), generator=generator)
        x = centers.gather(1, member[:, :, None].expand(-1, -1, channels))
        return x + (0.2 * normal(images, tokens, channels) if kind == "clustered" else 0)
    if kind == "identical":
        return normal(images, 1, channels).expand(-1, tokens, -1).contiguous()
    if kind == "flat":
        return normal(images, tokens, 1).expand(-1, -1, channels).contiguous()
    if kind == "saturated":
        return 1000 * normal(images, tokens, channels)
    return torch.zeros(images, tokens, channels)


def chain(tokens):
    """(1, tokens, tokens + 1): each token's cosine to its neighbors is 0.5, and 0 to all others."""
    return torch.eye(tokens, tokens + 1)[None] + torch.eye(tokens + 1)[None, 1:]


def record(kind="random", images=2, tokens=24, channels=16, seed=0, grid=None):
    """A record with CLS, CLS attention of 3 heads, and hidden features of block 1."""
    generator = torch.Generator().manual_seed(seed + 1)
    return VisionRecord(
        features(kind, images, tokens, channels, seed),
        cls=torch.randn((images, channels), generator=generator),
        cls_attention=torch.rand((images, 3, tokens), generator=generator).softmax(-1),
        hidden={1: torch.randn((images, tokens, channels), generator=generator)},
        grid=grid,
        image_ids=tuple(f"{seed}-{i}" for i in range(images)),
    )
