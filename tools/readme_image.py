"""Samples the README's first image, docs/before-after.png: the mini model before and after the careful preset.

    python tools/readme_image.py                     trains the preset first (about eight minutes on one quiet core)
    python tools/readme_image.py --lora FILE         takes a LoRA of the workflow train-cultural-lora-careful instead

The preset is the benchmark's arm PRESET, trained with the first of its test seeds and sampled as there: the LoRA at 0.9
of its strength, RS-Corrector at 0.5 beside it, DDIM, 20 steps, CFG 1.5 (before and after). Nothing is picked: the first
four held-out kinds of people of the benchmark's test half, one image each, from the first noise of each kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from checkout import ROOT
from PIL import Image, ImageDraw, ImageFont

from comfy_scoft.experiments.mini_world.arms import PRESET
from comfy_scoft.experiments.mini_world.correction import correction_of
from comfy_scoft.experiments.mini_world.generate import sample
from comfy_scoft.experiments.mini_world.grid import TEST_KINDS, held_out
from comfy_scoft.experiments.mini_world.training import World, trained, with_lora
from comfy_scoft.models.lora import load_lora

OUT = ROOT / "docs" / "before-after.png"
FOLDER = Path("output") / "benchmark"
SEED = 101
"""The first of the benchmark's test seeds: of the training, the corrector's preference and the noise of the images."""
PLACES = {"nuvia": "nuvia: the place it was trained for", "borea": "borea: another place", "no place": "no place named"}
"""Places of the columns, and what stands above them."""
ROWS = ("before", "after")
KINDS, ACROSS = 4, 2
"""Kinds of people a place, and how many of them stand beside one another."""
SCALE = 3
"""Side of a shown pixel. The mini model's images are 64 pixels wide."""
GAP, MARGIN, HEAD, LEFT = 6, 28, 52, 120
INK, PAPER = "#1a1a1a", "#ffffff"


def sampled(folder: Path, lora: Path | None = None) -> dict[tuple[str, str], np.ndarray]:
    """Images by (row, place), uint8 (KINDS, 64, 64, 3). folder: where the training is kept, as the benchmark's is."""
    world = World(folder)
    after = with_lora(world, PRESET, load_lora(lora) if lora is not None else trained(PRESET, SEED, world).lora())
    correction = correction_of(world, PRESET.strength, SEED)
    images = {}
    for place, cell in zip(PLACES, held_out(1, tuple(PLACES), TEST_KINDS[:KINDS]), strict=True):
        requests = cell.requests(SEED, world.dataset)
        images["before", place] = sample(world.base, requests, guidance=PRESET.guidance)
        images["after", place] = sample(after, requests, correction, PRESET.guidance)
    return images


def composed(images: Mapping[tuple[str, str], np.ndarray]) -> Image.Image:
    """The page: a row before and one after training, a block of images for each place."""
    height, width = (side * SCALE + GAP for side in next(iter(images.values())).shape[1:3])
    down = KINDS // ACROSS
    size = (LEFT + len(PLACES) * (ACROSS * width + MARGIN), HEAD + len(ROWS) * (down * height + MARGIN))
    page = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(26)
    for column, (place, title) in enumerate(PLACES.items()):
        left = LEFT + column * (ACROSS * width + MARGIN)
        pen.text((left, HEAD // 2), title, INK, font, anchor="lm")
        for line, row in enumerate(ROWS):
            top = HEAD + line * (down * height + MARGIN)
            pen.text((MARGIN, top + down * height // 2), row, INK, font, anchor="lm")
            for i, pixels in enumerate(images[row, place]):
                small = Image.fromarray(pixels)
                shown = small.resize((small.width * SCALE, small.height * SCALE), Image.Resampling.LANCZOS)
                page.paste(shown, (left + i % ACROSS * width, top + i // ACROSS * height))
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", type=Path, help="a LoRA of the careful workflow, in place of a training")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the training is kept (default: {FOLDER})")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the image is written (default: {OUT.name})")
    options = parser.parse_args(arguments)
    composed(sampled(options.folder, options.lora)).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
