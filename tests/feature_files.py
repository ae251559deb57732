"""Files of feature networks with random weights, in the formats that the real ones come in and at their real sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
"""A library's own features of its own preprocessed input: (B, 3, S, S) -> (B, C, …)."""


def random_weights(module: nn.Module, seed: int) -> nn.Module:
    """Frozen weights and statistics drawn by a generator, of the size that keeps what passes through them near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point() or value.ndim == 0:
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(1.0 + 0.2 * noise.clamp(-2, 2))
        elif value.ndim == 1:
            gain = name.endswith(("weight", "gamma"))  # gamma: of DINO's layer scale
            value.copy_(0.05 * noise + (1.0 if gain else 0.0))
        else:
            value.copy_(noise / value[0].numel() ** 0.5)
    return module.eval().requires_grad_(False)


def store(module: nn.Module, path: Path) -> Path:
    save_file({key: value.contiguous().clone() for key, value in module.state_dict().items()}, path)
    return path


def clip_file(folder: Path, architecture: str, ending: str = "safetensors") -> tuple[Path, Any]:
    """A whole CLIP, images and text, as open_clip keeps it."""
    import open_clip

    model = random_weights(open_clip.create_model(architecture), 1)
    path = folder / f"open_clip_model.{ending}"
    if ending == "safetensors":
        return store(model, path), model
    torch.save({"state_dict": model.state_dict()}, path)
    return path, model


def clip_conv(folder: Path, architecture: str) -> tuple[Path, Forward]:
    path, model = clip_file(folder, architecture)
    last = len(model.visual.layer1) + len(model.visual.layer2) + len(model.visual.layer3) + len(model.visual.layer4)
    assert last in (16, 33)
    found: list[Tensor] = []
    model.visual.layer4.register_forward_hook(lambda module, given, out: found.append(out))

    def forward(x: Tensor) -> Tensor:
        model.encode_image(x)
        return found.pop()

    return path, forward


def clip_vit(folder: Path) -> tuple[Path, Forward]:
    path, model = clip_file(folder, "ViT-B-32-quickgelu")
    found: list[Tensor] = []
    model.visual.transformer.resblocks[11].register_forward_hook(lambda module, given, out: found.append(out))

    def forward(x: Tensor) -> Tensor:
        model.encode_image(x)
        out = found.pop()
        return (out if out.shape[0] == len(x) else out.transpose(0, 1)).transpose(1, 2)

    return path, forward


def siglip2(folder: Path) -> tuple[Path, Forward]:
    path, model = clip_file(folder, "ViT-B-16-SigLIP2")
    found: list[Tensor] = []
    model.visual.trunk.norm.register_forward_hook(lambda module, given, out: found.append(out))

    def forward(x: Tensor) -> Tensor:
        model.encode_image(x)
        return found.pop().transpose(1, 2)

    return path, forward


def timm_vit(folder: Path, architecture: str, normed: bool) -> tuple[Path, Forward]:
    """`normed`: whether the features are taken after the last norm or, as DINOv2's, before it."""
    import timm

    settings = {"img_size": 224} if "dinov2" in architecture else {}
    stored = random_weights(timm.create_model(architecture, num_classes=0), 1)
    path = store(stored, folder / "model.safetensors")
    overlay = {"file": str(path)}
    model = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay, **settings).eval()
    found: list[Tensor] = []
    place = model.norm if normed else model.blocks[-1]
    place.register_forward_hook(lambda module, given, out: found.append(out))

    def forward(x: Tensor) -> Tensor:
        model.forward_features(x)
        return found.pop().transpose(1, 2)

    return path, forward


def vgg_file(folder: Path) -> tuple[Path, nn.Sequential]:
    """torchvision's vgg16, classifier included, as torchvision keeps it; and its convolutions."""
    import torchvision

    model = torchvision.models.vgg16(init_weights=False)
    random_weights(model.features, 1)
    with torch.no_grad():
        for layer in model.features:
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(1.4)  # ReLU takes half of what a layer gives
    path = folder / "vgg16-397923af.pth"
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier")}
    torch.save(weights | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path, model.features.eval()


HUBCONF = """
import os, torch
from dreamsim.feature_extraction.vision_transformer import vit_base

def dino_vitb16(pretrained=True):
    net = vit_base(patch_size=16, num_classes=0)
    net.load_state_dict(torch.load(os.path.join(torch.hub.get_dir(), "checkpoints", "dino_vitbase16_pretrain.pth")))
    return net
"""


def dreamsim_folder(folder: Path) -> Path:
    """A cache folder as DreamSim's ensemble fills it; the path of its adapter."""
    from dreamsim.feature_extraction.vision_transformer import DINOHead, vit_base
    from dreamsim.model import PerceptualModel
    from peft import LoraConfig, get_peft_model

    repository, checkpoints = folder / "facebookresearch_dino_main", folder / "checkpoints"
    repository.mkdir(parents=True)
    checkpoints.mkdir()
    (repository / "hubconf.py").write_text(HUBCONF)
    torch.save(random_weights(vit_base(16, num_classes=0), 1).state_dict(), checkpoints / "dino_vitbase16_pretrain.pth")
    head = {f"module.head.{k}": v for k, v in DINOHead(768, 2048).state_dict().items()}
    head["module.head.last_layer.weight"] = torch.zeros(2048, 256)
    torch.save({"student": head}, folder / "dino_vitb16_pretrain.pth")
    for seed, kind in ((2, "clip"), (3, "open_clip")):
        net = vit_base(patch_size=16)
        net.pos_drop = nn.LayerNorm(net.embed_dim)
        weights = random_weights(net, seed).state_dict()
        weights["proj"] = torch.randn(768, 512, generator=torch.Generator().manual_seed(seed)) / 28
        torch.save({"state_dict": weights}, folder / f"{kind}_vitb16_pretrain.pth.tar")
    place = torch.hub.get_dir()
    kinds = {"model_type": "dino_vitb16,clip_vitb16,open_clip_vitb16", "feat_type": "cls,embedding,embedding"}
    model = PerceptualModel(**kinds, stride="16,16,16", lora=True, load_dir=str(folder), device="cpu")
    torch.hub.set_dir(place)
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=8, lora_dropout=0.3, target_modules=["qkv"]))
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)) * 0.05)
    tuned.save_pretrained(folder / "ensemble_lora")
    return folder / "ensemble_lora" / "adapter_model.safetensors"


def blip2_folder(folder: Path) -> Path:
    """BLIP-2 for retrieval in transformers' form, random numbers in bf16 (2.4 GB); the path of its weights."""
    import transformers

    config = transformers.Blip2Config(image_text_hidden_size=256, qformer_config={"use_qformer_text_input": True})
    with torch.device("meta"):
        model = transformers.Blip2ForImageTextRetrieval(config)
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for key, value in model.state_dict().items():
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float32)
        scale = 0.05 if value.ndim == 1 else 1 / value[0].numel() ** 0.5
        one = value.ndim == 1 and key.endswith("weight")
        weights[key] = (drawn * scale + float(one)).to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["Blip2ForImageTextRetrieval"]
    config.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vision_config"]["num_hidden_layers"] == 39
    return folder / "model.safetensors"
