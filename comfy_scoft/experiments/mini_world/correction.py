"""The preference of the corrected arms: one for each seed, learned once, and the sampling time that it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from ...common.fingerprints import short_hash
from ...corrector import preference_file
from ...corrector.corrector import Correction
from ...corrector.preference import Preference
from ...corrector.prompt_gate import learn_place
from ...corrector.training import PreferenceSettings, learn
from ...data.crop import aligned
from ...mini_world import world as renderer
from ...models.stable_diffusion import BaseModel
from ...training.batches import seed_of
from .generate import BATCH, latents
from .grid import TAUGHT, TEST_KINDS
from .training import World

REVISION = 1
"""Raise it when you change what is learned or generated here."""
OWN_EACH = 3
"""Images of the base's own for each of the community's captions."""
OTHERS = ("borea",)
"""Places that the preference is trained to leave alone, beside made-up names."""
ROUNDS = 3
"""Times that a batch is generated with the correction and without it, in turn, to measure what it costs."""


def described(strength: float, seed: int, *, asks: bool = True) -> dict[str, Any]:
    """All that decides a correction, as plain JSON. asks: whether it looks for the place in the prompt."""
    window = {name: getattr(Correction, name) for name in ("start", "end")}
    settings = asdict(PreferenceSettings(seed=seed))
    facts = {"revision": REVISION, "own": OWN_EACH, "others": OTHERS, "strength": strength, **window, **settings}
    return facts if asks else {**facts, "asks": False}


def correction_of(world: World, strength: float, seed: int, *, asks: bool = True) -> Correction | None:
    """The correction of that strength by the seed's preference; None at strength 0."""
    if not strength:
        return None
    preference = preference_of(world, seed)
    return Correction(preference if asks else replace(preference, place=None), strength)


def preference_of(world: World, seed: int) -> Preference:
    """The seed's preference: the one that is there, or a new one."""
    path = world.out / "preferences" / f"{short_hash([described(0.0, seed), world.facts])}.safetensors"
    with world.lock(f"preference-{path.stem}"):
        if not path.is_file():
            preference_file.save(learned(world, seed), path)
    return preference_file.load(path)


def learned(world: World, seed: int) -> Preference:
    """Learned from the community's images against the base's own for the same captions; its gate opens for nuvia.

    Both sets go through the autoencoder and back once, as in the node.
    """
    base, records = world.base, world.dataset.records
    captions = [record.caption for record in records]
    pixels = torch.stack([aligned(record, renderer.SIZE, flip=False)[0] for record in records])
    own_images = [(i, k) for i in range(len(captions)) for k in range(OWN_EACH)]
    seeds = [seed_of(seed, i, k) for i, k in own_images]
    own = _decoded(base, [captions[i] for i, _ in own_images], seeds)
    with torch.no_grad():
        sets = [base.encode(base.decode(base.encode(part)[0]).clamp(-1, 1))[0] for part in (pixels, own)]
    preference, _ = learn(sets[0], sets[1], base.schedule, base.family, PreferenceSettings(seed=seed))
    generator = torch.Generator().manual_seed(seed)
    gate, seen = learn_place(lambda text: base.embed(text).hidden, captions, TAUGHT, OTHERS, generator)
    return replace(preference, place=gate, facts={**preference.facts, "place": {"name": TAUGHT, "gate": seen}})


def added_time(base: BaseModel, correction: Correction) -> float:
    """Share of the CPU seconds of sampling that the correction adds: the median of ROUNDS comparisons of a batch."""
    prompts = [renderer.caption(TEST_KINDS[i % len(TEST_KINDS)], TAUGHT) for i in range(BATCH)]
    seeds = list(range(BATCH))
    latents(base, prompts, seeds, correction)  # what is computed once is not counted
    ratios = []
    for _ in range(ROUNDS):
        spent = []
        for applied in (None, correction):
            begun = time.process_time()
            latents(base, prompts, seeds, applied)
            spent.append(time.process_time() - begun)
        ratios.append(spent[1] / spent[0] - 1.0)
    return statistics.median(ratios)


@torch.no_grad()
def _decoded(base: BaseModel, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """(N, 3, H, W) images in [-1, 1]."""
    parts = [slice(i, i + BATCH) for i in range(0, len(prompts), BATCH)]
    return torch.cat([base.decode(latents(base, prompts[p], seeds[p])).clamp(-1, 1) for p in parts])
