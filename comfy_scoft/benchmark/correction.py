"""The correction while sampling, measured: a preference for each seed, and the facts of each picture drawn with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..correct.corrector import Correction
from ..correct.learn import PreferenceSettings, learn
from ..correct.place import learn_place
from ..correct.preference import Preference
from ..dataset import make_batch
from ..draws import seed_of
from ..evaluate import diversity
from ..evaluate.pictures import features, of_images
from ..mini import world as renderer
from ..mini.clip import image_text_cosine
from .arms import FEATURES
from .cells import TAUGHT, Asked, Cell
from .draw import BATCH, Drawn, latents, shown
from .read import rows
from .training import World

REVISION = 1
"""To be raised by whoever changes what is drawn or read here."""
OWN_EACH = 3
"""Pictures of the base's own for each of the community's captions."""


def preference_of(world: World, seed: int, others: Sequence[str] = ("borea",)) -> Preference:
    """Learned from the community's pictures against the base's own for the same captions; it asks prompts for nuvia.

    Both sets go through the autoencoder and back once, as in the node. others: places it is told of, beside made-up
    names.
    """
    base, records = world.base, world.dataset.records
    captions = [record.caption for record in records]
    pixels = make_batch(records, renderer.SIZE, [False] * len(records)).pixels
    asked = [(i, k) for i in range(len(captions)) for k in range(OWN_EACH)]
    seeds = [seed_of(seed, i, k) for i, k in asked]
    own = _decoded(world, _sampled(world, [captions[i] for i, _ in asked], seeds, None))
    with torch.no_grad():
        sets = [base.encode(base.decode(base.encode(part)[0]).clamp(-1, 1))[0] for part in (pixels, own)]
    found, _ = learn(sets[0], sets[1], base.schedule, base.family, PreferenceSettings(seed=seed))
    generator = torch.Generator().manual_seed(seed)
    gate, seen = learn_place(lambda text: base.embed(text).hidden, captions, TAUGHT, others, generator)
    return replace(found, place=gate, facts={**found.facts, "place": {"name": TAUGHT, "gate": seen}})


def facts(world: World, cell: Cell, seed: int, correction: Correction | None) -> dict[str, Any]:
    """One row a picture (kind, seed, tone, palette, concept, CLIP cosine with its prompt), the cell's diversity, and
    the CPU seconds that drawing took. correction: None is the base itself."""
    asked = cell.asked(seed, world.dataset)
    begun = time.process_time()
    sampled = _sampled(world, [one.prompt for one in asked], [one.seed for one in asked], correction)
    seconds = time.process_time() - begun
    pixels = _decoded(world, sampled)
    drawn = Drawn(shown(pixels), seconds)
    with torch.no_grad():
        cosine = image_text_cosine(pixels, [one.prompt for one in asked])
    found = [{**row, "cosine": round(float(c), 5)} for row, c in zip(rows(asked, drawn), cosine, strict=True)]
    return {"rows": found, "diversity": _diversity(world, asked, drawn, cell), "cpu_seconds": round(seconds, 3)}


def _sampled(world: World, prompts: Sequence[str], seeds: Sequence[int], correction: Correction | None) -> Tensor:
    parts = [slice(i, i + BATCH) for i in range(0, len(prompts), BATCH)]
    return torch.cat([latents(world.base, prompts[part], seeds[part], correction) for part in parts])


@torch.no_grad()
def _decoded(world: World, sampled: Tensor) -> Tensor:
    return torch.cat([world.base.decode(part).clamp(-1, 1) for part in sampled.split(BATCH)])


def _diversity(world: World, asked: Sequence[Asked], drawn: Drawn, cell: Cell) -> float:
    """Mean over prompts of the mean distance of pictures of one prompt."""
    network = world.network(FEATURES)
    seen = features(network, of_images(drawn.tensor(), cell.name))
    apart = diversity.diversities(seen, [one.prompt for one in asked], network.distance)
    return sum(apart.values()) / len(apart)
