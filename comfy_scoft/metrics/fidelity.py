"""How well people of the mini world are drawn, read from pixels: no network, so nothing that training could be taught.

Each image is compared with the nearest exact rendering of the kind of person that its prompt names, over all tones, on
the image's own background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..mini_world import oracle, world

LEAST_MATCH = 0.55
"""Least correlation of a feature's neighborhood with the rendering's."""
LEAST_CONTRAST = 0.4
"""Least contrast there, as a share of the rendering's."""
FAINT = 10.0
"""Contrast of the rendering, in levels (root mean square), below which a feature is not judged: some are as dark as the
darkest skin about them."""
MOUTH_PIXELS, FEATURE_PIXELS = 40, 12
"""Least number of pixels of the art that are a mouth, or a feature at all."""
DARKER = 10.0
"""Levels of luma below the darkest tone's that count as overshoot."""
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Drawn:
    """How one person is drawn.

    tone: of the nearest rendering, 1 to 5. figure, face: mean absolute difference of the colors to that rendering on
    the silhouette and on the face, in levels of 0 to 255. features: whether all its eyes and its mouth are there.
    overshoot: whether its skin is darker than the darkest of the five tones.
    """

    tone: int
    figure: float
    face: float
    features: bool
    overshoot: bool


@torch.no_grad()
def drawn(images: Tensor, kinds: Sequence[str]) -> list[Drawn]:
    """Compare images (B, 3, 64, 64) in [-1, 1] (clamped), with the kinds of people that they are to show, in order.

    Raises UserError for images of another size.
    """
    pixels = images.detach().float().cpu().clamp(-1, 1).add(1).div(2)
    fits = oracle.fit(images, kinds)
    return [_compare(image, fit, kind) for image, fit, kind in zip(pixels, fits, kinds, strict=True)]


def _compare(image: Tensor, fit: oracle.Fit, kind: str) -> Drawn:
    apart = (image - fit.rendering).abs().mean(0) * 255.0
    face, features = face_of(kind)
    on_face = oracle.place(face, fit.pose) > 0.5
    skin = image[:, oracle.place(oracle.skin_of(kind), fit.pose) > 0.9]
    luma = float(skin.median(1).values @ _LUMA) * 255.0
    return Drawn(
        fit.tone,
        float(apart[fit.alpha > 0.5].mean()),
        float(apart[on_face].mean()),
        all(_is_there(image, fit.rendering, oracle.place(one, fit.pose), on_face) for one in features),
        luma < float(torch.tensor(world.SKIN[5], dtype=torch.float32) @ _LUMA) - DARKER,
    )


def _is_there(image: Tensor, rendering: Tensor, coverage: Tensor, on_face: Tensor) -> bool:
    """Whether the image looks like the rendering about a feature, up to a pixel of shift and the autoencoder's blur.

    What is faint in the rendering counts as there.
    """
    near = (F.max_pool2d(coverage[None], 5, 1, 2)[0] > 0.4) & on_face
    expected = F.avg_pool2d(rendering[None], 3, 1, 1, count_include_pad=False)[0][:, near]
    expected = expected - expected.mean(1, keepdim=True)
    if expected.square().mean().sqrt() * 255.0 < FAINT:
        return True
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            seen = image.roll((dy, dx), (1, 2))[:, near]
            seen = seen - seen.mean(1, keepdim=True)
            product = (seen * expected).sum()
            match = product / (seen.norm() * expected.norm()).clamp_min(1e-6)
            if match >= LEAST_MATCH and product >= LEAST_CONTRAST * expected.square().sum():
                return True
    return False


@lru_cache(maxsize=64)
def face_of(kind: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Masks over the art (64, 64) of a kind of person: the face, and each eye and mouth that skin surrounds.

    Features are holes in the skin of the face. Two alike in one row are eyes where they are dark (brows are not), the
    largest other one is the mouth, and what lies above the mouth and off its axis is a single eye.
    """
    skin = oracle.skin_of(kind).numpy()
    regions, _ = ndimage.label(skin)
    largest = regions == 1 + int(np.argmax(np.bincount(regions[regions > 0])[1:]))
    face = ndimage.binary_fill_holes(largest)
    holes, count = ndimage.label(face & ~largest)
    dark = np.asarray(world.art(kind, 5).convert("RGB"), np.float64) @ _LUMA.double().numpy() < 80.0
    parts = [part for k in range(1, count + 1) if (part := holes == k).sum() >= FEATURE_PIXELS]
    at = [ndimage.center_of_mass(part) for part in parts]

    def paired(i: int) -> bool:
        return any(
            abs(at[i][0] - at[j][0]) <= 1.0 and abs(parts[i].sum() - parts[j].sum()) <= 0.35 * parts[i].sum()
            for j in range(len(parts))
            if j != i
        )

    single = [i for i in range(len(parts)) if not paired(i)]
    mouth = max(single, key=lambda i: parts[i].sum(), default=None)
    if mouth is not None and parts[mouth].sum() < MOUTH_PIXELS:
        mouth = None

    def eye(i: int) -> bool:
        alone = mouth is not None and at[i][0] < at[mouth][0] - 5.0 and abs(at[i][1] - at[mouth][1]) > 4.0
        return i != mouth and (i not in single or alone) and dark[parts[i]].mean() > 0.5

    chosen = [i for i in range(len(parts)) if i == mouth or eye(i)]
    return torch.from_numpy(face), tuple(torch.from_numpy(parts[i]) for i in chosen)
