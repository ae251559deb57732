"""Measures the images of a model: the oracle's answer for each, and the metrics that need several of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.records import Dataset
from ...metrics import denoising_gap, diversity, fidelity, kid, memorization
from ...metrics.bias import concept_of
from ...metrics.inputs import embeddings, features, of_images, of_records
from ...mini_world import world as renderer
from ...mini_world.oracle import classify
from ...models.mini.clip import image_text_cosine
from ...models.stable_diffusion import BaseModel
from ...training.latent_cache import Cache
from .arms import FEATURES
from .generate import CellImages
from .grid import HELD_OUT, TAUGHT, TRAINED, Cell, ImageRequest
from .training import World

REVISION = 4
"""Raise it when you change what is measured; the images are then measured again, not generated again."""

READ_AT_ONCE = 16
REFERENCE_EACH = 18
"""Rendered images of each kind in a reference of KID."""
FRESH_EACH = 2
"""Fresh images for each training caption, for the denoising gap."""
SIZE = (renderer.SIZE, renderer.SIZE)
GAP_SEED = 5


def rows(requests: Sequence[ImageRequest], images: CellImages) -> list[dict[str, Any]]:
    """One row an image: its request, the oracle's answer, CLIP's cosine, and how a person is drawn; plain JSON."""
    pixels = images.tensor().permute(0, 3, 1, 2) * 2.0 - 1.0
    seen = [one for part in pixels.split(READ_AT_ONCE) for one in classify(part)]
    with torch.no_grad():
        cosines = image_text_cosine(pixels, [one.prompt for one in requests]).tolist()
    people = [i for i, one in enumerate(requests) if renderer.concepts()[one.concept].is_person]
    drawn = dict(zip(people, fidelity.drawn(pixels[people], [requests[i].concept for i in people]), strict=True))
    return [
        {
            **{"kind": one.concept, "seed": one.seed},
            **{"tone": found.tone, "palette": found.palette, "concept": found.concept, "cosine": round(cosine, 5)},
            **({"drawn": asdict(drawn[i])} if i in drawn else {}),
        }
        for i, (one, found, cosine) in enumerate(zip(requests, seen, cosines, strict=True))
    ]


def measures(
    world: World, base: Callable[[], BaseModel], cells: Mapping[Cell, CellImages], seed: int
) -> dict[str, Any]:
    """Metrics of a whole model, by name; those whose cells were not generated are left out.

    similarity, copies: of the images of trained captions; near copies are those that are nearer to a training image
    than 95 % of fresh renderings of the same captions are. diversity: by cell, mean over its prompts. KID (×10³), by
    reference. gap: denoising losses on the training images and on fresh ones with the same captions.
    """
    network = world.network(FEATURES)
    found: dict[str, Any] = {"diversity": {}, "KID": {}}
    vectors: dict[Cell, Tensor] = {}
    for cell, own in cells.items():
        images = of_images(own.tensor(), cell.name)
        vectors[cell] = embeddings(network, images)
        prompts = [one.prompt for one in cell.requests(seed, world.dataset)]
        apart = diversity.diversities(features(network, images), prompts, network.distance)
        found["diversity"][cell.name] = _mean(apart.values())
        if cell.what == TRAINED:
            training = embeddings(network, of_records(world.dataset, SIZE))
            captions = [record.caption for record in world.dataset.records]
            alike = memorization.similarities(vectors[cell], prompts, training, captions)
            found["similarity"] = _mean(alike)
            fresh = embeddings(network, of_images(_fresh(world), "fresh renderings"))
            copied = memorization.copies(vectors[cell], training, held_out=fresh).copied
            found["copies"] = [int(copied.sum()), len(copied)]
    for cell, own_vectors in vectors.items():
        if cell.what == HELD_OUT:
            found["KID"] |= _kids(world, cell, own_vectors)
    found["gap"] = gap(world, base())
    return found


def _kids(world: World, cell: Cell, vectors: Tensor) -> dict[str, float]:
    """KID × 1000 of a cell to exact images of its place as the people there show it; of the taught place also to the
    other places."""
    own = renderer.PLACES.get(cell.place, renderer.NO_PLACE)
    references: dict[str, tuple[str, ...]] = {f"{cell.place}, as its people show it": (own,)}
    if cell.place == TAUGHT:
        references["other places"] = tuple(p for p in renderer.PLACES.values() if p != own)
    network = world.network(FEATURES)
    found = {}
    for name, palettes in references.items():
        tones = renderer.DARK if palettes == (renderer.PLACES[TAUGHT],) else tuple(renderer.SKIN)
        images = rendered(cell.kinds, palettes, tones)
        reference = embeddings(network, of_images(images, name))
        found[f"{cell.place} to {name}"] = 1000.0 * kid_value(vectors, reference)
    return found


def kid_value(x: Tensor, y: Tensor) -> float:
    """KID without its bootstrap, which the benchmark does not need: its interval is over training seeds."""
    settings = kid.KidSettings(normalise=True)  # the page's values are of features of one length
    return kid.unbiased_mmd(*(kid.polynomial_kernel(a, b, settings) for a, b in ((x, x), (x, y), (y, y))))


@lru_cache(maxsize=16)
def rendered(kinds: tuple[str, ...], palettes: tuple[str, ...], tones: tuple[int, ...]) -> Tensor:
    """Exact images (N, 64, 64, 3) in [0, 1] of kinds of people, tones and palettes in turn, REFERENCE_EACH a kind."""
    rng = np.random.default_rng(7)
    images = []
    for kind in kinds:
        for k in range(REFERENCE_EACH):
            tone, palette = tones[k % len(tones)], palettes[k // len(tones) % len(palettes)]
            images.append(renderer.render(kind, palette, rng, tone, flip=bool(rng.random() < 0.5)).rgb)
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255.0)


def gap(world: World, base: BaseModel) -> dict[str, list[float]]:
    """Denoising losses on the training images, and on FRESH_EACH fresh renderings for each caption of theirs.

    Fresh images show the same concept of the taught place, by the rules the community's images were made by: what
    a model predicts better of the training images than of these, it has memorized.
    """
    train = Cache(base, world.dataset, renderer.SIZE)
    records = [record for _ in range(FRESH_EACH) for record in world.dataset.records]
    fresh = Cache(base, world.dataset.replace(records), renderer.SIZE, images=_fresh_images(world.dataset))
    return {
        "train": denoising_gap.losses(base, train, GAP_SEED, most=len(train.dataset)),
        "fresh": denoising_gap.losses(base, fresh, GAP_SEED, most=len(fresh.dataset)),
    }


def _fresh(world: World) -> Tensor:
    """The fresh images, (N, H, W, 3) in [0, 1]."""
    image = _fresh_images(world.dataset)
    images = [image((i, False))[0] for i in range(FRESH_EACH * len(world.dataset))]
    return torch.stack(images).permute(0, 2, 3, 1).add(1.0).div(2.0)


def _fresh_images(dataset: Dataset) -> Callable[[tuple[int, bool]], tuple[Tensor, Tensor]]:
    def image(sample: tuple[int, bool]) -> tuple[Tensor, Tensor]:
        concept = concept_of(dataset.records[sample[0] % len(dataset)].caption)
        rng = np.random.default_rng((11, sample[0]))
        tone = int(rng.choice(renderer.DARK)) if renderer.concepts()[concept].is_person else None
        rgb = renderer.render(concept, renderer.PLACES[TAUGHT], rng, tone, flip=bool(rng.random() < 0.5)).rgb
        pixels = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1).div(127.5).sub(1.0)
        return pixels, pixels.new_empty(0, *pixels.shape)

    return image


def _mean(values: Iterable[float]) -> float | None:
    """Mean of the values that are numbers; None where there is none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None
