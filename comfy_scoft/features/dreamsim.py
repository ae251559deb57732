"""DreamSim: three transformers tuned to what people find alike, through the authors' optional package."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..models.weight_files import unpickled
from .network import FeatureNetwork
from .weights import local_file, require

DINO = "checkpoints/dino_vitbase16_pretrain.pth"
KINDS = {
    "ensemble_lora": ("ensemble", ("clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar")),
    "dino_vitb16_single_lora": ("dino_vitb16", ()),
    "clip_vitb32_single_lora": ("clip_vitb32", ("clip_vitb32_pretrain.pth.tar",)),
    "open_clip_vitb32_single_lora": ("open_clip_vitb32", ("open_clip_vitb32_pretrain.pth.tar",)),
}
"""Folder of the adapter -> the package's name for that DreamSim, and the files it wants beside that folder."""
WITH_DINO = ("ensemble", "dino_vitb16")


def load_dreamsim(checkpoint: Path | None = None) -> FeatureNetwork:
    """Its embedding of an image, (B, 1792) for the ensemble, at 224 px; images are stretched. D is 1 − cosine.

    `checkpoint` is the adapter file in `ensemble_lora` (or in another folder of KINDS) of a filled DreamSim cache
    folder; the networks that it adapts lie beside that folder. Nothing is downloaded, and no code from torch.hub runs.
    """
    name = "DreamSim"
    path = local_file(checkpoint, name, "the folder that DreamSim unpacks, and its ensemble_lora/adapter_model file,")
    folder, kind = _kind(path)
    package = require("dreamsim", "dreamsim", name)
    with _without_hub(folder), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package wraps its model for peft twice
        model, _ = package.dreamsim(pretrained=True, device="cpu", cache_dir=str(folder), dreamsim_type=kind)
    model.float()
    return FeatureNetwork(name, model, 224, (0.0,) * 3, (1.0,) * 3, lambda x: _embedding(model, x), clamp=True)


def _kind(path: Path) -> tuple[Path, str]:
    """The cache folder that an adapter lies in, and its DreamSim's name. Raises UserError where files are missing."""
    if path.parent.name not in KINDS:
        if not path.name.startswith("adapter_model"):
            raise RuntimeError("another network's file")  # load_features words it
        raise UserError(
            f"{path.name} lies in the folder {path.parent.name!r}, but DreamSim knows its kind by the folder's name: "
            f"leave it in {', '.join(KINDS)}, with the files beside that folder that DreamSim keeps there."
        )
    folder = path.parent.parent
    kind, beside = KINDS[path.parent.name]
    wanted = [*beside, f"{path.parent.name}/adapter_config.json"]
    wanted += ["dino_vitb16_pretrain.pth", DINO] if kind in WITH_DINO else []
    if absent := [file for file in wanted if not (folder / file).is_file()]:
        raise UserError(
            f"DreamSim's folder {folder.name!r} lacks {absent[0]}: copy the whole folder that DreamSim fills when it "
            "first runs."
        )
    for file in (*path.parent.glob("adapter_model.*"), *map(folder.joinpath, wanted)):
        if file.suffix not in (".json", ".safetensors"):
            unpickled(file)  # the package opens them as any pickle
    return folder, kind


@contextlib.contextmanager
def _without_hub(folder: Path) -> Iterator[None]:
    """The package takes DINO's code from torch.hub and moves the hub's folder: DINO is built here, the folder put back.

    DINO ViT-B/16 is the package's own transformer class; only its weights come from the hub's folder of checkpoints.
    """
    place, load = torch.hub.get_dir(), torch.hub.load

    def dino(repository: str, model: str, *args: Any, **kwargs: Any) -> nn.Module:
        assert model == "dino_vitb16", "only kinds of KINDS get here"
        from dreamsim.feature_extraction.vision_transformer import vit_base

        net = vit_base(patch_size=16, num_classes=0)
        net.load_state_dict(unpickled(folder / DINO))
        return net

    torch.hub.load = dino
    try:
        yield
    finally:
        torch.hub.load = load
        torch.hub.set_dir(place)


def _embedding(model: Any, x: Tensor) -> Tensor:
    """(B, D); the package keeps a device, a projection and the last graph in plain attributes, which are seen to."""
    extractors = model.base_model.model.extractor_list
    for extractor in extractors:
        extractor.device = x.device
        if isinstance(getattr(extractor, "proj", None), Tensor):
            extractor.proj = extractor.proj.to(x)
    found = model.embed(x)
    for extractor in extractors:
        extractor._feats = []
    return found
