"""Stable Diffusion 1.x and XL at a fraction of their width, for tests that run whole workflows on a CPU.

The structure is the real one (blocks, depths of SD 1.x, both text encoders of XL), and so are the names in the files;
only widths shrink. ComfyUI tells models apart by their sizes, so it has to be told: `register()` does that in the
process, and `install()` puts this very file into a server's custom_nodes. Knows nothing of the pack.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

SMALL = {
    "sd1": {
        "model_channels": 32,
        "channel_mult": [1, 2, 4, 4],
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": 64,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "sdxl": {
        "model_channels": 64,
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 3, 3],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3],
        "transformer_depth_middle": 3,
        "context_dim": 112,
        "use_linear_in_transformer": True,
        "adm_in_channels": 48 + 6 * 256,
    },
}
"""UNets, in the words of ComfyUI's `unet_config`."""

WORDS = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
CLIP_L = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
CLIP_L |= {"hidden_act": "quick_gelu", "projection_dim": 64, **WORDS}
CLIP_G = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
CLIP_G |= {"hidden_act": "gelu", "projection_dim": 48, **WORDS}
"""Text encoders, in the words of transformers' CLIPTextConfig: OpenAI's, and OpenCLIP's second one of SD XL."""

MATCHED = ("context_dim", "model_channels", "use_linear_in_transformer", "adm_in_channels")


def register() -> None:
    """Add the small models to ComfyUI's list of supported ones. Safe to call again."""
    import comfy.supported_models

    models = comfy.supported_models.models
    names = {model.__name__ for model in models}
    models += [kind for kind in (_small_sd1(), _small_sdxl()) if kind.__name__ not in names]


def install(base: Path) -> None:
    """Put this file into the custom_nodes of a ComfyUI that is yet to start with `base` as its folder."""
    folder = base / "custom_nodes"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(__file__, folder / "small_models.py")


def _encoder(base: type, config: dict[str, Any]) -> type:
    class Encoder(base):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None, **more: Any) -> None:
            name = "clip_l" if config is CLIP_L else "clip_g"
            options = {**(model_options or {}), f"{name}_model_config": config}
            super().__init__(device=device, dtype=dtype, model_options=options, **more)

    return Encoder


def _small_sd1() -> type:
    import comfy.sd1_clip as clip
    import comfy.supported_models as known
    from comfy.supported_models_base import ClipTarget

    class Text(clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            kind = _encoder(clip.SDClipModel, CLIP_L)
            super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=kind)

    class SmallSD15(known.SD15):
        unet_config = {**known.SD15.unet_config, **{k: SMALL["sd1"][k] for k in MATCHED}}

        def clip_target(self, state_dict: Any = None) -> Any:
            return ClipTarget(clip.SD1Tokenizer, Text)

    return SmallSD15


def _small_sdxl() -> type:
    import comfy.sd1_clip as clip
    import comfy.sdxl_clip as xl
    import comfy.supported_models as known
    from comfy.supported_models_base import ClipTarget

    class Text(xl.SDXLClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super(xl.SDXLClipModel, self).__init__()
            given = {"device": device, "dtype": dtype, "model_options": model_options or {}}
            first = _encoder(clip.SDClipModel, CLIP_L)
            self.clip_l = first(layer="hidden", layer_idx=-2, layer_norm_hidden_state=False, **given)
            self.clip_g = _encoder(xl.SDXLClipG, CLIP_G)(**given)
            self.dtypes = {dtype}

        def load_sd(self, sd: dict) -> Any:
            large = sd["text_model.final_layer_norm.weight"].shape[0] == CLIP_G["hidden_size"]
            return (self.clip_g if large else self.clip_l).load_sd(sd)

    class SmallSDXL(known.SDXL):
        unet_config = {
            **known.SDXL.unet_config,
            **{k: SMALL["sdxl"][k] for k in (*MATCHED, "transformer_depth")},
        }

        def clip_target(self, state_dict: Any = None) -> Any:
            return ClipTarget(xl.SDXLTokenizer, Text)

    return SmallSDXL


if __name__ != "small_models":  # imported by ComfyUI from its custom_nodes
    register()
    NODE_CLASS_MAPPINGS: dict[str, type] = {}
