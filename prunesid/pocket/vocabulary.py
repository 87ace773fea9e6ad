"""The words of the pocket world, and the word-level tokenizer made of them."""

from __future__ import annotations

from collections.abc import Iterable

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond")
COLORS = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 214),
    "yellow": (240, 220, 40),
    "purple": (126, 40, 170),
    "orange": (244, 132, 20),
    "cyan": (40, 200, 220),
    "pink": (250, 130, 190),
}
COLOR_NAMES = tuple(COLORS)
BACKGROUNDS = ("plain", "gradient", "noise", "blobs", "stripes")
# A-D name the options of multiple-choice questions, so codes do not use them. These glyphs differ
# clearly at 26 px.
CHARACTERS = tuple("EFHKLNPRTXYZ2457")
OPTIONS = tuple("ABCD")
NUMBERS = ("one", "two", "three", "four")
ORDINALS = ("first", "second", "third")
DIRECTIONS = ("left", "right", "up", "down")
PLACES = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)  # of a table's cells
RANKS = {"bars": ("shortest", "tallest"), "pie": ("smallest", "biggest")}
BINS = 6
ROWS = tuple(f"row{i}" for i in range(BINS))
COLUMNS = tuple(f"col{i}" for i in range(BINS))

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:")
_PLURALS = tuple(f"{shape}{'es' if shape == 'cross' else 's'}" for shape in SHAPES)
_WORDS = [
    "yes",
    "no",
    "is",
    "there",
    "a",
    "the",
    "are",
    "of",
    "on",
    "at",
    "in",
    "what",
    "which",
    "where",
    "how",
    "many",
    "color",
    "shape",
    "object",
    "objects",
    "left",
    "right",
    "above",
    "below",
    "or",
    "top",
    "bottom",
    "middle",
    "background",
    "printed",
    "code",
    "character",
    "bar",
    "slice",
    "tallest",
    "shortest",
    "biggest",
    "smallest",
    "cell",
    "arrow",
    "point",
    "way",
    "does",
    "do",
    "arrows",
    "center",
    "side",
    "?",
    ",",
    "up",
    "down",
]
# Qwen2-VL's marks of media, and what is asked about images that it sees.
_QWEN_WORDS = (
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "corner",
)
_VIDEO_WORDS = (
    *("<video>", "move", "moves", "appear", "appears", "vanish", "vanishes"),
    *("before", "after", "last", "time", "times"),
)


def plural(shape: str) -> str:
    """The plural of a shape or of `object`, as the vocabulary spells it."""
    return shape + ("es" if shape == "cross" else "s")


def words() -> list[str]:
    """Every token, in id order; the seven special ones first."""
    ordered = (
        *_SPECIAL, *SHAPES, *_PLURALS, *COLOR_NAMES, *BACKGROUNDS, *CHARACTERS, *OPTIONS,
        *NUMBERS, *ORDINALS, *ROWS, *COLUMNS, *_WORDS,
    )  # fmt: skip
    return list(dict.fromkeys(ordered))


def video_words() -> list[str]:
    """Every token of a model that answers about clips, in id order: `words()` first."""
    return [*words(), *_VIDEO_WORDS]


def qwen_words() -> list[str]:
    """Every token of a model of Qwen2-VL's kind, in id order: `video_words()` first."""
    return [*video_words(), *_QWEN_WORDS]


_ID = {word: number for number, word in enumerate(qwen_words())}


def ids(names: Iterable[str]) -> list[int]:
    """The token ids of words."""
    return [_ID[name] for name in names]
