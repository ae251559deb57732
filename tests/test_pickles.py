"""A file of weights runs nothing, whichever package loads it: pickles of more than tensors are refused unopened."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import comfy_inprocess as tiny
import pytest
import torch
from model_folders import midas_folder
from safetensors.torch import save_file

from comfy_scoft.common.errors import UserError
from comfy_scoft.data.captions import BLIP
from comfy_scoft.experiments.paper_tables.networks import load_inception
from comfy_scoft.features import FEATURES, load_features
from comfy_scoft.features.dreamsim import DINO, load_dreamsim
from comfy_scoft.models.weight_files import unpickled
from comfy_scoft.negatives.depth import DEPTH, MIDAS, load_depth

DREAMSIM = ("clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar", "dino_vitb16_pretrain.pth", DINO)


class Trap:
    """A value that makes a file when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple:
        return Path.touch, (self.ran,)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Writes a trap as a file; torch.load runs pickles by itself, as it did before torch 2.6."""
    load, ran = torch.load, tmp_path / "ran"
    monkeypatch.setattr(torch, "load", lambda *args, **more: load(*args, **({"weights_only": False} | more)))

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {"features.0.weight": Trap(ran)}}, path)
        return path

    torch.load(write(tmp_path / "try.pt"))
    assert ran.exists(), "the trap works"
    ran.unlink()
    yield write
    assert not ran.exists()


@pytest.mark.parametrize("name", [name for name in FEATURES if not name.startswith(("mini", "DreamSim"))])
@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "tar", "npz"])
def test_no_feature_network_runs_a_pickle(name: str, ending: str, tmp_path: Path, trap) -> None:
    with pytest.raises(UserError, match=r"weights\.\w+ does not hold the weights of"):
        load_features(name, trap(tmp_path / f"weights.{ending}"))


@pytest.mark.parametrize("file", ["ensemble_lora/adapter_model.bin", *DREAMSIM])
def test_dreamsim_runs_no_pickle_of_its_folder(file: str, tmp_path: Path, trap) -> None:
    for each in DREAMSIM:
        (tmp_path / each).parent.mkdir(exist_ok=True)
        torch.save({}, tmp_path / each)
    adapter = tmp_path / "ensemble_lora" / "adapter_model.safetensors"
    adapter.parent.mkdir()
    save_file({"x": torch.zeros(1)}, adapter)
    adapter.with_name("adapter_config.json").write_text("{}")
    trap(tmp_path / file)
    with pytest.raises(Exception, match="[Ww]eights"):
        load_dreamsim(adapter)


def test_neither_midas_nor_inception_runs_a_pickle(tmp_path: Path, trap) -> None:
    trap(tmp_path / "midas" / MIDAS.weights)
    with pytest.raises(UserError, match="'midas' is incomplete, damaged or of another kind"):
        load_depth(MIDAS.name, tmp_path / "midas")
    with pytest.raises(UserError, match="does not hold the weights of Inception v3"):
        load_inception(trap(tmp_path / "inception.pth"))


@pytest.mark.parametrize("loader", [BLIP, *(each for each in DEPTH.values() if getattr(each, "model_type", ""))])
def test_a_folder_of_transformers_is_loaded_from_safetensors_alone(loader: Any, tmp_path: Path, trap) -> None:
    trap(tmp_path / "own" / "pytorch_model.bin")
    (tmp_path / "own" / "config.json").write_text(f'{{"model_type": "{loader.model_type}"}}')
    with pytest.raises(UserError, match="'own' holds no "):
        loader(tmp_path / "own")
    (tmp_path / "own" / loader.weights).write_bytes(b"damaged")
    with pytest.raises(UserError, match="'own' is incomplete, damaged or of another kind"):
        loader(tmp_path / "own")


def test_the_small_autoencoder_runs_no_pickle(tmp_path: Path, trap, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.start()
    from comfy_scoft.comfyui import small_vae

    monkeypatch.setattr(small_vae, "_file", lambda start: trap(tmp_path / f"{start}pth"))
    with pytest.raises(UserError, match="are not those of TAESD"):
        small_vae.small_vae(type("Base", (), {"family": "sd1"})())


@pytest.mark.parametrize("version", ["2.5.1+cu121", "2.0.0", "1.13.1"])
def test_a_torch_that_cannot_open_pickles_safely_opens_none(version: str, tmp_path: Path, trap, monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    asked = rf"weights.pt is a pickle, which torch {version[:3]}.+ cannot open safely: update torch to 2\.6 or newer"
    with pytest.raises(UserError, match=asked):
        load_features("VGG16 (pre-ReLU)", trap(tmp_path / "weights.pt"))
    path = tmp_path / "midas" / MIDAS.weights
    with pytest.raises(UserError, match=r"update torch to 2\.6 or newer"):
        load_depth(MIDAS.name, trap(path).parent)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_opened_in_either_form_of_torchs_files(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(unpickled(tmp_path / "a.pt")["a"], torch.arange(3.0))


@pytest.mark.long
def test_midas_is_loaded_without_the_packages_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from controlnet_aux.midas.midas.base_model import BaseModel

    monkeypatch.setattr(BaseModel, "load", partial(pytest.fail, "the package has opened a file"))
    depth = load_depth(MIDAS.name, midas_folder(tmp_path / "midas")).estimate(torch.zeros(1, 3, 64, 64))
    assert depth.shape == (1, 1, 64, 64)
