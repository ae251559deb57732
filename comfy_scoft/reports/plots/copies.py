"""The generated images nearest to training images, each beside the one it is near to, for a person to judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .canvas import COLORS, INK, MUTED, Page, tile, wrap

if TYPE_CHECKING:
    from ...data.records import Dataset
    from ...metrics.image_set import ImageSet

TILE = 128
EDGE = 24
ACROSS = 4
PAIR = 2 * TILE + 4
STEP = (PAIR + 28, TILE + 62)


def copies_page(
    images: ImageSet,
    training: Dataset,
    nearest: Sequence[int],
    distances: Sequence[float],
    threshold: float,
    most: int = 16,
) -> Tensor:
    """Pairs of a generated image (left) and its nearest training image, the nearest first. (H, W, 3) in [0, 1].

    nearest, distances: of each image, the number of its nearest record and how far that is; below `threshold` it
    counts as a near copy and is marked. most: pairs shown. A training image that cannot be read any more is named.
    """
    count = len(images.prompts)
    order = sorted(range(count), key=lambda i: distances[i])[:most]
    near = sum(distance < threshold for distance in distances)
    lines = -(-len(order) // ACROSS)
    page = Page(2 * EDGE + ACROSS * STEP[0] - 28, 100 + lines * STEP[1] + EDGE)
    width = page.width - 2 * EDGE
    title = f"{images.label}: {near} of {count} images are near copies of training images"
    page.text(EDGE, 18, wrap(title, width, 1, 20, bold=True)[0], 20, bold=True)
    shown = f"the {len(order)} nearest of {count}" if len(order) < count else "the nearest first"
    line = f"Left the generated image, right its nearest training image, {shown}. Near: below {threshold:.3g}."
    page.text(EDGE, 52, wrap(line, width, 1, 14)[0], 14, MUTED)
    for place, i in enumerate(order):
        x, y = EDGE + place % ACROSS * STEP[0], 88 + place // ACROSS * STEP[1]
        page.image(x, y, tile(images.images[i], TILE))
        page.file(x + TILE + 4, y, training.records[nearest[i]].image, TILE)
        copied = distances[i] < threshold
        page.text(x + PAIR, y + TILE + 5, f"{distances[i]:.3f}", 12, INK, bold=True, align="right")
        page.text(
            x, y + TILE + 5, "near copy" if copied else "not near", 12, COLORS[1] if copied else MUTED, bold=copied
        )
        page.block(x, y + TILE + 23, wrap(f"{images.prompts[i]} · seed {images.seeds[i]}", PAIR, 2, 12), 12)
    return page.tensor()
