"""The figures that the paper publishes (Liu et al., CVPR 2024): Tables 1, 2 and 4, to stand beside one's own.

The four average ranks of Table 1 are in the order of the survey's items (Section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Row = Mapping[str, float]

KID_OWN, KID_GENERIC, CLIP_SCORE = "KID-CCUB", "KID-COCO", "CLIPScore"
AUTOMATIC = (KID_OWN, KID_GENERIC, CLIP_SCORE)
ITEMS = ("alignment", "representation", "stereotypes", "offensiveness")
"""The survey's items, by the ids of survey/items.py."""
MEMORY = ("CLIP-I", "DINO", "DreamSim", "DIV train", "DIV test", CLIP_SCORE)
CULTURES = {
    "CN": ("china", "chinese"),
    "KR": ("korea", "south korea", "korean"),
    "NG": ("nigeria", "nigerian"),
    "IN": ("india", "indian"),
    "MX": ("mexico", "mexican"),
}
"""The columns of Table 4, and the names under which a culture is known to be one of them."""


def _rows(columns: Sequence[str], **rows: tuple[float, ...]) -> dict[str, Row]:
    """Arm's name -> column -> value. rows: by the beginning of the arm's name."""
    names = {"SD": "Stable Diffusion", "Finetune": "Finetune", "M": "SCoFT+M", "MP": "SCoFT+MP", "MPC": "SCoFT+MPC"}
    return {names[name]: dict(zip(columns, row, strict=True)) for name, row in rows.items()}


TABLE_1 = _rows(
    (*AUTOMATIC, *ITEMS),
    SD=(30.355, 4.396, 0.813, 3.09, 3.07, 2.98, 3.07),
    M=(22.643, 4.711, 0.802, 2.57, 2.56, 2.66, 2.59),
    MP=(21.360, 4.936, 0.800, 2.33, 2.35, 2.34, 2.30),
    MPC=(19.621, 4.819, 0.799, 1.83, 1.84, 1.91, 1.78),
)
TABLE_2 = _rows(
    MEMORY,
    Finetune=(0.912, 0.836, 0.591, 0.302, 0.317, 0.824),
    M=(0.897, 0.808, 0.550, 0.356, 0.379, 0.814),
)
TABLE_4 = {
    KID_OWN: _rows(
        tuple(CULTURES),
        SD=(25.244, 28.061, 32.687, 39.988, 25.796),
        M=(18.798, 24.118, 24.539, 20.566, 25.196),
        MP=(15.895, 23.007, 25.638, 19.799, 22.462),
        MPC=(14.667, 17.413, 23.261, 18.342, 24.424),
    ),
    KID_GENERIC: _rows(
        tuple(CULTURES),
        SD=(4.396, 4.396, 4.396, 4.396, 4.396),
        M=(4.890, 4.497, 4.461, 5.342, 4.364),
        MP=(5.090, 4.403, 5.135, 5.112, 4.941),
        MPC=(5.102, 4.222, 4.987, 5.457, 4.325),
    ),
    CLIP_SCORE: _rows(
        tuple(CULTURES),
        SD=(0.827, 0.844, 0.799, 0.773, 0.819),
        M=(0.804, 0.832, 0.792, 0.757, 0.825),
        MP=(0.798, 0.836, 0.792, 0.753, 0.8232),
        MPC=(0.793, 0.825, 0.795, 0.753, 0.829),
    ),
}


def code(culture: str) -> str:
    """The column of Table 4 that a culture's name stands for; "" for one that the paper's table lacks."""
    name = " ".join(culture.casefold().split())
    return next((key for key, names in CULTURES.items() if name in (*names, key.casefold())), "")
