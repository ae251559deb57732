"""Classifies images of the mini world by palette, concept and skin tone. It inverts the renderer; nothing is learned.

The background `b` is two flat bands whose colors are read off the border. A sprite with alpha `a` and color `c` gives
the image `a c + (1 - a) b`, so the concept is that of the sprite, size and position with the nearest rendering. A
coarse search compares all of them at 16 px, where the squared distance is four matrix products (with `b` in closed
form, so that the palette has no influence); a fine search over pixels decides among the best. The skin tone is the most
frequent of the five skin colors where the nearest kind of person has skin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from . import world

SIDES = tuple(range(52, 59))
"""Sizes of sprites in pixels."""

REACH = 4
"""Maximum shift of a sprite from the center in pixels: the renderer's 3, and 1 more for generated images."""

COARSE = 16
COARSE_SIDES = (53, 55, 57)
COARSE_SHIFTS = (-2, 0, 2)
BORDER = 4
SKY_ROWS = slice(0, 38)
GROUND_ROWS = slice(45, world.SIZE)
FINALISTS = 5
PEOPLE_FINALISTS = 2


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image. `tone` (1-5) and `dark` are meaningful only for prompts for a person."""

    tone: int
    dark: bool
    palette: str
    concept: str

    @property
    def house(self) -> str | None:
        """ "sound" or "derelict" for a house, None for anything else."""
        return {"house": "sound", "derelict house": "derelict"}.get(self.concept)


@dataclass(frozen=True)
class Pose:
    """A sprite in an image: its index, whether it is mirrored, its side and its shift from the center in pixels."""

    sprite: int
    flip: bool
    side: int
    dy: int
    dx: int


@dataclass(frozen=True)
class Fit:
    """The rendering of a concept that an image is nearest to: tone, pose, and on a canvas of 64 × 64 pixels its colors
    (3, 64, 64) on the image's own background and the sprite's alpha (64, 64), in [0, 1]."""

    tone: int
    pose: Pose
    rendering: Tensor
    alpha: Tensor


@lru_cache(maxsize=1)
def _sprites() -> tuple[tuple[str, int], ...]:
    """(concept, tone) of every sprite, in a fixed order."""
    return tuple((name, tone) for name, concept in world.concepts().items() for tone in concept.tones)


@lru_cache(maxsize=1)
def _people() -> Tensor:
    """(S,) bool: which sprites are people."""
    return torch.tensor([tone > 0 for _, tone in _sprites()])


@lru_cache(maxsize=1)
def _canvases() -> Tensor:
    """(S, sides, 4, 72, 72) uint8: every sprite at every size, centered, with a margin of REACH."""
    side_with_margin = world.SIZE + 2 * REACH
    out = np.zeros((len(_sprites()), len(SIDES), side_with_margin, side_with_margin, 4), np.uint8)
    for i, (name, tone) in enumerate(_sprites()):
        for j, side in enumerate(SIDES):
            at = (world.SIZE - side) // 2 + REACH
            image = world.art(name, tone).resize((side, side), Image.Resampling.LANCZOS)
            out[i, j, at : at + side, at : at + side] = np.asarray(image)
    return rearrange(torch.from_numpy(out), "sprite side h w c -> sprite side c h w").contiguous()


def _posed(canvas: Tensor, dy: int, dx: int, *, flip: bool) -> Tensor:
    """(..., 72, 72) -> (..., 64, 64): the content mirrored or not, then moved down by dy and right by dx."""
    canvas = canvas.flip(-1) if flip else canvas
    y, x = REACH - dy, REACH - dx
    return canvas[..., y : y + world.SIZE, x : x + world.SIZE]


def _layers(rgba: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 (N, 4, H, W) -> alpha (N, 1, H, W) in [0, 1] and alpha times color (N, 3, H, W) in [0, 1]."""
    value = rgba.float() / 255.0
    return value[:, 3:], value[:, :3] * value[:, 3:]


@lru_cache(maxsize=1)
def _coarse_bank() -> tuple[list[Pose], Tensor, Tensor, Tensor, Tensor]:
    """Poses of the coarse search and, at 16 px, p = a c, a, a p, and |p|^2, one row per pose; colors in [0, 1]."""
    poses, color, alpha = [], [], []
    sprites = range(len(_sprites()))
    for side, flip, dy, dx in product(COARSE_SIDES, (False, True), COARSE_SHIFTS, COARSE_SHIFTS):
        a, p = _layers(_posed(_canvases()[:, SIDES.index(side)], dy, dx, flip=flip))
        alpha.append(F.adaptive_avg_pool2d(a, COARSE))
        color.append(F.adaptive_avg_pool2d(p, COARSE))
        poses += [Pose(i, flip, side, dy, dx) for i in sprites]
    a, p = torch.cat(alpha), torch.cat(color)
    return poses, p.flatten(1), a.flatten(1), (a * p).flatten(1), p.flatten(1).square().sum(1)


def _coarse(pixels: Tensor, ground: Tensor) -> Tensor:
    """Squared distance (B, poses) between images and renderings at 16 px; pixels and background (B, 3, 64, 64).

    |x - p - (1 - a) b|^2 with y = x - b is |y|^2 - 2 <y, p> + 2 <y b, a> + |p|^2 - 2 <b, a p> + <b^2, a^2>.
    """
    _, p, a, ap, pp = _coarse_bank()
    b = F.adaptive_avg_pool2d(ground, COARSE)
    y = F.adaptive_avg_pool2d(pixels, COARSE) - b
    out = y.flatten(1).square().sum(1, keepdim=True) + pp
    out -= 2.0 * (y.flatten(1) @ p.t() - (y * b).sum(1).flatten(1) @ a.t() + b.flatten(1) @ ap.t())
    return out + b.square().sum(1).flatten(1) @ a.square().t()


def _palette(pixels: Tensor) -> tuple[list[str], Tensor]:
    """Palette of each image and its background (B, 3, 64, 64), from a border of 4 px; pixels in [0, 1].

    The nearest palette by mean distance; each pixel's distance is clipped at 1/3, so that sprites at the border have
    little influence.
    """
    inner = torch.zeros(world.SIZE, world.SIZE, dtype=torch.bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    sky, soil = pixels[:, :, SKY_ROWS][..., ~inner[SKY_ROWS]], pixels[:, :, GROUND_ROWS][..., ~inner[GROUND_ROWS]]
    bands = torch.tensor([[p.sky, p.ground] for p in world.PALETTES.values()]) / 255.0  # (P, 2, 3)

    def distance(part: Tensor, band: int) -> Tensor:  # (B, P, pixels)
        return (part[:, None] - bands[None, :, band, :, None]).square().sum(2).sqrt()

    above, below = distance(sky, 0), distance(soil, 1)
    best = (above.clamp(max=1 / 3).mean(2) + below.clamp(max=1 / 3).mean(2)).argmin(1)
    background = torch.empty_like(pixels)
    for i, winner in enumerate(best.tolist()):
        top = _band_color(sky[i], above[i, winner], bands[winner, 0])
        bottom = _band_color(soil[i], below[i, winner], bands[winner, 1])
        edge = torch.cat([pixels[i, :, :, :BORDER], pixels[i, :, :, -BORDER:]], 2)  # (3, 64, 8)
        nearer = [(edge - c[:, None, None]).abs().sum(0).sort(1).values[:, :BORDER].mean(1) for c in (top, bottom)]
        low = nearer[1] < nearer[0]
        low[SKY_ROWS], low[GROUND_ROWS] = False, True
        background[i] = torch.where(low[None, :, None], bottom[:, None, None], top[:, None, None])
    names = list(world.PALETTES)
    return [names[k] for k in best.tolist()], background


def _band_color(part: Tensor, distance: Tensor, color: Tensor) -> Tensor:
    """Median color (3,) of the half of the pixels (3, N) nearest to the palette's color; the latter if far from it."""
    median = part[:, distance <= distance.median()].median(1).values
    return median if (median - color).norm() < 1 / 3 else color


def _finalists(distance: Tensor, count: int, allowed: Tensor) -> list[Pose]:
    """The best pose, by one image's coarse distances, of each of the `count` nearest allowed sprites."""
    poses = _coarse_bank()[0]
    sprites = len(_sprites())
    table = distance.view(-1, sprites).masked_fill(~allowed, torch.inf)
    value, row = table.min(0)
    return [poses[int(row[i]) * sprites + int(i)] for i in value.topk(count, largest=False).indices]


def _fine(image: Tensor, ground: Tensor, start: Pose) -> tuple[float, Pose]:
    """Least mean absolute distance at 32 px over sizes and shifts near a coarse pose; image (3, 64, 64)."""
    best = (torch.inf, start)
    for _ in range(2):
        center = best[1]
        sides = sorted({min(max(center.side + d, SIDES[0]), SIDES[-1]) for d in (-1, 0, 1)})
        poses = [
            Pose(center.sprite, center.flip, side, dy, dx)
            for side in sides
            for dy in {max(-REACH, min(REACH, center.dy + d)) for d in (-1, 0, 1)}
            for dx in {max(-REACH, min(REACH, center.dx + d)) for d in (-1, 0, 1)}
        ]
        windows = [_posed(_canvases()[p.sprite, SIDES.index(p.side)], p.dy, p.dx, flip=p.flip) for p in poses]
        alpha, color = _layers(torch.stack(windows))
        apart = F.avg_pool2d(color + (1.0 - alpha) * ground - image, 2)  # pooled, to ignore blur
        distance = apart.abs().mean((1, 2, 3))
        k = int(distance.argmin())
        if float(distance[k]) < best[0]:
            best = (float(distance[k]), poses[k])
    return best


@lru_cache(maxsize=64)
def skin_of(name: str) -> Tensor:
    """(64, 64) bool: where the art of a kind of person has the skin color in all five tones."""
    mask = torch.ones(world.SIZE, world.SIZE, dtype=torch.bool)
    for tone, color in world.SKIN.items():
        rgba = torch.from_numpy(np.array(world.art(name, tone), dtype=np.int64))
        mask &= ((rgba[..., :3] - torch.tensor(color)).abs().amax(2) <= 12) & (rgba[..., 3] > 250)
    return mask


def place(mask: Tensor, pose: Pose) -> Tensor:
    """A mask over the art (64, 64) as coverage in [0, 1] of the pixels (64, 64) that it has in a pose."""
    at = (world.SIZE - pose.side) // 2 + REACH
    canvas = torch.zeros(world.SIZE + 2 * REACH, world.SIZE + 2 * REACH)
    resized = F.interpolate(mask.float()[None, None], size=(pose.side,) * 2, mode="area")[0, 0]
    canvas[at : at + pose.side, at : at + pose.side] = resized
    return _posed(canvas, pose.dy, pose.dx, flip=pose.flip)


def _tone(image: Tensor, pose: Pose) -> int:
    """Majority tone of the pixels (3, 64, 64), in [0, 1], on the skin of the art in this pose."""
    skin = image[:, place(skin_of(_sprites()[pose.sprite][0]), pose) > 0.9]
    tones = torch.tensor(list(world.SKIN.values())) / 255.0
    nearest = (skin.t()[:, None] - tones).square().sum(2).argmin(1)
    return int(nearest.bincount(minlength=5).argmax()) + 1


@torch.no_grad()
def classify(images: Tensor) -> list[ImageLabels]:
    """The labels of each image; images (B, 3, 64, 64) in [-1, 1] (clamped), any device.

    The result does not depend on the rest of the batch. Raises UserError for images of another size.
    """
    out: list[ImageLabels] = []
    for image, below, distance, palette in _looked_at(images):
        everything = _finalists(distance, FINALISTS, torch.ones_like(_people()))
        people = _finalists(distance, PEOPLE_FINALISTS, _people())
        fitted = [_fine(image, below, pose) for pose in dict.fromkeys(everything + people)]
        fitted.sort(key=lambda item: item[0])
        person = next(pose for _, pose in fitted if _people()[pose.sprite])
        tone = _tone(image, person)
        out.append(ImageLabels(tone, tone in world.DARK, palette, _sprites()[fitted[0][1].sprite][0]))
    return out


@torch.no_grad()
def fit(images: Tensor, concepts: Sequence[str]) -> list[Fit]:
    """The nearest rendering of the named concept to each image, over its tones, sizes, shifts and both directions.

    images: as in `classify`, one for each name. Raises UserError for images of another size.
    """
    out: list[Fit] = []
    for (image, below, distance, _), concept in zip(_looked_at(images), concepts, strict=True):
        allowed = torch.tensor([name == concept for name, _ in _sprites()])
        found = [_fine(image, below, pose) for pose in _finalists(distance, int(allowed.sum()), allowed)]
        pose = min(found, key=lambda item: item[0])[1]
        window = _posed(_canvases()[pose.sprite, SIDES.index(pose.side)], pose.dy, pose.dx, flip=pose.flip)
        alpha, color = _layers(window[None])
        out.append(Fit(_sprites()[pose.sprite][1], pose, (color + (1.0 - alpha) * below)[0], alpha[0, 0]))
    return out


def _looked_at(images: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, str]]:
    """Of each image: pixels and background (3, 64, 64) in [0, 1], coarse distances to all poses, and the palette."""
    side = world.SIZE
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
        raise UserError(
            f"The oracle classifies images of shape (B, 3, {side}, {side}) and got {tuple(images.shape)}; "
            f"give it images of the mini model, {side} px wide and high."
        )
    pixels = images.detach().float().cpu().clamp(-1, 1).add(1).div(2)
    for part in pixels.split(32):
        palettes, ground = _palette(part)
        yield from zip(part, ground, _coarse(part, ground), palettes, strict=True)
