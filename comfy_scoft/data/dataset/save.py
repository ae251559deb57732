"""A `Dataset` -> a folder in CCUB's layout, written atomically."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...common.errors import UserError
from ...common.files import part_folder, publish_folder, regular
from ..images import to_bytes
from ..records import CultureRecord, Dataset
from .folder import DATASET_PARTS, load_folder
from .metadata import PREFIX_OF_CATEGORY, category_and_era_of_name
from .walk import METADATA, SPLITS


def save_dataset(dataset: Dataset, folder: Path, *, overwrite: bool = False) -> Path:
    """Write `<folder>/<split>/metadata.jsonl` with images, negatives and depth maps beside it; returns the folder.

    Files are copied byte for byte, EXIF included, and named `<PREFIX>_<n>` by category. Splits other than train, test
    and validation go to the top of the folder, with the split in each line. Loading the folder returns the records
    grouped by split. Keys of the source's `metadata.jsonl` without a field in `CultureRecord` are dropped.
    The folder is complete or absent. Raises UserError if it is not empty (unless `overwrite` is set and it holds only
    a dataset), or if the dataset was loaded from it.
    """
    if not dataset.records:
        raise UserError("The dataset has no records: load or make some before saving it.")
    target = folder.resolve()
    for path in (dataset.root.resolve(), *(path for record in dataset.records for path in record.files())):
        if path.is_relative_to(target):
            raise UserError(f"The folder {target.name} is the one the dataset was read from: save it by another name.")
    with _replacing(target, overwrite=overwrite) as part:
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
    *,
    overwrite: bool = False,
) -> Dataset:
    """Write images as PNG with their captions to a new folder in CCUB's layout, and load it.

    images: each (H, W, 3) or (H, W, 4), alpha dropped, in [0, 1]; sizes may differ.
    captions: one for each image. generic_captions: one or several for each image; None for none.
    folder, overwrite: as in `save_dataset`. Raises UserError if the counts differ, a caption is empty, or an image has
    another shape or non-finite values.
    """
    generic = [()] * len(images) if generic_captions is None else list(generic_captions)
    if not images:
        raise UserError("There are no images to make a dataset from: connect at least one.")
    for what, count in (("captions", len(captions)), ("generic captions", len(generic))):
        if count != len(images):
            raise UserError(f"There are {len(images)} images but {count} {what}: give one for each image.")
    with _replacing(folder.resolve(), overwrite=overwrite) as part:
        (part / "train" / "images").mkdir(parents=True)
        lines = []
        for n, (image, caption, of_image) in enumerate(zip(images, captions, generic, strict=True)):
            if not caption.strip():
                raise UserError(f"The caption of image {n + 1} is empty: write one for each image.")
            name = f"images/IMAGE_{n}.png"
            _image(image, n).save(part / "train" / name)
            blip_text = [of_image] if isinstance(of_image, str) else list(of_image)
            line = {"file_name": name, "text": caption, "blip_text": blip_text, "culture": culture, "place": place}
            lines.append(json.dumps(line, ensure_ascii=False))
        (part / "train" / METADATA[0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_folder(folder, strict=True)[0]


def _image(image: Tensor, n: int) -> Image.Image:
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise UserError(f"Image {n + 1} has the shape {tuple(image.shape)}: it was expected to be (height, width, 3).")
    if not torch.isfinite(image[..., :3]).all():
        raise UserError(f"Image {n + 1} holds values that are not numbers: check the node that made it.")
    return Image.fromarray(to_bytes(image[..., :3]).numpy())


def _prefix(record: CultureRecord) -> str:
    """CCUB's prefix of the category; for other categories one of their letters that is no prefix of CCUB's."""
    if record.category in PREFIX_OF_CATEGORY:
        return PREFIX_OF_CATEGORY[record.category]
    letters = re.sub(r"[^A-Z]", "", record.category.upper())[:16] or "IMAGE"
    return "IMAGE" if any(category_and_era_of_name(f"{letters}_0")) else letters


def _write_files(record: CultureRecord, base: Path, stem: str) -> dict[str, Any]:
    """Copy the record's files below `base`; returns its metadata line without empty values."""
    line: dict[str, Any] = {
        "file_name": _copy(record.image, base, f"images/{stem}"),
        "text": list(record.captions) if record.other_captions else record.caption,
        "blip_text": list(record.generic_captions),
        "negative_imgpath": [_copy(p, base, f"negatives/{stem}_{k}") for k, p in enumerate(record.negatives)],
        "split": record.split,
    }
    if record.depth is not None:
        line["depth"] = _copy(record.depth, base, f"depth/{stem}")
    optional = ("culture", "place", "category", "era", "source", "collector", "licence", "consent", "verified_by")
    line |= {key: value for key in optional if (value := getattr(record, key))}
    return line


def _copy(source: Path, base: Path, name: str) -> str:
    name += source.suffix.lower()
    target = base / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(regular(source), target)
    except FileNotFoundError as error:
        raise UserError(
            f"The file {source.name} of the dataset is missing: put it back, or load the folder again."
        ) from error
    return name


@contextmanager
def _replacing(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that replaces it if the body succeeds and is deleted if it fails."""
    _check_replaceable(target, overwrite=overwrite)
    with part_folder(target) as part:
        yield part
        _check_replaceable(target, overwrite=overwrite)
        try:
            publish_folder(part, target, overwrite=overwrite)
        except FileExistsError:  # another process was quicker
            _check_replaceable(target, overwrite=overwrite)
            raise


def _check_replaceable(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target.name} is a file: choose the name of a new folder.")
    contents = {path.name for path in target.iterdir()}
    if contents and not overwrite:
        raise UserError(f"The folder {target.name} already holds files: choose another name, or allow overwriting.")
    if foreign := sorted(contents - set(DATASET_PARTS)):
        raise UserError(f"The folder {target.name} holds more than a dataset ({foreign[0]}): choose another name.")
