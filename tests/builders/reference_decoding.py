"""Greedy decoding, written plainly."""

from __future__ import annotations

import torch


@torch.no_grad()
def slow_greedy(model, texts, media, ends, length):
    """Ids of an answer by a transformers model that sees the whole sequence again for every token.

    texts  token ids around the media, one text more than media
    media  embeddings (N, E) of each
    """
    embed = model.get_input_embeddings()
    parts = [embed(torch.tensor(texts[0], dtype=torch.int64))]
    for medium, text in zip(media, texts[1:], strict=True):
        parts += [medium, embed(torch.tensor(text, dtype=torch.int64))]
    sequence, ids = torch.cat(parts)[None], []
    while len(ids) < length and not (ids and ids[-1] in ends):
        logits = model(inputs_embeds=sequence, use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        sequence = torch.cat([sequence, embed(torch.tensor([[ids[-1]]]))], dim=1)
    return ids
