"""The architecture of the mini model: Stable Diffusion 1.x, but small.

The build scripts train these modules, assemble.py writes them as single files, single_file.py reads them outside
ComfyUI and comfyui/mini_model.py registers them with ComfyUI. Parameters: UNet 4.2 M, autoencoder 2.4 M, text encoder
5.0 M (unused rows of the vocabulary are zero and not stored), ControlNet 2.5 M.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel

WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINT = "scoft-mini.safetensors"
CONTROLNET = "scoft-mini-depth.safetensors"
TOWER = "scoft-mini-clip.safetensors"

CHANNELS = (64, 128)
HEADS = 4
CONTEXT = 96
LATENT_SCALE = 0.18215
"""ComfyUI divides sampled latents by it; the file's `vae_scale` undoes that, as TAESD latents need no scaling."""

TEXT = {
    "hidden_size": CONTEXT,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
"""Text encoder config, for transformers' CLIPTextConfig and for ComfyUI's CLIP."""

TOWER_SETTINGS = {
    "embed_dim": 96,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": CONTEXT, "heads": 4, "layers": 2},
    "quick_gelu": True,
}
"""Arguments of open_clip's `CLIP`; its image tower is the mini feature network."""


def build_unet() -> UNet2DConditionModel:
    """Two levels with one block each and a transformer at every block: 7 transformers, 56 attention projections."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=HEADS,
        cross_attention_dim=CONTEXT,
        norm_num_groups=32,
    )


def build_autoencoder() -> AutoencoderTiny:
    """TAESD with ComfyUI's width: 64 channels, four latent channels, a factor of 8."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(latent_channels=4)


def build_controlnet(unet: UNet2DConditionModel | None = None) -> ControlNetModel:
    """A ControlNet for `build_unet`, initialized from `unet`'s encoder unless None.

    The hint encoder has Stable Diffusion's widths (16, 32, 96, 256), the only ones that ComfyUI's loader supports.
    """
    from diffusers import ControlNetModel

    return ControlNetModel.from_unet(
        unet if unet is not None else build_unet(),
        conditioning_embedding_out_channels=(16, 32, 96, 256),
        load_weights_from_unet=unet is not None,
    )
