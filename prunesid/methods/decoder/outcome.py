"""Checks of what a late method chooses between two layers, for all prompts of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence

from prunesid.core.delayed import torch
from prunesid.core.faults import MethodError
from prunesid.methods.decoder.schedule import Choice
from prunesid.methods.decoder.view import View
from prunesid.methods.outcome import form


def check_choices(
    choices: Sequence[Choice], views: Sequence[View], leaves: Sequence[int | None]
) -> None:
    """MethodError for a prompt whose `Choice` no stage may make.

    leaves  `Stage.leaves` for each prompt

    Waits for the device once.
    """
    flags = []
    for row, (choice, view, wanted) in enumerate(zip(choices, views, leaves, strict=True)):
        if not isinstance(choice, Choice):
            raise MethodError(f"it returned a {type(choice).__name__}, not a Choice", row)
        keep, merged = choice.keep, choice.merged
        if keep.ndim != 1 or keep.dtype != torch.int64:
            raise MethodError(f"its keep is {form(keep)}, not (k,) of int64", row)
        width = view.tokens.shape[1]
        if merged is not None and (merged.ndim != 2 or merged.shape[1] != width):
            raise MethodError(
                f"merged tokens are {tuple(merged.shape)}, not (m, {width}): make them of "
                "View.tokens, which hold what later layers add",
                row,
            )
        left = len(keep) + (0 if merged is None else len(merged))
        if wanted is not None and left != wanted:
            raise MethodError(f"it leaves {left} tokens, not {wanted}", row)
        outside = (keep < 0) | (keep >= len(view.source))
        finite = outside.new_ones(()) if merged is None else merged.isfinite().all()
        flags.append(
            torch.stack(
                [
                    outside.any(),
                    (keep[1:] <= keep[:-1]).any(),
                    ~finite & view.tokens.isfinite().all(),
                ]
            )
        )
    wrong = torch.stack(flags)
    if not bool(wrong.any()):
        return
    row = int(wrong.any(dim=1).nonzero()[0])
    raise MethodError(
        (
            f"it keeps a token outside of the {len(views[row].source)} that are there",
            "its keep does not ascend, or has a token twice",
            "merged tokens hold NaN or infinite values, which the hidden states do not",
        )[int(wrong[row].nonzero()[0])],
        row,
    )
