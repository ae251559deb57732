"""The same image twice: by its bytes, and by how it looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

NEAR = 10
"""Two images look alike when at most so many of the 128 bits differ. Measured: copies saved smaller, larger, harder
or brighter differ by 0 to 10 bits, two images of the mini world's one style by 16 or more, two photographs by about
60 (tests/test_download_duplicates.py)."""

_BITS = np.array([bin(n).count("1") for n in range(256)], dtype=np.uint16)


def difference_hash(image: Image.Image) -> bytes:
    """16 bytes of how an image looks: of 8 × 8 cells each, is it brighter to the right, and is it brighter below?

    The "difference hash" of N. Krawetz ("Kind of Like That", hackerfactor.com, 2013), in both directions. It is a few
    lines of Pillow; the ImageHash package computes the same, but brings scipy and PyWavelets into people's ComfyUI.
    """
    gray = image.convert("L")
    across = np.asarray(gray.resize((9, 8), Image.Resampling.LANCZOS), dtype=np.int16)
    down = np.asarray(gray.resize((8, 9), Image.Resampling.LANCZOS), dtype=np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])
    return np.packbits(bits).tobytes()


def look_alikes(hashes: Sequence[bytes], near: int = NEAR) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of hashes with at most `near` bits between them; each later one is paired once, with the
    first that it resembles."""
    if len(hashes) < 2:
        return []
    table = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
    pairs = []
    for later in range(1, len(hashes)):
        distances = _BITS[table[:later] ^ table[later]].sum(axis=1)
        alike = np.flatnonzero(distances <= near)
        if alike.size:
            pairs.append((int(alike[0]), later))
    return pairs
