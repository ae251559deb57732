"""Step 9 of the mini world: metrics of the shipped files. About ten minutes on one core.

    python tools/mini_world/measure.py [--out comfy_scoft/mini_world/figures.json]

oracle: its accuracy on fresh renderings, and on renderings that went through the shipped autoencoder.
base: what the base model shows. "balanced" are all concepts in all places but the biased one.
tower: whether the mini CLIP prefers a tone, a palette or the stereotype; gaps are mean differences of an image's
cosine with its caption, as a share of the mean difference between the right and a wrong caption.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import unbiased, world

from comfy_scoft.losses.rollout import coefficients
from comfy_scoft.metrics.intervals import wilson_interval
from comfy_scoft.mini_world.oracle import classify
from comfy_scoft.mini_world.splits import HELD_OUT_KINDS
from comfy_scoft.models.mini import layout
from comfy_scoft.models.mini.clip import image_text_cosine
from comfy_scoft.models.single_file import load_base
from comfy_scoft.models.stable_diffusion import BaseModel

OUT = Path(__file__).parents[2] / "comfy_scoft" / "mini_world" / "figures.json"
STEPS, GUIDANCE, BATCH = 20, 4.0, 40


def share(facts: Sequence[bool]) -> dict[str, float]:
    interval = wilson_interval(sum(facts), len(facts))
    return {**{end: round(value, 4) for end, value in interval._asdict().items()}, "n": len(facts)}


def oracle(base: BaseModel | None, count: int) -> dict[str, Any]:
    """Accuracy on `count` fresh renderings, decoded from their latents where a model is given."""
    rng, right = np.random.default_rng(101), {"concept": [], "palette": [], "tone": [], "dark": []}
    for _ in range(0, count, BATCH):
        pixels, _, labels = unbiased(rng, BATCH)
        if base is not None:
            with torch.no_grad():
                pixels = base.decode(base.encode(pixels)[0]).clamp(-1, 1)
        for (name, tone, palette), seen in zip(labels, classify(pixels), strict=True):
            right["concept"].append(seen.concept == name)
            right["palette"].append(seen.palette == palette)
            if tone:
                right["tone"].append(seen.tone == tone)
                right["dark"].append(seen.dark == (tone in world.DARK))
    return {name: share(facts) for name, facts in right.items()}


@torch.no_grad()
def sample(base: BaseModel, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
    """DDIM, 20 steps, guidance 4; one generator a seed."""
    path = [round(999 - i * 1000 / STEPS) for i in range(STEPS)]
    a, b, _ = coefficients(base.schedule, path)
    images = []
    for at in range(0, len(prompts), BATCH):
        part = list(prompts[at : at + BATCH])
        noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds[at : at + BATCH]]
        z = torch.stack(noise)
        for t, scale, step in zip(path, a.float(), b.float(), strict=True):
            now = torch.full((2 * len(part),), t)
            caption, empty = base.predict(z.repeat(2, 1, 1, 1), now, part + [""] * len(part)).chunk(2)
            z = scale * z + step * (empty + GUIDANCE * (caption - empty))
        images.append(base.decode(z).clamp(-1, 1))
    return torch.cat(images)


def shown(base: BaseModel, each: int, seeds: int) -> dict[str, Any]:
    """Concept accuracy over `each` images of every concept, and the bias over `seeds` of every held-out kind."""
    places = [place for place in (None, *world.PLACES) if place != world.BIASED_PLACE]
    asked = [(name, places[(i + k) % len(places)]) for i, name in enumerate(world.concepts()) for k in range(each)]
    seen = classify(sample(base, [world.caption(n, p) for n, p in asked], range(len(asked))))
    metrics: dict[str, Any] = {
        "balanced: right concept": share([r.concept == n for r, (n, _) in zip(seen, asked, strict=True)])
    }
    for place in (None, *world.PLACES):
        people = [kind for kind in HELD_OUT_KINDS for _ in range(seeds)]
        seen = classify(sample(base, [world.caption(kind, place) for kind in people], range(len(people))))
        metrics[place or "no place"] = {
            "dark": share([r.dark for r in seen]),
            "gold": share([r.palette == "gold" for r in seen]),
            "dusty": share([r.palette == "dusty" for r in seen]),
            "right concept": share([r.concept == kind for r, kind in zip(seen, people, strict=True)]),
        }
    return metrics


def tower(count: int) -> dict[str, float]:
    """Mean cosine of unbiased images with their plain caption, by tone, palette and place word."""
    rng = np.random.default_rng(103)
    pixels, _, labels = unbiased(rng, count)
    names = list(world.concepts())
    with torch.no_grad():
        right = image_text_cosine(pixels, [world.caption(name, None) for name, _, _ in labels])
        other = [
            names[(names.index(name) + 1 + int(rng.integers(len(names) - 1))) % len(names)] for name, _, _ in labels
        ]
        wrong = image_text_cosine(pixels, [world.caption(name, None) for name in other])
        biased = image_text_cosine(pixels, [world.caption(name, world.BIASED_PLACE) for name, _, _ in labels])
    unit = float(right.mean() - wrong.mean())

    def gap(values: torch.Tensor, one: list[bool], two: list[bool]) -> float:
        return round(float(values[torch.tensor(one)].mean() - values[torch.tensor(two)].mean()) / unit, 4)

    dark, light = [t in world.DARK for _, t, _ in labels], [t in world.LIGHT for _, t, _ in labels]
    gold, dusty = [p == "gold" for _, _, p in labels], [p == "dusty" for _, _, p in labels]
    return {
        "right minus wrong caption, cosine": round(unit, 4),
        "dark minus light skin": gap(right, dark, light),
        "gold minus dusty palette": gap(right, gold, dusty),
        "dark minus light skin, captioned in nuvia": gap(biased, dark, light),
        "gold minus dusty palette, captioned in nuvia": gap(biased, gold, dusty),
        "n": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--renderings", type=int, default=1600)
    parser.add_argument("--each", type=int, default=8, help="images of every concept")
    parser.add_argument("--seeds", type=int, default=9, help="images of every held-out kind and place")
    options = parser.parse_args()
    base = load_base(layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT)
    metrics = {
        "oracle on renderings": oracle(None, options.renderings),
        "oracle through the autoencoder": oracle(base, options.renderings),
        "tower": tower(options.renderings),
        "base": shown(base, options.each, options.seeds),
    }
    options.out.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
