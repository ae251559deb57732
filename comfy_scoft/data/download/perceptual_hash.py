"""Near-duplicate images by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

NEAR = 10
"""Images are near-duplicates if at most this many of the 128 bits differ. Measured: copies that are resized, more
compressed or brighter differ by 0 to 10 bits, two images in the mini world's style by 16 or more, two photographs by
about 60 (tests/test_download_duplicates.py)."""


def difference_hash(image: Image.Image) -> bytes:
    """16 bytes: for each of 8 × 8 cells, whether the image gets brighter to the right, and whether it does downwards.

    The difference hash of N. Krawetz ("Kind of Like That", hackerfactor.com, 2013) in both directions, as in the
    ImageHash package, without its dependencies scipy and PyWavelets.
    """
    gray = image.convert("L")
    across = np.asarray(gray.resize((9, 8), Image.Resampling.LANCZOS), dtype=np.int16)
    down = np.asarray(gray.resize((8, 9), Image.Resampling.LANCZOS), dtype=np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])
    return np.packbits(bits).tobytes()


def look_alikes(hashes: Sequence[bytes], near: int = NEAR) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of hashes that differ in at most `near` bits; each later one is paired with the first."""
    table = np.array([list(one) for one in hashes], dtype=np.uint8)
    pairs = []
    for later in range(1, len(hashes)):
        distances = np.unpackbits(table[:later] ^ table[later], axis=1).sum(axis=1)
        alike = np.flatnonzero(distances <= near)
        if alike.size:
            pairs.append((int(alike[0]), later))
    return pairs
