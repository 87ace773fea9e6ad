"""How methods treat an image that comes as a base crop and sub-crops (LLaVA-NeXT).

Their authors' codes differ in it: in what one choice is among, in the order in which tokens enter the
language model, in padding, newlines, and in what a budget is meant for. A method declares what its
authors do (`prunesid.methods.features.register(crops=...)`), and a user may choose otherwise, for all methods
at once, by the options of the model's family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prunesid.core.parameters import Param

BY_CROP, BY_IMAGE, PACKED = "crop", "image", "packed"
METHOD, MAP = "method", "map"
DROP, ROWS = "drop", "rows"
NEVER, BEFORE, AFTER = "never", "before", "after"
FULL, EVERY = "full", "image"

CHOICES: Mapping[str, tuple[str, ...]] = {
    "scope": (BY_CROP, BY_IMAGE, PACKED),
    "crop_order": (METHOD, MAP),
    "newline": (DROP, ROWS),
    "unpad": (NEVER, BEFORE, AFTER),
    "budget_for": (FULL, EVERY),
}
# What a user may choose; None: as the authors of each method do.
OPTIONS: Mapping[str, Param] = {name: Param(None, str, own) for name, own in CHOICES.items()}


@dataclass(frozen=True)
class Crops:
    """What a method does with an image in crops.

    The map is the sub-crops' patches side by side, in raster order over all of it.

    scope       what one choice is among: the patches of one "crop"; those of the "image", the base
                crop's first, then the map's; or what the unmodified model would have entering,
                "packed": the same without padding, and a newline embedding after each row of the map
    crop_order  "method": as the method sends tokens, crop after crop where each is chosen from by
                itself; "map": the base crop's so, then patches in the order of the map, then the CLS
                tokens of the sub-crops, then merged ones
    newline     "drop": no newline embeddings but those that a packed sequence keeps; "rows": one
                after each row of the map that holds a token
    unpad       "never": patches of the padding are like others; "before": they cannot be chosen;
                "after": those that were chosen are dropped
    budget_for  "full": the budget is that of an image of the most crops, and a smaller one gets its
                part (by crops; a packed sequence by its length); "image": every image gets all of it

    The defaults are what most authors do (FasterVLM, VisionZip, PruneSID, VisPruner, CDPruner).
    """

    scope: str = BY_CROP
    crop_order: str = MAP
    newline: str = DROP
    unpad: str = NEVER
    budget_for: str = FULL

    def under(self, chosen: Mapping[str, Any]) -> Crops:
        """The same with what a user chose; None chooses nothing.

        Newlines in every row go with the order of the map, and a choice about newlines makes an image
        of a packed sequence. ValueError where both were chosen.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
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


# Methods inside the encoder have no authors who ran them so. Merged tokens have no place in the map.
ENCODER = Crops(crop_order=METHOD)
