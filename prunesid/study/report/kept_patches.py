"""The patches that an arm keeps of real images, colored by group (after figures 1d and 3)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prunesid.images import patches
from prunesid.images.patches import FADE, MERGED, TINT
from prunesid.study.files.scenes import KeptPatches, Scene
from prunesid.study.report import panels, theme

COLUMN = 0.98
DOTS = 300
LETTERS = 14


def kept_points(scenes: Sequence[Scene]) -> pd.DataFrame:
    """A line per kept patch: image_id, phi, arm, patch (raster order), row, column, group, merged.

    The group of the center of a merged token is the number of that token. `merged` says that it is
    no kept patch but such a center.
    """
    lines = [
        {
            "image_id": scene.image_id, "phi": scene.phi, "arm": kept.label, "patch": patch,
            "row": patch // scene.grid[1], "column": patch % scene.grid[1],
            "group": "" if (group := _group(kept, patch)) < 0 else group, "merged": merged,
            "question": scene.question,
        }
        for scene in scenes for kept in scene.kept for patch, merged in _patches(kept)
    ]  # fmt: skip
    return pd.DataFrame(lines)


@theme.style()
def draw(scenes: Sequence[Scene]) -> Figure:
    """A row per image: the image, then what each arm keeps of it."""
    labels = [theme.wrap(kept.label, LETTERS) for kept in scenes[0].kept]
    across = 1 + len(labels)
    heads = 0.18 * max((label.count("\n") + 1 for label in labels), default=1)
    drawn = theme.figure(COLUMN * across + 0.15, COLUMN * 1.02 * len(scenes) + heads + 0.45)
    room = dict.fromkeys(("w_pad", "h_pad", "wspace", "hspace"), 0.02)
    drawn.set_layout_engine("constrained", **room)
    axes = drawn.subplots(len(scenes), across, squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        row[0].imshow(scene.pixels, interpolation="lanczos")
        row[0].set_ylabel(f"φ = {scene.phi:.2f}", labelpad=3)
        if scene.question:
            row[0].set_xlabel(theme.wrap(scene.question, LETTERS), fontsize=theme.SMALL)
        for ax, kept in zip(row[1:], scene.kept, strict=True):
            _draw_kept(ax, scene, kept)
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
    for ax, label in zip(axes[0], ["image", *labels], strict=True):
        ax.set_title(label, loc="center", fontsize=7.5, fontweight="bold")
    panels.note(
        drawn,
        "Kept patches in full, framed in the color of their group (black: the method has no "
        "groups); the others faded, with a trace of that color. Groups of two arms share colors "
        "only where the grouping is the same.",
        "Orange: no kept patch, but the center of a merged token. Faded patches that go into one "
        "token have one color, where it is known which they are."
        if any(len(kept.centers) for scene in scenes for kept in scene.kept)
        else "",
        "φ: information score; the images stand at evenly spaced ranks of it.",
        "Below an image the question by which arms choose that choose by image and question."
        if any(scene.question for scene in scenes)
        else "",
    )
    return drawn


def group_color(group: int) -> tuple[float, float, float]:
    """A color per group number, as matplotlib takes it."""
    red, green, blue = (part / 255 for part in patches.group_color(group))
    return red, green, blue


def write_kept_patches(scenes: Sequence[Scene], paths: Sequence[Path]) -> None:
    """Write the picture to every path by its suffix: .pdf, .svg, .png, and .csv."""
    theme.write(draw(scenes), kept_points(scenes), paths, dots=DOTS)


def _group(kept: KeptPatches, patch: int) -> int:
    """Of a patch; -1 for none."""
    return -1 if kept.group is None else int(kept.group[patch])


def _patches(kept: KeptPatches) -> Iterator[tuple[int, bool]]:
    """The kept patches in raster order, then the centers of merged tokens."""
    yield from ((int(patch), False) for patch in sorted(kept.index[kept.index >= 0]))
    yield from ((int(patch), True) for patch in kept.centers)


def _draw_kept(ax: Axes, scene: Scene, kept: KeptPatches) -> None:
    rows, columns = scene.grid
    tall, wide = scene.pixels.shape[:2]
    height, width = tall / rows, wide / columns
    chosen = np.zeros(rows * columns, dtype=bool)
    chosen[kept.index[kept.index >= 0]] = True
    merged = np.isin(np.arange(len(chosen)), kept.centers)
    chosen |= merged
    within = np.arange(tall) * rows // tall, np.arange(wide) * columns // wide
    mask = chosen.reshape(rows, columns)[np.ix_(*within)]
    pixels = scene.pixels.astype(np.float64) / 255
    gray = (1 - FADE) * pixels.mean(axis=2, keepdims=True) + FADE
    if kept.group is not None:
        tints = np.array([group_color(int(group)) for group in kept.group])
        gray = (1 - TINT) * gray + TINT * tints.reshape(rows, columns, 3)[np.ix_(*within)]
    ax.imshow(np.where(mask[..., None], pixels, gray), interpolation="lanczos")
    frames, colors = [], []
    for place in np.flatnonzero(chosen):
        corner = place % columns * width - 0.5, place // columns * height - 0.5
        frames.append(Rectangle(corner, width, height))
        group = _group(kept, int(place))
        if merged[place] or group < 0:
            colors.append(to_rgb(MERGED if merged[place] else theme.INK))
        else:
            colors.append(group_color(group))
    ax.add_collection(PatchCollection(frames, facecolor="none", edgecolor=colors, linewidth=0.9))
    ax.set(xlim=(-0.5, wide - 0.5), ylim=(tall - 0.5, -0.5))
