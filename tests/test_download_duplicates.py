"""Near copies are found and images of one style are not taken for copies; both are measured on real files."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from comfy_scoft.data.download.perceptual_hash import NEAR, difference_hash, look_alikes
from comfy_scoft.data.images import open_image
from comfy_scoft.mini_world import COMMUNITY

PICTURES = sorted((COMMUNITY / "train" / "images").iterdir())


def distance(a: bytes, b: bytes) -> int:
    return bin(int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).count("1")


def again(kind: str, **options: int) -> Callable[[Image.Image], Image.Image]:
    def saved(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")

    return saved


COPIES = {
    "jpeg at quality 40": again("JPEG", quality=40),
    "webp": again("WEBP", quality=60),
    "half the size": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC),
    "three times the size": lambda p: p.resize((p.width * 3, p.height * 3), Image.Resampling.BICUBIC),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.15),
    "less color": lambda p: ImageEnhance.Color(p).enhance(0.5),
}


def test_a_hash_by_hand():
    rising = Image.fromarray(np.tile(np.arange(0, 144, 16, dtype=np.uint8), (9, 1)))
    assert difference_hash(rising) == b"\xff" * 8 + b"\0" * 8
    assert difference_hash(ImageOps.mirror(rising)) == b"\0" * 16
    assert difference_hash(rising.rotate(-90)) == b"\0" * 8 + b"\xff" * 8


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_saved_anew_is_found(name):
    found = []
    for path in PICTURES:
        image = open_image(path)
        found.append(distance(difference_hash(image), difference_hash(COPIES[name](image))))
    assert np.quantile(found, 0.95) <= NEAR, (name, np.quantile(found, [0.5, 0.95, 1.0]))


def test_other_pictures_of_the_same_style_are_not_taken_for_copies():
    hashes = [difference_hash(open_image(path)) for path in PICTURES]
    assert look_alikes(hashes) == []


def test_pairs_are_earlier_and_later_and_each_later_one_is_told_once():
    a, b, far = bytes(16), b"\x01" + bytes(15), b"\xff" * 16
    assert look_alikes([a, far, b, a, far]) == [(0, 2), (0, 3), (1, 4)]
    assert look_alikes([a, b], near=0) == [] and look_alikes([a]) == look_alikes([]) == []
    edge = b"\xff\x03" + bytes(14), b"\xff\x07" + bytes(14)
    assert look_alikes([a, edge[0]]) == [(0, 1)] and look_alikes([a, edge[1]]) == []
