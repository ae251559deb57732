"""Cuts the square images that ComfyUI's template browser shows of the shipped workflows: `workflows/<name>.jpg`.

    python tools/thumbnails.py <ComfyUI's output folder> [name …]

A thumbnail shows what its workflow generates: images of its Compare Grid, saved in that folder; for the ablation those
of the benchmark, which has the same arms. The workflows for Stable Diffusion have no such results here: they show the
part of their graph (docs/workflows) where the training is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkout import ROOT
from PIL import Image

from comfy_scoft.reports.plots.sheets import EDGE, GAP, TILE

WORKFLOWS, GRAPHS = ROOT / "workflows", ROOT / "docs" / "workflows"
SIDE, ACROSS, QUALITY = 512, 4, 85
"""Pixels of a thumbnail's side; images in each of its rows."""
HEADING, LABEL = 160, 160
"""Pixels above a grid's first row at most (a further row would leave more), and left of its first column."""
TRAINED = ((0, 0), (1, 0), (0, 4), (1, 4))
GRIDS = {
    "train-cultural-lora-mini": ("before-after", TRAINED),
    "train-cultural-lora-careful": ("before-after", TRAINED),
    "ablation": ("benchmarks/mini_world/samples.png", ((0, 0), (1, 0), (2, 0), (4, 0))),
    "rs-corrector": ("corrected", ((0, 0), (1, 0), (2, 0), (3, 0))),
    "evaluate": ("evaluate-test", TRAINED),
}
"""Name of the saved grid, or its path in the repository; for each row of the thumbnail, row and first column there."""
PARTS = {
    "make-negatives": ("negatives.png", (20, 78, 692, 750)),
    "survey": ("survey-phone.png", (0, 215, 450, 665)),
}
"""Image in docs and the square that is cut from it: left, top, right, bottom."""
GROUPS = {
    "train-cultural-lora-sd15": 4,
    "train-cultural-lora-sdxl": 4,
    "use-a-cultural-lora": 2,
    "build-negatives-from-stock-nodes": 1,
}
"""Index of the group in the graph."""


def shipped(name: str) -> dict[str, Any]:
    """A workflow as the editor loads it."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def frame(graph: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, width and height of all groups, with a margin (pixels of the canvas)."""
    boxes = [group["bounding"] for group in graph["groups"]]
    left, top = min(b[0] for b in boxes) - 40, min(b[1] for b in boxes) - 40
    right, bottom = max(b[0] + b[2] for b in boxes) + 40, max(b[1] + b[3] for b in boxes) + 40
    return left, top, right - left, bottom - top


def from_grid(path: Path, rows: Sequence[tuple[int, int]]) -> Image.Image:
    """Images of a saved Compare Grid, without its text and gaps; its rows are counted from the bottom edge."""
    grid = Image.open(path).convert("RGB")
    step, count = TILE + GAP, max(row for row, _ in rows) + 1
    while grid.height - EDGE - count * step + GAP > HEADING:
        count += 1
    top, left = grid.height - EDGE - count * step + GAP, EDGE + LABEL
    square = Image.new("RGB", (ACROSS * TILE, len(rows) * TILE))
    for y, (row, first) in enumerate(rows):
        for x in range(ACROSS):
            at = (left + (first + x) * step, top + row * step)
            square.paste(grid.crop((*at, at[0] + TILE, at[1] + TILE)), (x * TILE, y * TILE))
    return square


def from_graph(name: str, group: int) -> Image.Image:
    """The square of a graph's image that begins at a group's upper left corner."""
    graph = shipped(name)
    image = Image.open(GRAPHS / f"{name}.jpg").convert("RGB")
    left, top, width, height = frame(graph)
    scale = image.width / width
    x, y, wide, _ = graph["groups"][group]["bounding"]
    side = min(wide, top + height - y)
    x, y, side = round((x - left) * scale), round((y - top) * scale), round(side * scale)
    return image.crop((x, y, x + side, y + side))


def thumbnail(name: str, output: Path) -> Image.Image:
    """(SIDE, SIDE) of one workflow. Raises SystemExit, one sentence, where its grid was not saved in that folder."""
    if name in PARTS:
        file, box = PARTS[name]
        image = Image.open(ROOT / "docs" / file).convert("RGB").crop(box)
    elif name in GROUPS:
        image = from_graph(name, GROUPS[name])
    else:
        prefix, rows = GRIDS[name]
        saved = [ROOT / prefix] if "/" in prefix else sorted((output / "scoft").glob(f"{prefix}_*.png"))
        if not saved:
            raise SystemExit(f"There is no scoft/{prefix}_….png in {output}: run the workflow {name} there first.")
        image = from_grid(saved[-1], rows)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    output = Path(arguments[0])
    for name in arguments[1:] or [*GRIDS, *PARTS, *GROUPS]:
        path = WORKFLOWS / f"{name}.jpg"
        thumbnail(name, output).save(path, quality=QUALITY)
        print(f"{name}.jpg: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
