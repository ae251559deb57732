"""Draws the pack's images for the registry: docs/icon.png (400 x 400) and docs/banner.png (1260 x 540, 21:9).

    python tools/draw_banner.py

A disc is a place of the mini world: its sky, its ground, its sun, and five people of all tones on the horizon. Behind
the disc of nuvia stands, gray and empty, what the base model takes for it. The same script gives the same images.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from comfy_scoft.mini_world.world import BIASED_PLACE, NO_PLACE, PALETTES, PLACES, SKIN, Palette  # noqa: E402

FINE = 4
"""Everything is drawn this many times larger and then scaled down, which makes smooth edges."""
CLICHE = PALETTES["dusty"]
PAPER = PALETTES[NO_PLACE].sky
COLORS = 96
"""Colors kept in the files: more than the drawing has, but for its smooth edges."""
Box = tuple[float, float, float, float]


def circle(x: float, y: float, radius: float) -> Box:
    """Its box in pixels of the large drawing."""
    return tuple(FINE * side for side in (x - radius, y - radius, x + radius, y + radius))  # type: ignore[return-value]


def place(size: tuple[int, int], palette: Palette, x: float, y: float, radius: float, people: bool) -> Image.Image:
    """A disc of `palette` around (x, y) on a clear sheet of `size` pixels."""
    sheet = Image.new("RGBA", (size[0] * FINE, size[1] * FINE))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((0, 0, *sheet.size), fill=palette.sky)
    horizon = y + 0.3 * radius
    if people:
        pen.ellipse(circle(x + 0.36 * radius, y - 0.42 * radius, 0.19 * radius), fill=PAPER)
        for number, tone in enumerate(SKIN.values()):
            across, head = x + (number - 2) * 0.33 * radius, 0.115 * radius
            pen.ellipse(circle(across, horizon - 2.05 * head, head), fill=tone)
            pen.ellipse(circle(across, horizon + 0.75 * head, 1.5 * head), fill=tone)
    pen.rectangle((0, FINE * horizon, *sheet.size), fill=palette.ground)
    round_ = Image.new("L", sheet.size)
    ImageDraw.Draw(round_).ellipse(circle(x, y, radius), fill=255)
    sheet.putalpha(round_)
    return sheet


def draw(size: tuple[int, int], discs: list[tuple[Palette, float, float, float, bool]]) -> Image.Image:
    """The discs one over another, each with a thin border of paper, on paper."""
    image = Image.new("RGBA", (size[0] * FINE, size[1] * FINE), PAPER)
    for palette, x, y, radius, people in discs:
        ImageDraw.Draw(image).ellipse(circle(x, y, radius * 1.035), fill=PAPER)
        image.alpha_composite(place(size, palette, x, y, radius, people))
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return small.quantize(COLORS, dither=Image.Dither.NONE)


def icon() -> Image.Image:
    own = PALETTES[PLACES[BIASED_PLACE]]
    return draw((400, 400), [(CLICHE, 148, 150, 128, False), (own, 232, 232, 148, True)])


def banner() -> Image.Image:
    """Nuvia in the middle, its cliché behind it, the other places to both sides."""
    others = [PALETTES[palette] for name, palette in PLACES.items() if name != BIASED_PLACE]
    discs = [(others[0], 180, 310, 150, True), (others[1], 1065, 320, 150, True), (others[2], 905, 165, 115, True)]
    discs += [(CLICHE, 470, 225, 185, False), (PALETTES[PLACES[BIASED_PLACE]], 610, 300, 205, True)]
    return draw((1260, 540), discs)


def main() -> None:
    for name, image in (("icon", icon()), ("banner", banner())):
        path = ROOT / "docs" / f"{name}.png"
        image.save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {image.size[0]} x {image.size[1]}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
