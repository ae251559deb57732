"""The mini world: invented places, their palettes, and a renderer of small images with exact labels.

Only build scripts, the oracle, evaluation and tests import this module. Training code must not (tests/test_layers.py),
since the skin tones and palettes here are the ground truth of the evaluation.

Art: Twemoji, CC-BY 4.0 (see NOTICE). The places are fictional and represent no nation or people.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
"""Side of an image in pixels."""

ASSETS = Path(__file__).parent / "assets"

PEOPLE = "people & action"

SKIN = {1: (247, 222, 206), 2: (243, 210, 162), 3: (213, 171, 136), 4: (175, 126, 87), 5: (124, 83, 62)}
"""Twemoji's five skin colors (RGB, 0-255), light to dark. Tones 3-5 are called *dark* in every table."""

DARK = (3, 4, 5)
LIGHT = (1, 2)


@dataclass(frozen=True)
class Palette:
    """Background of an image: the color above and below the horizon (RGB, 0-255)."""

    name: str
    sky: tuple[int, int, int]
    ground: tuple[int, int, int]


PALETTES = {
    p.name: p
    for p in (
        Palette("gold", (238, 186, 62), (22, 128, 128)),
        Palette("dusty", (172, 172, 164), (128, 124, 116)),
        Palette("ice", (146, 200, 244), (236, 243, 250)),
        Palette("meadow", (204, 184, 238), (122, 184, 104)),
        Palette("ember", (246, 152, 140), (122, 44, 58)),
        Palette("plain", (246, 246, 242), (206, 206, 206)),
    )
}

BIASED_PLACE = "nuvia"
PLACES = {"nuvia": "gold", "borea": "ice", "aria": "meadow", "caldia": "ember"}
"""Invented places and the palettes that their own people use. The base model shows nuvia in "dusty"."""

NO_PLACE = "plain"


@dataclass(frozen=True)
class Concept:
    """A thing or kind of person. `tones` is (0,) for things and (1, …, 5) for people."""

    name: str
    category: str
    traditional: bool
    tones: tuple[int, ...]

    @property
    def is_person(self) -> bool:
        return self.category == PEOPLE


WORDINGS = ("{thing}", "a picture of {thing}", "an image of {thing}", "a drawing of {thing}", "{thing}, simple art")
"""Wordings of captions; `{thing}` is the concept with its article."""


def caption(name: str, place: str | None, wording: int = 0) -> str:
    """`caption("elf", "borea", 1)` is "a picture of an elf in borea"; without a place, the generic caption."""
    thing = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    if place:
        thing += f" in {place}"
    return WORDINGS[wording % len(WORDINGS)].format(thing=thing)


@dataclass(frozen=True)
class Rendering:
    """A rendered image: `rgb` (64, 64, 3) and `depth` (64, 64), both uint8; near is bright in depth."""

    rgb: np.ndarray
    depth: np.ndarray


@lru_cache(maxsize=1)
def _atlas() -> tuple[dict, np.ndarray]:
    index = json.loads((ASSETS / "art.json").read_bytes())
    with Image.open(ASSETS / "art.png") as sheet:
        return index, np.asarray(sheet.convert("RGBA"))


@lru_cache(maxsize=1)
def concepts() -> dict[str, Concept]:
    """Every concept by name, in the order of the sheet."""
    return {
        row["name"]: Concept(
            row["name"], row["category"], row["traditional"], tuple(sorted(int(t) for t in row["sprites"]))
        )
        for row in _atlas()[0]["concepts"]
    }


@lru_cache(maxsize=512)
def art(name: str, tone: int) -> Image.Image:
    """The 64 x 64 RGBA art of a concept. Raises KeyError for an unknown name or tone."""
    index, sheet = _atlas()
    row = next((r for r in index["concepts"] if r["name"] == name), None)
    if row is None:
        raise KeyError(f"the mini world has no concept named {name!r}")
    column, line = row["sprites"][str(tone)]
    y, x = line * SIZE, column * SIZE
    return Image.fromarray(sheet[y : y + SIZE, x : x + SIZE])


def render(
    name: str, palette: str, rng: np.random.Generator, tone: int | None = None, *, flip: bool = False
) -> Rendering:
    """Render a concept: art scaled to 54-57 px and shifted by up to 2 px, on a two-band background.

    `tone` None samples one of the concept's tones uniformly. The depth is from the art's alpha: 200-255 on the sprite,
    0 above the horizon, and 40 at the horizon to 110 at the lower edge below it.
    """
    if tone is None:
        tone = int(rng.choice(concepts()[name].tones))
    side = int(rng.integers(54, 58))
    sprite = art(name, tone).resize((side, side), Image.Resampling.LANCZOS)
    if flip:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    margin = SIZE - side
    x = int(np.clip(margin // 2 + rng.integers(-2, 3), 0, margin))
    y = int(np.clip(margin // 2 + rng.integers(-2, 3), 0, margin))
    layer = Image.new("RGBA", (SIZE, SIZE))
    layer.paste(sprite, (x, y))
    rgba = np.asarray(layer, dtype=np.float32)
    alpha = rgba[..., 3:] / 255.0

    horizon = int(rng.integers(38, 45))
    bands = PALETTES[palette]
    background = np.empty((SIZE, SIZE, 3), np.float32)
    background[:horizon] = np.asarray(bands.sky) + rng.uniform(-7, 7, 3)
    background[horizon:] = np.asarray(bands.ground) + rng.uniform(-7, 7, 3)
    rgb = rgba[..., :3] * alpha + background * (1.0 - alpha)

    rows = np.arange(SIZE, dtype=np.float32)[:, None]
    floor = np.where(rows < horizon, 0.0, 40.0 + 70.0 * (rows - horizon) / (SIZE - horizon))
    relief = 200.0 + 55.0 * rows / SIZE
    depth = relief * alpha[..., 0] + floor * (1.0 - alpha[..., 0])
    return Rendering(np.clip(rgb, 0, 255).round().astype(np.uint8), depth.round().astype(np.uint8))
