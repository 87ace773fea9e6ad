"""Inputs are sorted into batches of like length, but only within blocks of a few batches.

What shares a batch decides the last bits of an answer. So a benchmark that is cut between blocks has
the same answers, bit for bit, as one that is not cut.
"""

BATCHES = 8


def block_size(batch_size: int) -> int:
    """Inputs of a block."""
    return BATCHES * batch_size
