"""The weights of an exported job: stored in its folder, or found by name and hash in a file elsewhere."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..common.errors import UserError
from ..common.logs import errors_only
from ..common.text import composed
from ..models.mini.layout import WEIGHTS
from ..models.single_file import load_base
from ..models.stable_diffusion import BaseModel
from ..negatives.depth import file_hash


def named(path: Path | None) -> dict[str, str] | None:
    """A file by its name and hash: where it lies differs from machine to machine."""
    return None if path is None else {"name": path.name, "sha256": file_hash(path)}


def find(folder: Path, entry: dict[str, str], models: Path | None) -> Path:
    """A file that the job names: in the job's folder, among the pack's own weights, or below `models`."""
    name = Path(str(entry["name"])).name
    places = [folder, *sorted(WEIGHTS.glob("*")), *([models] if models is not None else [])]
    found = [path for place in places if place.is_dir() for path in _files(place, name, deep=place == models)]
    for path in found:
        if file_hash(path) == entry["sha256"]:
            return path
    if found:
        raise UserError(
            f"The file {name!r} is not the one that the job was written with (its hash differs): find that one, or "
            "export the job again with this one."
        )
    raise UserError(
        f"The job needs the file {name!r}: put it beside job.json, or name the folder that holds it with --models."
    )


def _files(place: Path, name: str, *, deep: bool) -> list[Path]:
    """The files of that name in a folder, deep: and below it; however the name is composed."""
    walked = os.walk(place) if deep else islice(os.walk(place), 1)
    paths = (Path(root, each) for root, _, names in walked for each in names if composed(each) == composed(name))
    return [path for path in paths if path.is_file()]


def compare(base: BaseModel, checkpoint: Path) -> None:
    """Refuse a checkpoint whose UNet or autoencoder is not the run's own, to the bit."""
    theirs = load_base(checkpoint, base.schedule.prediction)
    for what, ours, other in (("MODEL", base.unet, theirs.unet), ("VAE", base.vae, theirs.vae)):
        mine, found = ours.state_dict(), other.state_dict()
        if mine.keys() != found.keys() or any(not torch.equal(mine[k].cpu().float(), found[k]) for k in mine):
            raise UserError(
                f"The {what} is not the one in {checkpoint.name!r} (another file, or a LoRA is applied to it): choose "
                "its own file, or store the weights in the job."
            )


def stored(folder: Path, part: str, kind: str) -> Any:
    """A module of the job's own weights, frozen; only classes that jobs are written with are ever loaded."""
    import diffusers

    if kind not in ("UNet2DConditionModel", "AutoencoderKL", "AutoencoderTiny"):
        raise UserError(f"The job stores a module of kind {kind!r}, which is not known: export it again.")
    try:
        with errors_only("diffusers"):  # it warns of fields that its own classes have put there
            module = getattr(diffusers, kind).from_pretrained(
                str(folder / part), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
            )
    except (OSError, ValueError) as error:
        raise UserError(f"The job's folder {part!r} is missing or damaged: copy the whole folder again.") from error
    return module.eval().requires_grad_(False)
