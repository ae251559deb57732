"""A culture's training set with generic captions and negatives, kept as a folder in CCUB's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...common import fingerprints
from ...common.errors import UserError
from ...common.files import regular, write_atomically
from ...data.captions import BLIP, CaptionSettings, attach_captions, load_captioner
from ...data.dataset import load_folder, save_dataset
from ...data.records import Dataset
from ...negatives.controlnet_pipeline import PipelineSampler, load_controlnet, models_identity, size_multiple
from ...negatives.depth import DEPTH as ESTIMATORS
from ...negatives.depth import attach_depth, load_depth
from ...negatives.filter import filter_negatives
from ...negatives.generate import Request, make_negatives
from ..engine.store import slug
from . import plan
from .data import Culture
from .networks import CAPTIONER, DEPTH
from .study import Study

BUILT_IN = "relief (mini)"


def check(study: Study) -> None:
    """Raise UserError, one sentence, where a file is missing that preparing will need. Cheap."""
    for culture in study.cultures:
        generic, negatives = culture.lacks(study.arms)
        if generic:
            _captioner(study, culture)
        if negatives:
            if study.controlnet is None:
                raise UserError(
                    f"Images of {culture.name} have no negatives, so they must be generated: give a depth ControlNet "
                    "with --controlnet."
                )
            if not study.controlnet.is_file():
                raise UserError(f"There is no file {study.controlnet}: give a depth ControlNet (.safetensors).")
            if any(record.depth is None for record in culture.train.records):
                _estimator(study)
            study.networks.named("filter")


def prepared(study: Study, culture: Culture) -> tuple[Dataset, dict[str, Any]]:
    """The training set with what the arms need, and what was done as plain JSON; what is there is not made again."""
    generic, negatives = culture.lacks(study.arms)
    if not generic and not negatives:
        return culture.train, {}
    key = study.key(*_facts(study, culture, generic=generic, negatives=negatives))
    folder = study.out / "data" / f"{slug(culture.name.casefold())}-{key}"
    report = folder.with_suffix(".json")
    if folder.is_dir():
        found = json.loads(regular(report).read_bytes())
        for kind, name in ((plan.CAPTION, "captioned"), (plan.DEPTH, "depth maps"), (plan.NEGATIVE, "negatives")):
            study.clock.found(kind, found[name])
        study.clock.found(plan.DISTANCE, found["negatives"] + len(culture.train) if found["negatives"] else 0)
    else:
        dataset, found = _made(study, culture, generic=generic, negatives=negatives)
        write_atomically(report, (json.dumps(found, indent=1) + "\n").encode())
        save_dataset(dataset, folder)  # appears whole, after its report
    return load_folder(folder, culture.name, culture.name)[0], found


def _facts(study: Study, culture: Culture, *, generic: bool, negatives: bool) -> list[Any]:
    facts: list[Any] = [culture.name, culture.train.identity(), study.seed]
    if generic:
        weights = _captioner(study, culture) / BLIP.weights
        facts += [study.scale.captions, fingerprints.of_files([weights])]
    if negatives:
        assert study.controlnet is not None, "checked before the first stage"
        facts += [vars(study.scale.negatives), fingerprints.of_files([study.controlnet]), study.network("filter")]
        estimator = _estimator(study)
        facts += [study.threshold, study.depth]
        if estimator is not None:
            facts += fingerprints.of_files(sorted(path for path in estimator.iterdir() if path.is_file()))
    return facts


def _made(study: Study, culture: Culture, *, generic: bool, negatives: bool) -> tuple[Dataset, dict[str, Any]]:
    dataset, work = culture.train, study.out / "work"
    counts = {"captioned": 0, "depth maps": 0, "negatives": 0, "dropped": 0}
    if generic:
        counts["captioned"] = sum(not record.generic_captions for record in dataset.records)
        study.say(f"{culture.name}: generic captions of {counts['captioned']} images")
        captioner = load_captioner("BLIP", _captioner(study, culture), study.device)
        settings = CaptionSettings(study.scale.captions, study.seed)
        with study.clock.timed(plan.CAPTION, counts["captioned"]):
            dataset, report = attach_captions(dataset, captioner, settings, work / "captions")
        study.say(report)
    if not negatives:
        return dataset, counts
    bare = [record for record in dataset.records if record.depth is None]
    if bare:
        counts["depth maps"] = len(bare)
        study.say(f"{culture.name}: depth of {len(bare)} images")
        estimator = load_depth(study.depth, _estimator(study), study.device)
        with study.clock.timed(plan.DEPTH, len(bare)):
            deep = iter(attach_depth(dataset.replace(bare), estimator, work / "depth").records)
        dataset = dataset.replace(next(deep) if record.depth is None else record for record in dataset.records)
    dataset = _with_negatives(study, culture, dataset, work / "negatives")
    counts["negatives"] = sum(len(record.negatives) for record in dataset.records)
    study.say(f"{culture.name}: false negatives")
    with study.clock.timed(plan.DISTANCE, counts["negatives"] + len(dataset)):
        dataset, dropped, threshold = _sieved(study, dataset)
    return dataset, {**counts, "dropped": dropped, "threshold": threshold}


def _with_negatives(study: Study, culture: Culture, dataset: Dataset, folder: Path) -> Dataset:
    settings, base = study.scale.negatives, study.bare()
    assert study.controlnet is not None, "checked before the first stage"
    sampler = PipelineSampler(base, load_controlnet(study.controlnet, base), settings, study.device)
    total, new = len(dataset) * settings.per_image, 0
    study.say(f"{culture.name}: {total} negatives")

    def sample(request: Request) -> torch.Tensor:
        nonlocal new
        new += len(request.prompts)
        with study.clock.timed(plan.NEGATIVE, len(request.prompts)):
            return sampler(request)

    known = models_identity(study.model, study.controlnet, sampler)
    found = make_negatives(dataset, settings, sample, folder, known, size_multiple(base))
    study.clock.found(plan.NEGATIVE, total - new)
    return found


def _sieved(study: Study, dataset: Dataset) -> tuple[Dataset, int, float | None]:
    """Without false negatives, how many those were, and the distance below which they are."""
    found = filter_negatives(dataset, study.networks.load("filter"), study.threshold)
    none = study.threshold is None and found.suggestion is None
    return found.dataset, len(found.dropped()), None if none else found.threshold


def _captioner(study: Study, culture: Culture) -> Path:
    return study.networks.beside(CAPTIONER, f"Images of {culture.name} have no generic captions, which BLIP writes")


def _estimator(study: Study) -> Path | None:
    """The folder of the depth estimator's weights. Raises UserError, one sentence, for one that does not fit."""
    if study.depth not in ESTIMATORS:
        raise UserError(f"There is no depth estimator {study.depth!r}: choose one of {', '.join(ESTIMATORS)}.")
    if study.depth == BUILT_IN:
        return None
    folder = study.networks.beside(DEPTH, f"Negatives need depth maps, which {study.depth} makes")
    fits = getattr(ESTIMATORS[study.depth], "fits", None)
    if fits is not None and not fits(folder):
        raise UserError(f"The folder {folder} holds no {study.depth}: put its files there.")
    return folder
