"""The metrics of the tables, each with its 95 % interval, from embeddings that are computed once and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from ...common import fingerprints
from ...common.files import regular
from ...data.records import Dataset
from ...features.distances import cosine
from ...metrics.clip_score import clip_scores
from ...metrics.diversity import diversities
from ...metrics.inputs import ImageCounter, ImageSource, embeddings, of_records
from ...metrics.intervals import Interval, bootstrap_mean, independent_mean
from ...metrics.kid import SCALE, kid
from ...metrics.memorization import similarities
from . import paper, plan
from .arms import Arm
from .data import GENERIC, HELD_OUT, OWN, TRAINED, Culture
from .study import Study
from .train import ImageFiles

HESSEL = 2.5 / 100.0
"""clip_scores gives 100 cos; its authors scale it to 2.5 · max(cos, 0), and the paper's 0.8 are of that scale."""

Figure = dict[str, Any]
"""value, low, high (None where there is no interval) and n, how many images it rests on."""


@dataclass
class Measurer:
    """Measures a study's images. Vectors of prompts in CLIP's space and of images are each computed once."""

    study: Study
    _vectors: dict[Path, Tensor] = field(default_factory=dict, repr=False)
    _texts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def figures(self, culture: Culture, arm: Arm, sets: Mapping[str, ImageFiles]) -> dict[str, Figure]:
        """Every figure that the sets of images of one arm give, by the paper's name for it, once a set."""
        found: dict[str, Figure] = {}
        if OWN in sets:
            found[paper.KID_OWN] = self._kid(sets[OWN], culture.test)
            found[paper.CLIP_SCORE] = self._clip_score(sets[OWN])
        if GENERIC in sets and self.study.generic is not None:
            found[paper.KID_GENERIC] = self._kid(sets[GENERIC], self.study.generic.images)
        if TRAINED in sets:
            pairs = culture.train.replace(culture.pairs(self.study.scale, self.study.seed))
            for name, role in (("CLIP-I", "clip"), ("DINO", "dino"), ("DreamSim", "dreamsim")):
                found[name] = self._memorization(sets[TRAINED], pairs, role)
            found["DIV train"] = self._diversity(sets[TRAINED])
        if HELD_OUT in sets:
            found["DIV test"] = self._diversity(sets[HELD_OUT])
            found[f"{paper.CLIP_SCORE}, test prompts"] = self._clip_score(sets[HELD_OUT])
        return found

    def _kid(self, files: ImageFiles, reference: Dataset) -> Figure:
        x, y = self._of_set(files, "kid"), self._of_records(reference, "kid")
        found = kid(x, y)
        return figure(Interval(*(SCALE * v for v in (found.value, found.low, found.high))), len(x))

    def _clip_score(self, files: ImageFiles) -> Figure:
        prompts = files.spec.prompts
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if fresh:
            rows = self.study.networks.load("clip").text_embedding(fresh)
            self._texts |= dict(zip(fresh, rows, strict=True))
        texts = torch.stack([self._texts[prompt] for prompt in prompts])
        scores = [HESSEL * score for score in clip_scores(self._of_set(files, "clip"), texts)]
        return figure(bootstrap_mean(scores, groups=prompts).cut(0.0, 100.0 * HESSEL), len(scores))

    def _memorization(self, files: ImageFiles, pairs: Dataset, role: str) -> Figure:
        prompts, captions = files.spec.prompts, [record.caption for record in pairs.records]
        alike = similarities(self._of_set(files, role), prompts, self._of_records(pairs, role), captions)
        return figure(bootstrap_mean(alike, groups=prompts).cut(-1.0, 1.0), len(alike))

    def _diversity(self, files: ImageFiles) -> Figure:
        each = list(diversities(self._of_set(files, "dreamsim"), files.spec.prompts, cosine).values())
        alone = Interval(each[0], math.nan, math.nan)
        return figure(bootstrap_mean(each).cut(0.0) if len(each) > 1 else alone, len(files.paths))

    def _of_set(self, files: ImageFiles, role: str) -> Tensor:
        return self._embedded(files.read(self.study.side, files.spec.name), role, files.key)

    def _of_records(self, dataset: Dataset, role: str) -> Tensor:
        images = fingerprints.of_files(record.image for record in dataset.records)
        side = self.study.side
        return self._embedded(of_records(dataset, (side, side)), role, self.study.key("records", images, side))

    def _embedded(self, images: ImageSource, role: str, of: str) -> Tensor:
        """(N, D) vectors, kept in a file that is named by the images and the network."""
        study = self.study
        path = study.out / "embedded" / f"{study.key('embedded', of, study.network(role))}.safetensors"

        def make() -> bytes:
            with study.clock.timed(plan.LOOK, images.count):
                vectors = embeddings(study.networks.load(role), images, ImageCounter(images.count)).contiguous()
            return serialize({"vectors": vectors})

        if path not in self._vectors:
            if path.is_file():
                study.clock.found(plan.LOOK, images.count)
            self._vectors[path] = load_file(regular(study.once(path, make)))["vectors"]
        return self._vectors[path]


def figure(found: Interval, n: int) -> Figure:
    """A figure as JSON, which has no NaN: None where there is no interval."""
    ends = {name: None if math.isnan(v) else float(v) for name, v in found._asdict().items()}
    return {**ends, "n": n}


def interval_of(found: Figure) -> Interval:
    """A figure's value and ends, NaN where there is no interval."""
    return Interval(*(math.nan if found[end] is None else found[end] for end in Interval._fields))


def mean(figures: Sequence[Figure]) -> Figure:
    """The mean over cultures, as Table 1 is the mean of Table 4's columns. One figure that all cultures share is
    itself."""
    if all(one == figures[0] for one in figures):
        return figures[0]
    return figure(independent_mean([interval_of(one) for one in figures]), sum(one["n"] for one in figures))
