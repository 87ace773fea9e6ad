"""Rectangles of patches."""

from __future__ import annotations

from dataclasses import dataclass

from prunesid.core.delayed import Tensor, torch


@dataclass(frozen=True)
class Box:
    """A rectangle of patches: rows top..bottom-1 and columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def size(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def values(self) -> list[int]:
        """Top, left, bottom and right, as a layout stores them."""
        return [self.top, self.left, self.bottom, self.right]

    def within(self, other: Box) -> Box:
        """The part of this box inside another, counted from the other's corner; may be empty."""
        rows, columns = other.grid
        top, bottom = (min(max(at - other.top, 0), rows) for at in (self.top, self.bottom))
        left, right = (min(max(at - other.left, 0), columns) for at in (self.left, self.right))
        return Box(top, left, bottom, right)

    def moved(self, rows: int, columns: int) -> Box:
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def patches(self, columns: int) -> Tensor:
        """(n,) int64 numbers of its patches in a grid of so many columns, in raster order."""
        rows = torch.arange(self.top, self.bottom)[:, None]
        return (rows * columns + torch.arange(self.left, self.right)).flatten()

    def scaled(self, side: int, to: int) -> Box:
        """The patches of a to x to grid that show any part of this box of a side x side grid."""
        first = (at * to // side for at in (self.top, self.left))
        last = (-(-at * to // side) for at in (self.bottom, self.right))
        return Box(*first, *last)

    def holds(self, cells: Tensor) -> Tensor:
        """(n,) bool: true for cells (n, 2), row and column, that lie in this box."""
        low, high = cells.new_tensor([[self.top, self.left], [self.bottom, self.right]])
        inside: Tensor = ((cells >= low) & (cells < high)).all(dim=1)
        return inside
