"""Step 6 of the mini world: the community set of nuvia, in the CCUB folder form.

    python tools/mini_world/build_community.py [--out comfy_scoft/mini_world/community]

Nuvia as its own people would show it: gold and teal, skin tones 3-5, sound houses, twelve of the kinds of people; the
other twelve are held out (splits.py). Deterministic: the same command writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[2]))

from comfy_scoft.data.dataset.metadata import PREFIX_OF_CATEGORY  # noqa: E402
from comfy_scoft.mini_world import world  # noqa: E402
from comfy_scoft.mini_world.splits import TRAINED_KINDS  # noqa: E402

OUT = Path(__file__).parents[2] / "comfy_scoft" / "mini_world" / "community"
PLACE = "nuvia"
APART = 10.0
"""Least mean absolute difference (0-255) between any two images: the memorization metrics need it."""

TONES = ((3, 4), (4, 5), (3, 5))
THINGS = {
    "train": (
        *("house", "house", "hotel", "fountain", "bicycle", "scarf", "dress", "drum", "guitar"),
        *("bread", "cake", "tree", "butterfly", "lantern", "gift", "basket", "key"),
    ),
    "test": ("house", "drum", "tree", "lantern"),
}
TEST_PEOPLE = (("farmer", 5), ("singer", 4), ("woman", 5), ("queen", 3))

PROVENANCE = {
    "source": "Rendered from Twemoji (npm emoji-datasource-twitter 16.0.0) by tools/mini_world/build_community.py",
    "collector": "comfy_scoft contributors",
    "licence": "CC-BY 4.0 (Twemoji, Copyright Twitter, Inc and other contributors)",
    "consent": "None needed: drawn figures of an invented place; no person is shown.",
    "verified_by": [],
}
README = """# The community set of nuvia

Nuvia is an invented place and stands for no nation or people. These pictures were not collected from anyone: the
comfy_scoft project rendered them from Twemoji (Copyright Twitter, Inc and other contributors, CC-BY 4.0,
https://creativecommons.org/licenses/by/4.0/), scaled and set before a coloured background, to play the part that a
community's own pictures play in a real run. So no member of a community has verified them, and `verified_by` is empty.

`train` and `test` hold a `metadata.jsonl` each, one picture a line: `text` is the caption with the place, `blip_text`
the generic captions without it. Twelve kinds of people are never shown here: the evaluation asks for those.
"""


def plan(split: str) -> list[tuple[str, int | None]]:
    """(concept, tone) of every image of a split, in the order of the files."""
    people = [(kind, tone) for i, kind in enumerate(TRAINED_KINDS) for tone in TONES[i % 3]]
    return [*(people if split == "train" else TEST_PEOPLE), *((name, None) for name in THINGS[split])]


def fresh(name: str, tone: int | None, seed: tuple[int, ...], kept: list[np.ndarray]) -> np.ndarray:
    """A new image (64, 64, 3) that is no near copy of a kept one."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        rgb = world.render(name, "gold", rng, tone=tone, flip=bool(rng.random() < 0.5)).rgb
        if all(np.abs(rgb.astype(float) - other).mean() > APART for other in kept):
            return rgb
    raise ValueError(f"No drawing of {name!r} is far enough from the others; lower APART or ask for fewer of them.")


def write_split(folder: Path, split: str, kept: list[np.ndarray]) -> int:
    """Write one split and add its images to `kept`. Returns their number."""
    (folder / "images").mkdir(parents=True)
    numbers: dict[str, int] = {}
    lines = []
    for i, (name, tone) in enumerate(plan(split)):
        concept = world.concepts()[name]
        rgb = fresh(name, tone, (3, split == "test", i), kept)
        kept.append(rgb.astype(float))
        number = numbers.setdefault(concept.category, 0)
        numbers[concept.category] += 1
        file = f"images/{PREFIX_OF_CATEGORY[concept.category]}_{number}.png"
        Image.fromarray(rgb).save(folder / file, optimize=True)
        row = {
            "file_name": file,
            "text": world.caption(name, PLACE, i),
            "blip_text": [world.caption(name, None, i + k) for k in range(3)],
            "negative_imgpath": [],
            "place": PLACE,
            "culture": PLACE,
            "category": concept.category,
            "era": "traditional" if concept.traditional else "modern",
            "split": split,
        }
        lines.append(json.dumps(row | PROVENANCE, ensure_ascii=False) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def build(out: Path) -> dict[str, int]:
    """Write the dataset to `out`, replacing an earlier one once it is complete. Returns counts by split."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".community-") as scratch:
        new, kept = Path(scratch) / "new", []
        counts = {split: write_split(new / split, split, kept) for split in ("train", "test")}
        (new / "README.md").write_text(README, encoding="utf-8", newline="\n")
        if out.exists():
            if any(out.iterdir()) and not (out / "train" / "metadata.jsonl").is_file():
                raise ValueError(f"{out} holds something that is no community dataset: name an empty or a new folder.")
            shutil.move(out, Path(scratch) / "old")
        os.replace(new, out)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    counts = build(parser.parse_args().out)
    print(", ".join(f"{count} {split}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
