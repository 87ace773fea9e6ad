"""How methods treat an image that comes as a base crop and sub-crops (LLaVA-NeXT), and a clip.

The authors' implementations differ in five respects: the candidates of one choice, the order in
which tokens enter the language model, padding, newlines, and the image that a budget is meant for.
A method declares what its authors do (`prunesid.methods.features.register(crops=...)`). The options
of the model's family override this declaration for all methods at once.

The frames of a clip (Video-LLaVA) are treated alike by all methods, by the options in `FRAMES`:

scope      "frame": every frame gets its share of the budget. "clip": one choice among the patches
           of all frames
frame_cls  "keep": the CLS token of every frame enters with its patches and takes one place of the
           frame's budget. "drop": CLS tokens enter only if all patches of the clip are kept
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prunesid.core.parameters import Param

BY_CROP, BY_IMAGE, PACKED = "crop", "image", "packed"
BY_FRAME, BY_CLIP = "frame", "clip"
METHOD, MAP = "method", "map"
DROP, ROWS, KEEP = "drop", "rows", "keep"
NEVER, BEFORE, AFTER = "never", "before", "after"
FULL, EVERY = "full", "image"

CHOICES: Mapping[str, tuple[str, ...]] = {
    "scope": (BY_CROP, BY_IMAGE, PACKED),
    "crop_order": (METHOD, MAP),
    "newline": (DROP, ROWS),
    "unpad": (NEVER, BEFORE, AFTER),
    "budget_for": (FULL, EVERY),
}
# The options that a user may set; None: as the authors of each method do.
OPTIONS: Mapping[str, Param] = {name: Param(None, str, own) for name, own in CHOICES.items()}
SCOPE, FRAME_CLS = "scope", "frame_cls"
FRAMES: Mapping[str, tuple[str, ...]] = {SCOPE: (BY_FRAME, BY_CLIP), FRAME_CLS: (DROP, KEEP)}
# The options that one arm may set differently from the model, for images and clips.
OF_ARMS: Mapping[str, tuple[str, ...]] = {
    name: (*CHOICES.get(name, ()), *FRAMES.get(name, ())) for name in (*CHOICES, FRAME_CLS)
}


@dataclass(frozen=True)
class Crops:
    """The treatment of an image in crops.

    The map is the grid of the sub-crops' patches side by side, in raster order over the whole.

    scope       the candidates of one choice. "crop": the patches of one crop. "image": the patches
                of the base crop, then those of the map. "packed": the sequence that enters the
                unmodified model, without padding and with a newline embedding after each map row
    crop_order  the order of the output. "method": as the method sends tokens, crop after crop if
                each crop is a choice of its own. "map": first the base crop's tokens in the
                method's order, then the sub-crops' patches in map order, their CLS tokens, and
                merged tokens
    newline     "drop": no newline embeddings except those that a packed sequence keeps. "rows": one
                after each row of the map that holds a token
    unpad       "never": patches of the padding count like others. "before": they cannot be chosen.
                "after": they are dropped after the choice
    budget_for  "full": the budget is for an image of the most crops; a smaller image gets its share
                (by crops, or by length if packed). "image": every image gets the whole budget

    The defaults are what most authors do (FasterVLM, VisionZip, PruneSID, VisPruner, CDPruner).
    """

    scope: str = BY_CROP
    crop_order: str = MAP
    newline: str = DROP
    unpad: str = NEVER
    budget_for: str = FULL

    def under(self, chosen: Mapping[str, Any]) -> Crops:
        """This treatment with the options that a user chose; None and options of clips are ignored.

        newline="rows" implies crop_order="map". Any choice of newline turns scope="packed" into
        "image"; otherwise scope="packed" implies unpad="before". ValueError if the user chose both
        a newline and scope="packed".
        """
        given = {name: own for name, own in chosen.items() if own in CHOICES.get(name, ())}
        if given.get("scope") == PACKED and "newline" in given:
            raise ValueError(
                f"newline={given['newline']!r}: with scope='packed' newlines are chosen like other "
                "tokens; leave newline out or take scope='image'"
            )
        found = replace(self, **given)
        if found.newline == ROWS:
            found = replace(found, crop_order=MAP)
        if found.scope == PACKED and "newline" in given:
            return replace(found, scope=BY_IMAGE)
        return replace(found, unpad=BEFORE) if found.scope == PACKED else found


# No authors ran methods inside the encoder on crops. Merged tokens have no place in the map.
ENCODER = Crops(crop_order=METHOD)
