"""Folders of images -> the image sets of a survey: one folder for each model, files of one name for one prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ..common.errors import UserError
from ..data.dataset import load_folder
from ..data.dataset.names import same_name, same_stem
from ..data.dataset.walk import natural
from ..data.formats import EXTENSIONS
from ..data.images import read_pixels
from ..metrics.image_set import ImageSet


def sets_of_folders(folders: Mapping[str, Path], prompts: Sequence[str] = ()) -> list[ImageSet]:
    """The set of each folder, by its label, its images in the order of their names, 2 before 10.

    Images of one name (without its ending) have one prompt: the caption of that image in any of the folders, in any
    form that `load_folder` reads. With `prompts`, one for each image, names may differ: then the order counts.
    Raises UserError, one sentence, for folders that do not belong together, an image without a prompt, and images of
    different sizes in one folder.
    """
    files = {label: _images(folder) for label, folder in folders.items()}
    first = next(iter(files))
    names = [_name(path) for path in files[first]]
    for label, paths in files.items():
        if len(paths) != len(names) or (not prompts and [_name(path) for path in paths] != names):
            raise UserError(
                f"The folders of {first!r} and {label!r} hold {len(names)} and {len(paths)} images, or images of other "
                "names: give the images of one prompt and seed the same name in every folder, or all prompts with "
                "--prompts."
            )
    if prompts and len(prompts) != len(names):
        raise UserError(
            f"There are {len(prompts)} prompts for {len(names)} images of a folder: give one line for each image, in "
            "the order of the images' names."
        )
    asked = tuple(prompts) or tuple(_captions(folders.values(), names))
    seen: Counter[str] = Counter()
    seeds = []
    for prompt in asked:  # one prompt's images are told apart by a number in place of their seed
        seeds.append(seen[prompt])
        seen[prompt] += 1
    return [ImageSet(_pixels(paths), asked, tuple(seeds), label) for label, paths in files.items()]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}: give each model's label and its folder, as base=FOLDER.")
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]  # macOS adds ._1.png to 1.png
    found = [path for path in seen if path.suffix.lower() in EXTENSIONS and path.is_file()]
    if not found:
        raise UserError(f"The folder {folder.name!r} holds no image: put one image for each prompt into it.")
    return sorted(found, key=lambda path: natural(same_name(path.name)))


def _name(image: Path) -> str:
    return same_stem(image.name)


def _captions(folders: Iterable[Path], names: Sequence[str]) -> list[str]:
    known: dict[str, str] = {}
    for folder in folders:
        try:
            records = load_folder(folder)[0].records
        except UserError:  # no captions in this one
            continue
        known |= {_name(record.image): record.caption for record in records}
    bare = [name for name in names if name not in known]
    if bare:
        raise UserError(
            f"{len(bare)} image(s) have no prompt ({bare[0]!r} is the first): put a text file of the same name beside "
            "each image of one folder, or give --prompts."
        )
    return [known[name] for name in names]


def _pixels(paths: Sequence[Path]) -> torch.Tensor:
    """(N, H, W, 3) in [0, 1]."""
    images = [read_pixels(path).add(1.0).div(2.0).permute(1, 2, 0) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            height, width = image.shape[:2]
            raise UserError(
                f"{path.name} in {path.parent.name!r} is {width} × {height} pixels, but the first image is "
                f"{images[0].shape[1]} × {images[0].shape[0]}: give images of one size."
            )
    return torch.stack(images)
