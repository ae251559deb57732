"""Where weights come from: a local file, or Hugging Face when a person allows it. And the packages they need."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..common.errors import UserError
from ..models.weight_files import unpickled

_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_PLAIN = ("model.safetensors", "pytorch_model.bin")

HUB: dict[str, tuple[str, tuple[str, ...]]] = {
    "CLIP RN50 (layer 5)": ("timm/resnet50_clip.openai", _CLIP),
    "CLIP RN101 (layer 5)": ("timm/resnet101_clip.openai", _CLIP),
    "CLIP ViT-B/32": ("timm/vit_base_patch32_clip_224.openai", _CLIP),
    "SigLIP2 B/16": ("timm/ViT-B-16-SigLIP2", _CLIP),
    "DINOv2 L/14": ("timm/vit_large_patch14_dinov2.lvd142m", _PLAIN),
    "DINOv2 S/14": ("timm/vit_small_patch14_dinov2.lvd142m", _PLAIN),
    "DINOv3 L/16": ("timm/vit_large_patch16_dinov3.lvd1689m", _PLAIN),
    "DINOv3 S/16": ("timm/vit_small_patch16_dinov3.lvd1689m", _PLAIN),
    "BLIP-2 Q-Former": ("Salesforce/blip2-itm-vit-g", _PLAIN),
    "LPIPS VGG16": ("timm/vgg16.tv_in1k", _PLAIN),
    "VGG16 (as released)": ("timm/vgg16.tv_in1k", _PLAIN),
    "VGG16 (pre-ReLU)": ("timm/vgg16.tv_in1k", _PLAIN),
}
"""Menu name -> repository on Hugging Face, and the names of the file there, the wanted one first."""


def require(module: str, package: str, what: str) -> Any:
    """The imported module. Raises UserError that names the pip command where its package is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{what} needs the Python package {package}, which cannot be imported here: "
            f"run `python install.py {package}` in this pack's folder with the Python that runs ComfyUI."
        ) from error


def local_file(checkpoint: Path | None, name: str, which: str, holds: str = "") -> Path:
    """The file of weights; `holds` names a tensor by which the right one is known before a large network is built.

    Raises UserError, saying which file is wanted, where there is none or it is a program, and other errors, which
    `load_features` words, for one of other weights, or of more than weights: no package gets to open that.
    """
    if checkpoint is None or not Path(checkpoint).is_file():
        more = ", or allow its download there" if name in HUB else ""
        raise UserError(
            f"{name} needs a file with its weights: put {which} into ComfyUI's models/clip_vision folder and choose "
            f"it as the checkpoint{more}."
        )
    path = Path(checkpoint)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in entry for entry in archive.namelist()):
                raise UserError(
                    f"{path.name} is a TorchScript archive, a program that is not run here: take the same weights as "
                    f"a safetensors file ({which})."
                )
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            if holds and holds not in file.keys():  # noqa: SIM118 - it is no dict
                raise RuntimeError(f"no tensor named {holds}")
    else:
        unpickled(path)
    return path


def download(name: str) -> Path:
    """The file of a network's weights from Hugging Face, kept in its cache; only for a person who allowed it.

    Raises UserError where the network is not there, or cannot be reached (HF_HUB_OFFLINE forbids it).
    """
    if name not in HUB:
        raise UserError(f"{name} is not offered on Hugging Face: choose a local file, or what is built in.")
    hub = require("huggingface_hub", "huggingface_hub", "Downloading weights")
    repository, names = HUB[name]
    for wanted in names:
        try:
            return Path(hub.hf_hub_download(repository, wanted))
        except Exception as error:  # the hub's own, and those of what it asks the internet with: they differ by version
            absent = type(error).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError")
            if absent and wanted != names[-1]:
                continue
            raise UserError(
                f"{name} could not be taken from Hugging Face ({repository}): allow and check the connection, or put "
                "the file into ComfyUI's models/clip_vision folder and choose it."
            ) from error
    raise AssertionError("the last name is returned or raised")


def read_weights(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name: safetensors, or a pickle of tensors alone. Shards beside the first one are read too."""
    if found := re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\.\w+)", path.name):
        stem, total, ending = found.groups()
        paths = [path.with_name(f"{stem}-{n:05d}-of-{total}{ending}") for n in range(1, int(total) + 1)]
        if absent := [p.name for p in paths if not p.is_file()]:
            raise UserError(f"{path.name} is one part of {total.lstrip('0')}, but {absent[0]} is not beside it.")
    else:
        paths = [path]
    weights: dict[str, Tensor] = {}
    for part in paths:
        if part.suffix == ".safetensors":
            weights |= load_file(part)
        else:
            weights |= unpickled(part)
    return weights
