"""A `Dataset` -> a folder in CCUB's form, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...common.errors import UserError
from ..records import CultureRecord, Dataset
from .find import METADATA, SPLITS
from .folder import DATASET_PARTS, load_folder
from .metadata import PREFIX_OF_CATEGORY, facts_of_name


def save_dataset(dataset: Dataset, folder: Path, overwrite: bool = False) -> Path:
    """Write `<folder>/<split>/metadata.jsonl` with images, negatives and depth maps beside it; returns the folder.

    Files are copied byte for byte (they are the community's own, EXIF and all) and named `<PREFIX>_<n>` after their
    category. Splits other than train, test and validation are written at the top of the folder, each line naming
    its own. Records come back grouped by split, in their order otherwise. Keys of a foreign `metadata.jsonl` that
    no field of `CultureRecord` holds are not kept.
    The folder appears whole or not at all. Raises UserError when it already holds something, unless `overwrite`
    is set and a dataset is all that it holds; and when the dataset was itself read from there.
    """
    if not dataset.records:
        raise UserError("The dataset has no records: load or make some before saving it.")
    target = folder.resolve()
    for path in (dataset.root.resolve(), *(path for record in dataset.records for path in record.files())):
        if path.is_relative_to(target):
            raise UserError(f"The folder {target.name} is the one the dataset was read from: save it by another name.")
    with _replacing(target, overwrite) as part:
        numbers: Counter[str] = Counter()
        lines: dict[Path, list[str]] = {}
        for record in dataset.records:
            base = part / record.split if record.split in SPLITS else part
            prefix = _prefix(record)
            line = _write_files(record, base, f"{prefix}_{numbers[prefix]}")
            numbers[prefix] += 1
            lines.setdefault(base, []).append(json.dumps(line, ensure_ascii=False))
        for base, texts in lines.items():
            (base / METADATA[0]).write_text("\n".join(texts) + "\n", encoding="utf-8")
    return target


def from_images(
    images: Sequence[Tensor],
    captions: Sequence[str],
    generic_captions: Sequence[str | Sequence[str]] | None,
    culture: str,
    place: str,
    folder: Path,
    overwrite: bool = False,
) -> Dataset:
    """Write images as PNG with their words into a new folder in CCUB's form, and load it.

    images: each (H, W, 3) or (H, W, 4: the fourth is dropped), values in [0, 1], sizes may differ.
    captions: one an image. generic_captions: for each image one text or several; None for none.
    folder: as for `save_dataset`. Raises UserError when the counts differ, a caption is empty, or an image is not one.
    """
    generic = [()] * len(images) if generic_captions is None else list(generic_captions)
    if not images:
        raise UserError("There are no images to make a dataset from: connect at least one.")
    for what, count in (("captions", len(captions)), ("generic captions", len(generic))):
        if count != len(images):
            raise UserError(f"There are {len(images)} images but {count} {what}: give one for each image.")
    with _replacing(folder.resolve(), overwrite) as part:
        (part / "train" / "images").mkdir(parents=True)
        lines = []
        for n, (image, caption, others) in enumerate(zip(images, captions, generic, strict=True)):
            if not caption.strip():
                raise UserError(f"The caption of image {n + 1} is empty: write one for each image.")
            name = f"images/IMAGE_{n}.png"
            _image(image, n).save(part / "train" / name)
            several = [others] if isinstance(others, str) else list(others)
            line = {"file_name": name, "text": caption, "blip_text": several, "culture": culture, "place": place}
            lines.append(json.dumps(line, ensure_ascii=False))
        (part / "train" / METADATA[0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_folder(folder, strict=True)[0]


def _image(image: Tensor, n: int) -> Image.Image:
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise UserError(f"Image {n + 1} has the shape {tuple(image.shape)}: it was expected to be (height, width, 3).")
    values = image.detach()[..., :3].float().cpu()
    if not torch.isfinite(values).all():
        raise UserError(f"Image {n + 1} holds values that are not numbers: check the node that made it.")
    return Image.fromarray(values.clamp(0, 1).mul(255).round().to(torch.uint8).numpy())


def _prefix(record: CultureRecord) -> str:
    """CCUB's prefix of the category; else one from its own letters that no category or era would be read from."""
    if record.category in PREFIX_OF_CATEGORY:
        return PREFIX_OF_CATEGORY[record.category]
    letters = re.sub(r"[^A-Z]", "", record.category.upper())[:16] or "IMAGE"
    return "IMAGE" if any(facts_of_name(f"{letters}_0")) else letters


def _write_files(record: CultureRecord, base: Path, stem: str) -> dict[str, Any]:
    """Copy the record's files below `base`; its line of metadata, without what is empty."""
    line: dict[str, Any] = {
        "file_name": _copy(record.image, base, f"images/{stem}"),
        "text": record.caption,
        "blip_text": list(record.generic_captions),
        "negative_imgpath": [_copy(p, base, f"negatives/{stem}_{k}") for k, p in enumerate(record.negatives)],
        "split": record.split,
    }
    if record.depth is not None:
        line["depth"] = _copy(record.depth, base, f"depth/{stem}")
    words = ("culture", "place", "category", "era", "source", "collector", "licence", "consent", "verified_by")
    line |= {key: value for key in words if (value := getattr(record, key))}
    return line


def _copy(source: Path, base: Path, name: str) -> str:
    name += source.suffix.lower()
    target = base / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise UserError(
            f"The file {source.name} of the dataset is gone: put it back, or load the folder again."
        ) from error
    return name


@contextmanager
def _replacing(target: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `target` that takes its name when the body succeeds and vanishes when it fails."""
    _refuse_to_destroy(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex[:8]
    part, old = (target.with_name(f".{target.name}.{token}.{what}") for what in ("part", "old"))
    part.mkdir()
    try:
        yield part
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(part, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_to_destroy(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target.name} is a file: choose the name of a new folder.")
    held = {path.name for path in target.iterdir()}
    if held and not overwrite:
        raise UserError(f"The folder {target.name} already holds files: choose another name, or allow overwriting.")
    if foreign := sorted(held - set(DATASET_PARTS)):
        raise UserError(f"The folder {target.name} holds more than a dataset ({foreign[0]}): choose another name.")
