"""Captioners and depth networks of random weights, saved in folders as the hub gives the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from toys import random_weights

WORDS = "a an the man woman child house tree dish of rice bowl on table street with and in front red gold old".split()


def blip_folder(folder: Path, real: bool = False, seed: int = 1) -> Path:
    """BLIP: config.json, model.safetensors, processor and a WordPiece vocabulary. real: at the size of BLIP base."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    folder.mkdir(parents=True)
    words = 30_524 if real else len(WORDS) + 106
    small: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    small |= {"num_hidden_layers": 2}
    text = {"vocab_size": words, "bos_token_id": words - 2, "encoder_hidden_size": 768 if real else 32}
    text |= {"is_decoder": True} if real else {"is_decoder": True, "max_position_embeddings": 64, **small}
    vision = {"image_size": 384, "patch_size": 16} if real else {"image_size": 32, "patch_size": 8, **small}
    with torch.random.fork_rng():
        model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    random_weights(model, seed)
    with torch.no_grad():  # words that are likely and others that are not, the end among the likely ones
        bias = torch.linspace(3, 0, words)
        bias[:104] = -20.0
        bias[-2:] = -20.0
        bias[102] = 4.0
        model.text_decoder.cls.predictions.bias.copy_(bias)
    model.save_pretrained(folder)
    side = vision["image_size"]
    BlipImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary(words)) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "processor_class": "BlipProcessor"}))
    return folder


def vocabulary(count: int) -> list[str]:
    """BERT's layout: [PAD] at 0, [UNK] … [MASK] at 100 to 103, then words; BLIP's own two at the end are not in it."""
    special = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return (special + [f"word{n}" for n in range(count)])[: count - 2]


def midas_folder(folder: Path, seed: int = 2) -> Path:
    """controlnet-aux's DPT-hybrid (ViT-B/16 on a ResNet-50, 384 px), which has one size only."""
    from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        net = random_weights(DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True), seed)
    torch.save(net.state_dict(), folder / "dpt_hybrid-midas-501f0c75.pt")
    return folder


def dpt_folder(folder: Path, real: bool = False, seed: int = 3) -> Path:
    """DPT-hybrid of transformers; real: the sizes of Intel/dpt-hybrid-midas."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    side = 384 if real else 64
    backbone: dict[str, Any] = {"layer_type": "bottleneck", "depths": [3, 4, 9]}
    backbone |= {"global_padding": "same", "embedding_dynamic_padding": True}
    backbone |= {"out_features": ["stage1", "stage2", "stage3"]}
    config: dict[str, Any] = {"is_hybrid": True, "image_size": side, "readout_type": "project"}
    config |= {"neck_ignore_stages": [0, 1], "neck_hidden_sizes": [256, 512, 768, 768]}
    config |= {"backbone_out_indices": [2, 5, 8, 11], "backbone_featmap_shape": [1, 1024, side // 16, side // 16]}
    if not real:
        backbone |= {"depths": [1, 1, 1], "embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "num_groups": 4}
        config |= {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
        config |= {"backbone_out_indices": [0, 1, 2, 3], "backbone_featmap_shape": [1, 32, 4, 4]}
        config |= {"neck_hidden_sizes": [8, 16, 32, 32], "fusion_hidden_size": 16}
    with torch.random.fork_rng():
        net = random_weights(DPTForDepthEstimation(DPTConfig(backbone_config=backbone, **config)), seed)
    net.save_pretrained(folder)
    DPTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def depth_anything_folder(folder: Path, real: bool = False, seed: int = 4, **changes: Any) -> Path:
    """Depth Anything V2; real: the sizes of the Small one (DINOv2 ViT-S/14 at 518 px)."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    side = 518 if real else 70
    backbone: dict[str, Any] = {"image_size": side, "patch_size": 14, "reshape_hidden_states": False}
    backbone |= {"hidden_size": 384, "num_attention_heads": 6, "out_indices": [3, 6, 9, 12]} if real else {}
    config: dict[str, Any] = {}
    if not real:
        backbone |= {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}
        config = {"reassemble_hidden_size": 24, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
    config |= {"depth_estimation_type": "relative", **changes}
    with torch.random.fork_rng():
        net = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=Dinov2Config(**backbone), **config))
    random_weights(net, seed).save_pretrained(folder)
    steps = {"keep_aspect_ratio": True, "ensure_multiple_of": 14}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    size = {"height": side, "width": side}
    DPTImageProcessor(size=size, image_mean=mean, image_std=std, **steps).save_pretrained(folder)
    return folder
