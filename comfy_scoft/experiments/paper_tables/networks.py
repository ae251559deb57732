"""The feature networks of the protocol by their role, and where their files lie: one folder, or named one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ...common.errors import UserError
from ...features import FeatureNetwork, load_features
from ...features.weights import local_file

INCEPTION = "Inception v3"
ROLES = {
    "training": "CLIP RN50 (layer 5)",
    "perceptual": "VGG16 (as released)",
    "filter": "DreamSim",
    "kid": INCEPTION,
    "clip": "CLIP ViT-B/32",
    "dino": "DINOv2 L/14",
    "dreamsim": "DreamSim",
}
"""training: P and C look through it. perceptual: P beside C does. filter: tells false negatives. kid, clip (CLIPScore
and CLIP-I), dino, dreamsim (memorization and diversity): measure. The paper names CLIP's fifth convolutional layer and
DreamSim alone."""
FILES = {
    "CLIP RN50 (layer 5)": "clip-rn50-openai.safetensors",
    "VGG16 (as released)": "vgg16-397923af.pth",
    "CLIP ViT-B/32": "clip-vit-b-32-openai.safetensors",
    "DINOv2 L/14": "dinov2-l-14.safetensors",
    "DINOv2 S/14": "dinov2-s-14.safetensors",
    "DreamSim": "dreamsim/ensemble_lora/adapter_model.safetensors",
    INCEPTION: "pt_inception-2015-12-05-6726825d.pth",
}
"""Where a network's file is looked for below --networks."""
CAPTIONER, DEPTH = "blip", "depth"
"""Folders below --networks: BLIP for generic captions, and the depth estimator's weights."""


@dataclass
class Networks:
    """folder: --networks. chosen: ROLE=NAME or ROLE=NAME=FILE, in place of the usual one. Each is loaded once."""

    folder: Path | None
    chosen: Sequence[str]
    device: torch.device
    _names: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    _loaded: dict[tuple[str, Path | None], FeatureNetwork] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for text in self.chosen:
            role, name, file = (*text.split("=", 2), "", "")[:3]
            if role not in ROLES or not name:
                raise UserError(
                    f"--network {text} is not understood: write ROLE=NAME or ROLE=NAME=FILE, with one of the roles "
                    f"{', '.join(ROLES)}."
                )
            self._names[role] = name, file

    def named(self, role: str) -> tuple[str, Path | None]:
        """The name and the file of a role's network. Raises UserError, one sentence, where the file is missing."""
        name, file = self._names.get(role, (ROLES[role], ""))
        path = Path(file) if file else None
        if path is None and self.folder is not None and name in FILES:
            path = self.folder / FILES[name]
        if not name.startswith("mini ") and (path is None or not path.is_file()):  # the mini ones are shipped
            where = f"{path} is not there" if path is not None else "no file was given"
            usual = f"put {FILES[name]} into the folder of --networks, or name " if name in FILES else "name "
            raise UserError(
                f"The network {name} ({role}) needs its weights, but {where}: {usual}the file with --network "
                f'"{role}={name}=FILE".'
            )
        return name, path

    def load(self, role: str) -> FeatureNetwork:
        """The role's network on the device."""
        key = self.named(role)
        if key not in self._loaded:
            found = load_inception(key[1]) if key[0] == INCEPTION else load_features(*key)
            self._loaded[key] = found.to(self.device)
        return self._loaded[key]

    def beside(self, name: str, what: str) -> Path:
        """A folder of --networks. Raises UserError, one sentence, where it is missing."""
        if self.folder is None or not (self.folder / name).is_dir():
            raise UserError(f"{what}, but there is no folder {name!r} in --networks: put it there.")
        return self.folder / name


def load_inception(checkpoint: Path | None) -> FeatureNetwork:
    """The Inception v3 of FID and KID, (B, 2048), as torch-fidelity runs it on 8-bit images; it has no gradient.

    checkpoint: torch-fidelity's file. Raises UserError, one sentence, for another file or without the package.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(f"{INCEPTION} needs the package torch-fidelity: run `pip install torch-fidelity`.") from error
    try:
        path = local_file(checkpoint, INCEPTION, FILES[INCEPTION])
        net = FeatureExtractorInceptionV3("scoft", ["2048"], feature_extractor_weights_path=str(path))
    except UserError:
        raise
    except Exception as error:  # torch and pickle each have errors of their own for a wrong file
        raise UserError(
            f"{Path(str(checkpoint)).name} does not hold the weights of {INCEPTION}: give torch-fidelity's "
            f"{FILES[INCEPTION]}."
        ) from error

    def forward(x: Tensor) -> Tensor:
        return net(x.mul(255.0).round().clamp(0, 255).to(torch.uint8))[0]

    return FeatureNetwork(INCEPTION, net, 299, (0.0,) * 3, (1.0,) * 3, forward, source=path, fit="none")
