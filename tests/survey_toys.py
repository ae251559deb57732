"""Image sets and surveys for tests: the mini world's renderer draws them, as if models had."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from comfy_scoft.metrics.image_set import ImageSet, prompts_and_seeds
from comfy_scoft.mini_world import world

LABELS = (
    "generator-alpha",
    "generator-beta",
    "generator-gamma",
    "generator-delta",
    "generator-epsilon",
    "generator-zeta",
)
LOOKS = (("dusty", 1), ("gold", 5), ("gold", 3), ("ice", 2), ("meadow", 4), ("ember", 1))
THINGS = ("teacher", "cook", "farmer", "house")


def image_sets(
    count: int = 3, prompts: Sequence[str] = (), seeds: int = 1, labels: Sequence[str] = LABELS
) -> list[ImageSet]:
    """`count` sets of the same prompts and seeds, each with a palette and skin tone of its own."""
    asked = prompts or [f"a {thing} in nuvia" for thing in THINGS]
    texts, numbers = (
        prompts_and_seeds("\n".join(asked), 7, seeds) if not prompts else (tuple(asked), tuple(range(len(asked))))
    )
    sets = []
    for k, (palette, tone) in enumerate(LOOKS[:count]):
        images = []
        for i in range(len(texts)):
            concept = world.concepts()[THINGS[i // seeds % len(THINGS)]]
            rng = np.random.default_rng(i)
            drawing = world.render(concept.name, palette, rng, tone if concept.is_person else 0)
            images.append(torch.from_numpy(drawing.rgb).float() / 255)
        sets.append(ImageSet(torch.stack(images) * (1 - 0.01 * k), texts, numbers, labels[k]))
    return sets


def data_of(page: bytes) -> dict[str, Any]:
    """The JSON inside a survey's page."""
    found = re.search(r'<script type="application/json" id="survey">(.*?)</script>', page.decode("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def image_bytes(data: dict[str, Any], image: str) -> bytes:
    """The JPEG file of an image id."""
    return base64.b64decode(data["data"][data["pictures"][image]])


def pixels(jpeg: bytes) -> np.ndarray:
    """A JPEG's pixels, (H, W, 3) in [0, 1]."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255
