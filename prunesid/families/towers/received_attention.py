"""Attention that tokens receive: their importance in a tower without a CLS token."""

from __future__ import annotations

import torch
from torch import Tensor

# Scores (heads, queries, tokens) in memory at a time: 256 MiB in float32.
SCORES = 2**26


@torch.no_grad()
def received_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Queries and keys (B, heads, T, d), as attention multiplies them -> (B, heads, T) float32.

    The column means of softmax(q k^T scale): the share of a query's attention that goes to each
    token, on average over the T queries. They sum to 1 in each head, as a CLS row over all tokens
    does. Images are taken one by one and in chunks of queries, so that neither changes with the
    batch.
    """
    images, heads, tokens, _ = query.shape
    total = torch.zeros((images, heads, tokens), dtype=torch.float32, device=query.device)
    step = max(1, SCORES // (heads * tokens))
    for image in range(images):
        turned = key[image].transpose(-1, -2)
        for start in range(0, tokens, step):
            scores = query[image, :, start : start + step] @ turned * scale
            total[image] += scores.softmax(-1, dtype=torch.float32).sum(dim=1)
    return total / tokens
