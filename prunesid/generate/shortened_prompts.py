"""Batches of prompts shortened to the visual tokens that are kept.

A batch is (B, S) token ids with a mask of the real ones, padded on one side. A medium is a run of
placeholders in its prompt, one for every token that enters the language model. A medium with text
between its parts is one run per part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """The placeholders of one medium: `width` columns of row `row` from column `start` on.

    `number` counts the media of its `kind` in the whole batch.
    """

    row: int
    start: int
    width: int
    kind: str
    number: int


def find_runs(
    ids: Tensor,
    mask: Tensor,
    placeholders: Mapping[str, int],
    widths: Mapping[str, Sequence[int]],
) -> list[Run]:
    """The media of a batch in order, row by row.

    ids           (B, S) int64 token ids
    mask          (B, S) true for real tokens
    placeholders  {kind: the token that stands for it}
    widths        {kind: tokens of each medium of the whole batch}

    ValueError unless the prompts hold exactly these placeholders.
    """
    kinds = {token: kind for kind, token in placeholders.items()}
    met = dict.fromkeys(placeholders, 0)
    found = []
    for row, (tokens, real) in enumerate(zip(ids.tolist(), mask.tolist(), strict=True)):
        column = 0
        while column < len(tokens):
            kind = kinds.get(tokens[column]) if real[column] else None
            if kind is None:
                column += 1
                continue
            number, token = met[kind], tokens[column]
            given = widths.get(kind, ())
            if number >= len(given):
                raise ValueError(
                    f"prompt {row} has a placeholder for {kind} {number}, but the inputs hold "
                    f"{len(given)} of this kind"
                )
            width = given[number]
            run = tokens[column : column + width]
            if run != [token] * width:
                there = next((n for n, other in enumerate(run) if other != token), len(run))
                raise ValueError(
                    f"{kind} {number} enters the model as {width} tokens, but prompt {row} has "
                    f"{there} placeholders for it in a row; make the inputs with the model's own "
                    "processor"
                )
            found.append(Run(row, column, width, kind, number))
            met[kind] += 1
            column += width
    for kind, given in widths.items():
        if met.get(kind, 0) != len(given):
            raise ValueError(
                f"the inputs hold {len(given)} media of the kind {kind}, the prompts have "
                f"placeholders for {met.get(kind, 0)}"
            )
    return found


def padding_side(mask: Tensor) -> str:
    """The side of the padding, "left" or "right"; "left" without padding.

    ValueError on padding on both sides or inside a prompt.
    """
    real = mask.bool()
    if not bool(real.any(dim=1).all()):
        raise ValueError("attention_mask leaves a prompt without tokens")
    steps = real.int().diff(dim=1)
    if bool((steps >= 0).all()):
        return "left"
    if bool((steps <= 0).all()):
        return "right"
    raise ValueError("attention_mask pads on both sides or inside a prompt; pad on one side")


@dataclass(frozen=True)
class Shortened:
    """Origin of the tokens of shortened prompts.

    columns  (B, S') int64 column of each token in the long batch, -1 for padding
    """

    columns: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, S') bool, true for real tokens."""
        return self.columns >= 0

    def take(self, values: Tensor, padding: int) -> Tensor:
        """(B, S) values of the long batch -> (B, S') of the short one."""
        columns = self.columns.to(values.device)
        return values.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, padding)

    def texts(self, runs: Sequence[Run], row: int) -> list[int]:
        """Numbers of text tokens around the media of a row, one more than there are media."""
        edges = [run for run in runs if run.row == row]
        kept = self.columns[row][self.mask[row]].tolist()
        lengths = []
        for run in edges:
            lengths.append(sum(1 for column in kept if column < run.start))
            kept = [column for column in kept if column >= run.start + run.width]
        return [*lengths, len(kept)]


def shorten(mask: Tensor, runs: Sequence[Run], counts: Sequence[int]) -> Shortened:
    """Prompts in which run i takes `counts[i]` tokens, padded on the side of the original ones."""
    side = padding_side(mask)
    rows = []
    for row, real in enumerate(mask.bool().tolist()):
        own = [(run, count) for run, count in zip(runs, counts, strict=True) if run.row == row]
        columns, start = [], 0
        for run, count in own:
            columns += [column for column in range(start, run.start) if real[column]]
            # A medium may enter as more tokens than before; all are the same placeholder.
            columns += [run.start + min(place, run.width - 1) for place in range(count)]
            start = run.start + run.width
        rows.append(columns + [column for column in range(start, len(real)) if real[column]])
    width = max(map(len, rows))
    padded = [
        [-1] * (width - len(row)) + row if side == "left" else row + [-1] * (width - len(row))
        for row in rows
    ]
    return Shortened(torch.tensor(padded))
