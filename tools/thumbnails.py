"""Cuts the square images that ComfyUI's template browser shows of the shipped workflows: `workflows/<name>.jpg`.

    python tools/thumbnails.py <ComfyUI's output folder> [name …]

Shown is what a workflow made when it was run: images of its Compare Grid, saved in that folder; for the ablation
those of the benchmark, which are of the same arms. Those for Stable Diffusion, with which nothing was drawn here that
means anything, show their graph (docs/workflows), where it is trained.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from screenshot_workflows import GRAPHS, frame  # noqa: E402  (needs the path above)

from comfy_scoft.reports.plots.sheets import EDGE, GAP, TILE  # noqa: E402  (needs the path above)

SIDE, ACROSS, QUALITY = 512, 4, 85
"""Pixels of a thumbnail's side; images in each of its lines."""
HEADING = 160
"""Pixels above a grid's first row at most; a further row would leave more."""

GRIDS = {
    "train-cultural-lora-mini": ("before-after", ((0, 0), (1, 0), (0, 4), (1, 4))),
    "train-cultural-lora-careful": ("before-after", ((0, 0), (1, 0), (0, 4), (1, 4))),
    "ablation": ("benchmarks/mini_world/samples.png", ((0, 0), (1, 0), (2, 0), (4, 0))),
    "rs-corrector": ("corrected", ((0, 0), (1, 0), (2, 0), (3, 0))),
    "evaluate": ("evaluate-test", ((0, 0), (1, 0), (0, 4), (1, 4))),
}
"""Name of the saved grid, or its path in the repository, and of each line of the thumbnail: row and first column."""
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
"""Number of the group in the graph."""


def from_grid(path: Path, lines: Sequence[tuple[int, int]]) -> Image.Image:
    """Images of a saved Compare Grid, without its words and gaps; its rows are counted from the bottom edge."""
    grid = Image.open(path).convert("RGB")
    step, rows = TILE + GAP, max(row for row, _ in lines) + 1
    while grid.height - EDGE - rows * step + GAP > HEADING:
        rows += 1
    top, left = grid.height - EDGE - rows * step + GAP, EDGE + 160
    square = Image.new("RGB", (ACROSS * TILE, len(lines) * TILE))
    for y, (row, first) in enumerate(lines):
        for x in range(ACROSS):
            at = (left + (first + x) * step, top + row * step)
            square.paste(grid.crop((*at, at[0] + TILE, at[1] + TILE)), (x * TILE, y * TILE))
    return square


def from_graph(name: str, group: int) -> Image.Image:
    """The square of a graph's image that begins with a group's upper left corner."""
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
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
        found = Image.open(ROOT / "docs" / file).convert("RGB").crop(box)
    elif name in GROUPS:
        found = from_graph(name, GROUPS[name])
    else:
        prefix, lines = GRIDS[name]
        saved = [ROOT / prefix] if "/" in prefix else sorted((output / "scoft").glob(f"{prefix}_*.png"))
        if not saved:
            raise SystemExit(f"There is no scoft/{prefix}_….png in {output}: run the workflow {name} there first.")
        found = from_grid(saved[-1], lines)
    return found.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    output = Path(arguments[0])
    for name in arguments[1:] or [*GRIDS, *PARTS, *GROUPS]:
        path = ROOT / "workflows" / f"{name}.jpg"
        thumbnail(name, output).save(path, quality=QUALITY)
        print(f"{name}.jpg: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
