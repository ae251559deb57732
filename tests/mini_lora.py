"""A LoRA of the mini model for workflows that use the one that `train-cultural-lora-mini` saves."""

from __future__ import annotations

import torch
import workflow_parts
from comfy_server import ComfyServer
from safetensors.torch import load_file, save_file

from comfy_scoft.models.mini import layout


def save_random_lora(comfy: ComfyServer) -> None:
    """Saves random weights in ComfyUI's LoRA folder, under the workflows' name for them."""
    base = load_file(layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT)
    rows, columns = base["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight"].shape
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v"
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{key}.lora_down.weight": torch.randn(4, columns, generator=generator),
        f"{key}.lora_up.weight": torch.randn(rows, 4, generator=generator) * 0.2,
        f"{key}.alpha": torch.tensor(4.0),
    }
    folder = comfy.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / workflow_parts.LORA)
