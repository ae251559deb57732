"""TAESD from ComfyUI's preview decoders: the same images as ComfyUI's own decoder draws."""

from __future__ import annotations

from pathlib import Path

import comfy_inprocess as tiny
import pytest
import torch
from safetensors.torch import save_file
from toys import random_weights, toy_base

comfy = tiny.start()

import folder_paths  # noqa: E402  (needs a started ComfyUI)
from comfy.taesd.taesd import TAESD  # noqa: E402

from comfy_scoft.comfyui.small_vae import FOLDER, small_vae  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models/vae_approx."""
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], folder_paths.supported_pt_extensions)
    )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def native(folder: Path, name: str, seed: int) -> TAESD:
    """ComfyUI's own module with random weights, its two halves written as files."""
    module = TAESD(latent_channels=4)
    random_weights(module.taesd_encoder, seed)
    random_weights(module.taesd_decoder, seed + 1)
    for half in ("encoder", "decoder"):
        weights = getattr(module, f"taesd_{half}").state_dict()
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}_{half}.safetensors")
    return module


@pytest.mark.parametrize("family, name", [("sd1", "taesd"), ("sd2", "taesd"), ("sdxl", "taesdxl")])
def test_it_draws_what_comfyui_draws_from_the_same_scaled_latents(family: str, name: str, folder: Path) -> None:
    other = native(folder, "taesdxl" if name == "taesd" else "taesd", 50)
    own = native(folder, name, 10)
    base = toy_base()
    base.family = family
    with torch.inference_mode(False):
        base.small_vae = small_vae(base)
        z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        drawn = base.decode(z, small=True)
        drawn.square().mean().backward()
    assert z.grad is not None and bool(z.grad.any()) and not any(p.requires_grad for p in base.small_vae.parameters())
    with torch.no_grad():
        expected = own.taesd_decoder(z.detach()).sub(0.5).mul(2.0)
        assert torch.allclose(drawn.detach(), expected, atol=1e-4)
        assert not torch.allclose(drawn.detach(), other.taesd_decoder(z.detach()).sub(0.5).mul(2.0), atol=1e-2)


def test_without_its_files_there_is_none_and_others_are_refused_in_a_sentence(folder: Path) -> None:
    base = toy_base()
    assert small_vae(base) is None, "the mini model has none"
    base.family = "sd1"
    assert small_vae(base) is None
    native(folder, "taesd", 10)
    (folder / "taesd_decoder.safetensors").unlink()
    assert small_vae(base) is None, "half of it is nothing"
    save_file({"1.weight": torch.zeros(2, 2)}, folder / "taesd_decoder.safetensors")
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match="taesd_decoder in models/vae_approx are not those of TAESD: download"):
        small_vae(base)
    (folder / "taesd_decoder.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="are not those of TAESD"):
        small_vae(base)
