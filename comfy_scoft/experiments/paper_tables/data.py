"""The cultures' datasets and the generic set, and which of their captions become prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...common.errors import UserError
from ...data.dataset import holds_dataset, load_folder
from ...data.records import CultureRecord, Dataset
from ...metrics.memorization import folded
from .arms import MAIN, MEMORY, Arm, ImageSpec, Scale

LEAST_TEST = 2
"""KID and every interval need two images."""


@dataclass(frozen=True)
class Culture:
    """One culture's images. held_out: whether its test split was sampled here, for want of one of its own; report: of
    its loading."""

    name: str
    train: Dataset
    test: Dataset
    held_out: bool
    report: str = ""

    def lacks(self, arms: Sequence[Arm]) -> tuple[bool, bool]:
        """Whether generic captions, and negatives, are to be made for these arms: negatives unless all have some."""
        records = self.train.records
        generic = any(arm.needs("needs_generic") for arm in arms) and not all(r.generic_captions for r in records)
        negatives = any(arm.needs("needs_negatives") for arm in arms) and not all(r.negatives for r in records)
        return generic, negatives

    def pairs(self, scale: Scale, seed: int) -> tuple[CultureRecord, ...]:
        """Table 2's text-image pairs: training records of different captions, sampled by the seed."""
        return chosen(self.train.records, scale.pairs, seed)

    def prompts(self, scale: Scale, seed: int) -> tuple[str, ...]:
        """Table 2's test prompts, sampled by the seed; all where there are fewer."""
        return tuple(record.caption for record in chosen(self.test.records, scale.pairs, seed))


@dataclass(frozen=True)
class Generic:
    """The generic set (the paper: COCO): its images, and the captions that every model is prompted with."""

    images: Dataset
    prompts: tuple[str, ...]


def load_cultures(folders: Sequence[Path], scale: Scale, seed: int, tables: Sequence[int]) -> list[Culture]:
    """Each folder is a culture's dataset, or holds one in each sub-folder; a folder's name is the culture's.

    Raises UserError, one sentence, for a folder without a dataset, two cultures of one name, and too few images.
    """
    found = [_culture(folder, scale, seed, tables) for parent in folders for folder in _folders(parent)]
    names = [culture.name.casefold() for culture in found]
    for culture in found:
        if names.count(culture.name.casefold()) > 1:
            raise UserError(f"Two datasets are of the culture {culture.name!r}: give each folder a name of its own.")
    return found


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        raise UserError(f"The folder {parent} does not exist: give a culture's dataset, or a folder of several.")
    if holds_dataset(parent):
        return [parent]
    inside = [folder for folder in sorted(parent.iterdir()) if folder.is_dir() and holds_dataset(folder)]
    if not inside:
        raise UserError(
            f"Neither the folder {parent} nor one in it holds a dataset: lay each culture's out as "
            "<culture>/train/metadata.jsonl with its images beside."
        )
    return inside


def _culture(folder: Path, scale: Scale, seed: int, tables: Sequence[int]) -> Culture:
    name = " ".join(folder.resolve().name.replace("_", " ").split())
    dataset, report = load_folder(folder, culture=name, place=name)
    train, test = dataset.split("train"), dataset.split("test")
    held_out = not len(test)
    if held_out:
        train, test = hold_out(train, scale.test_share, seed)
    if scale.limit:
        train, test = (part.replace(part.records[: scale.limit]) for part in (train, test))
    if len(test) < LEAST_TEST:
        raise UserError(
            f"{name} has {len(test)} test image(s), but the tables need at least {LEAST_TEST}: put more into its "
            "test split, or give no test split and five images or more to hold some out."
        )
    pairs = len(chosen(train.records, scale.pairs, seed))
    if 2 in tables and pairs < scale.pairs:
        raise UserError(
            f"{name} has {pairs} training image(s) of different captions, but Table 2 needs {scale.pairs} of them: "
            "add images to its train split."
        )
    return Culture(name, train, test, held_out, report)


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, test): that share of each category's records, rounded, sampled by the seed; at least two of all."""
    held: set[int] = set()
    rng = np.random.default_rng(seed)
    for category in sorted({record.category for record in dataset.records}):
        own = [i for i, record in enumerate(dataset.records) if record.category == category]
        held |= {own[int(k)] for k in rng.permutation(len(own))[: round(share * len(own))]}
    rest = [int(i) for i in rng.permutation(len(dataset)) if int(i) not in held]
    held |= set(rest[: max(0, LEAST_TEST - len(held))])
    parts = (
        [replace(r, split=name) for i, r in enumerate(dataset.records) if (i in held) == (name == "test")]
        for name in ("train", "test")
    )
    train, test = map(dataset.replace, parts)
    return train, test


def chosen(records: Sequence[CultureRecord], count: int, seed: int) -> tuple[CultureRecord, ...]:
    """At most `count` records of different captions, sampled by the seed, in the order of sampling."""
    found: dict[str, CultureRecord] = {}
    for i in np.random.default_rng(seed).permutation(len(records)):
        found.setdefault(folded(records[int(i)].caption), records[int(i)])
    return tuple(found.values())[:count]


def load_generic(folder: Path, captions: Path | None, scale: Scale, seed: int) -> Generic:
    """The generic set: a folder with a caption to each image, or one of images and COCO's own file of captions.

    Raises UserError, one sentence, where captions or images are missing or too few.
    """
    if captions is None:
        dataset, _ = load_folder(folder)
    else:
        dataset = _coco(folder, captions)
    picked = chosen(dataset.records, scale.generic, seed)
    if len(picked) < scale.generic:
        raise UserError(
            f"The generic set {folder.name} has {len(picked)} images of different captions, but {scale.generic} are "
            "needed: add images with captions, or give --generic-captions."
        )
    return Generic(dataset, tuple(record.caption for record in picked))


def _coco(folder: Path, captions: Path) -> Dataset:
    """Images with their first caption each from a file of COCO's form (captions_val2017.json)."""
    try:
        found = json.loads(captions.read_bytes())
        names = {int(image["id"]): str(image["file_name"]) for image in found["images"]}
        rows = sorted((int(a["image_id"]), int(a["id"]), str(a["caption"])) for a in found["annotations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{captions.name} is not a file of captions in COCO's form: give captions_val2017.json or one like it."
        ) from error
    root, first = folder.resolve(), {}
    for image, _, caption in rows:
        path = root / names.get(image, "")
        if image not in first and caption.strip() and path.parent == root and path.is_file():
            first[image] = CultureRecord(path, " ".join(caption.split()), split="test")
    if not first:
        raise UserError(f"None of the images that {captions.name} describes is in {folder}: give their folder.")
    return Dataset(root, tuple(first.values()), root.name)


OWN, GENERIC, TRAINED, HELD_OUT = "test captions", "generic captions", "training prompts", "test prompts"


def image_specs(
    arm: Arm, culture: Culture, generic: Generic | None, scale: Scale, seed: int, tables: Sequence[int]
) -> list[ImageSpec]:
    """Every set of images that the tables need of an arm trained on a culture."""
    found = []
    if arm in MAIN and {1, 4} & set(tables):
        captions = list(dict.fromkeys(record.caption for record in culture.test.records))
        in_turn = tuple(captions[i % len(captions)] for i in range(scale.images))
        found.append(ImageSpec(OWN, in_turn, ("kid", "clip")))
        if generic is not None:
            found.append(ImageSpec(GENERIC, generic.prompts, ("kid",)))
    if arm in MEMORY and 2 in tables:
        pairs = tuple(r.caption for r in culture.pairs(scale, seed) for _ in range(scale.repeats))
        prompts = tuple(p for p in culture.prompts(scale, seed) for _ in range(scale.repeats))
        found.append(ImageSpec(TRAINED, pairs, ("clip", "dino", "dreamsim")))
        found.append(ImageSpec(HELD_OUT, prompts, ("clip", "dreamsim")))
    return found
