"""Where feature networks' weights come from: files, the hub when it is allowed, and what is refused in a sentence."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from comfy_scoft.features import FEATURES, HUB, FeatureOptions, load_features, weights

MINI = "mini CLIP (layer 5)"


@pytest.mark.parametrize("name", [name for name in FEATURES if name != MINI])
def test_a_network_without_its_file_names_it_and_asks_nothing_of_the_net(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the internet was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(
        ValueError, match=f"{name.split()[0]}.* needs a file with its weights: put .* models/clip_vision"
    ):
        load_features(name)


@pytest.mark.parametrize("name", [name for name in FEATURES if name != MINI])
def test_a_damaged_or_wrong_file_is_named_in_one_sentence(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "ensemble_lora" if name == "DreamSim" else tmp_path
    folder.mkdir(exist_ok=True)
    beside = ("adapter_config.json", "../dino_vitb16_pretrain.pth", "../checkpoints/dino_vitbase16_pretrain.pth")
    for other in beside + tuple(f"../{kind}_vitb16_pretrain.pth.tar" for kind in ("clip", "open_clip")):
        (folder / other).resolve().parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(b"{")
    save_file({"lora_down.weight": torch.zeros(1, 1)}, folder / "other.safetensors")
    whole = (folder / "other.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-2])
    for path in (folder / "other.safetensors", folder / "cut.safetensors"):
        with pytest.raises(ValueError) as found:
            load_features(name, path)
        assert str(found.value) == f"{path.name} does not hold the weights of {name}: choose that network's file."


def test_a_torchscript_archive_is_refused_with_what_to_take(tmp_path: Path) -> None:
    path = tmp_path / "RN50.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ValueError, match="RN50.pt is a TorchScript archive, a program that is not run here: take the"):
        load_features("CLIP RN50 (layer 5)", path)


def test_another_clips_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open_clip_model.safetensors"
    save_file({"visual.conv1.weight": torch.zeros(768, 3, 32, 32)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of CLIP RN50"):
        load_features("CLIP RN50 (layer 5)", path)


@pytest.mark.parametrize("name, package", [("DreamSim", "dreamsim"), ("LPIPS VGG16", "lpips"), ("DINOv2 S/14", "timm")])
def test_a_missing_package_is_named_with_the_command_that_adds_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(f"comfy_scoft.features.{ {'dreamsim': 'dreamsim', 'lpips': 'vgg', 'timm': 'dino'}[package] }"
                        ".local_file", lambda path, *args: path)  # fmt: skip
    if package == "dreamsim":
        monkeypatch.setattr("comfy_scoft.features.dreamsim._kind", lambda path: (tmp_path, "ensemble"))
    path = tmp_path / "weights.safetensors"
    save_file({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=f"needs the Python package {package}, .* run `python install.py {package}` in"
    ):
        load_features(name, path)


def test_dreamsims_folder_must_be_whole(tmp_path: Path) -> None:
    adapter = tmp_path / "dreamsim" / "ensemble_lora" / "adapter_model.safetensors"
    adapter.parent.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, adapter)
    with pytest.raises(ValueError, match="folder 'dreamsim' lacks clip_vitb16_pretrain.pth.tar: copy the whole folder"):
        load_features("DreamSim", adapter)
    for kind in ("clip", "open_clip"):
        (tmp_path / "dreamsim" / f"{kind}_vitb16_pretrain.pth.tar").touch()
    (adapter.parent / "adapter_config.json").touch()
    (tmp_path / "dreamsim" / "dino_vitb16_pretrain.pth").touch()
    with pytest.raises(ValueError, match="lacks checkpoints/dino_vitbase16_pretrain.pth"):
        load_features("DreamSim", adapter)
    alone = adapter.rename(tmp_path / adapter.name)
    with pytest.raises(ValueError, match="DreamSim knows its kind by the folder's name: leave it in ensemble_lora"):
        load_features("DreamSim", alone)


def test_every_network_but_the_mini_one_and_dreamsim_is_on_the_hub() -> None:
    assert set(FEATURES) - set(HUB) == {MINI, "DreamSim"} and set(HUB) < set(FEATURES)
    import open_clip

    for name, model, tag in (
        ("CLIP RN50 (layer 5)", "RN50", "openai"),
        ("CLIP RN101 (layer 5)", "RN101", "openai"),
        ("CLIP ViT-B/32", "ViT-B-32", "openai"),
        ("SigLIP2 B/16", "ViT-B-16-SigLIP2", "webli"),
    ):
        assert open_clip.get_pretrained_cfg(model, tag)["hf_hub"] == f"{HUB[name][0]}/"
    import timm

    for name, (repository, _) in HUB.items():
        if name.startswith(("DINO", "VGG", "LPIPS")):
            assert timm.get_pretrained_cfg(repository.removeprefix("timm/")).hf_hub_id == repository


def test_an_allowed_download_takes_the_next_name_where_the_first_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "pytorch_model.bin", []
    torch.save({"wrong": torch.zeros(1)}, path)

    def hub(repository: str, name: str) -> str:
        asked.append((repository, name))
        if name.endswith(".safetensors"):
            raise huggingface_hub.errors.EntryNotFoundError("absent")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    with pytest.raises(ValueError, match="pytorch_model.bin does not hold the weights of DINOv2 S/14"):
        load_features("DINOv2 S/14", allow_download=True)
    repository = "timm/vit_small_patch14_dinov2.lvd142m"
    assert asked == [(repository, "model.safetensors"), (repository, "pytorch_model.bin")]
    with pytest.raises(ValueError, match="mini CLIP .layer 5. is not offered on Hugging Face: choose a local file"):
        load_features(MINI, allow_download=True)


def test_an_offline_hub_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not be taken from Hugging Face \(timm/resnet50_clip.openai\): allow"):
        load_features("CLIP RN50 (layer 5)", allow_download=True)


def test_shards_are_read_together_and_a_lost_one_is_named(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({f"part{number}": torch.ones(number)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    first = tmp_path / "model-00001-of-00002.safetensors"
    assert {k: len(v) for k, v in weights.read_weights(first).items()} == {"part1": 1, "part2": 2}
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="one part of 2, but model-00002-of-00002.safetensors is not beside it"):
        weights.read_weights(first)


def test_the_node_passes_its_choices_on_and_a_download_only_when_chosen(comfyui_path: Path, monkeypatch: Any) -> None:
    import comfy_inprocess

    comfy_inprocess.start()
    from comfy_scoft.comfyui.nodes import losses as nodes_losses

    node, asked = nodes_losses.LoadFeatures, []
    monkeypatch.setattr(
        nodes_losses, "load_features", lambda *given, allow_download: asked.append((*given, allow_download))
    )
    node.execute(network=MINI, checkpoint=nodes_losses.BUILT_IN)
    chosen = {"layer": 3, "distance": "own", "views": 2}
    node.execute(network=MINI, checkpoint=nodes_losses.DOWNLOAD, **chosen)
    assert asked == [(MINI, None, FeatureOptions(), False), (MINI, None, FeatureOptions(**chosen), True)]
    monkeypatch.undo()
    (network,) = node.execute(network=MINI, checkpoint=nodes_losses.BUILT_IN, layer=2, views=1).args
    assert network.name == "mini CLIP (layer 2), 1 view"
    inputs = node.define_schema().inputs
    assert [i.id for i in inputs] == ["network", "checkpoint", "layer", "distance", "views"]
    assert [i.default for i in inputs[2:]] == [0, "own", 0] and all(i.optional for i in inputs[2:])
    assert inputs[1].options[:2] == ["built in", nodes_losses.DOWNLOAD] and inputs[1].default == "built in"
