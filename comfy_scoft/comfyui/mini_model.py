"""Registers the mini model in ComfyUI, so that ComfyUI's own loaders list and load its shipped files.

ComfyUI recognizes a checkpoint by the shapes of its UNet. One more entry in its list of supported models has the mini
UNet's shapes and a text encoder of the mini size; existing entries are not changed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from ..models import state_dict_keys
from ..models.mini import layout
from .compat import comfy, folder_paths

NAME = "SCoFTMini"
EMBEDDING = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
FOLDERS = {"checkpoints": "checkpoints", "controlnet": "controlnet"}


def register() -> bool:
    """Add the mini model and its folders to ComfyUI. Returns whether it worked. Safe to call again.

    If ComfyUI's internals have changed, this logs a warning, and the rest of the pack works.
    """
    try:
        models = comfy.supported_models.models
        if not any(m.__name__ == NAME for m in models):
            models.append(_supported_model())
        for kind, folder in FOLDERS.items():
            folder_paths.add_model_folder_path(kind, str(layout.WEIGHTS / folder))
    except Exception as error:
        logging.getLogger(__name__).warning("comfy_scoft: the mini model is not available in this ComfyUI (%s)", error)
        return False
    return True


def _supported_model() -> type:
    encoders = comfy.sd1_clip

    def clip(**options: Any) -> Any:
        return encoders.SDClipModel(textmodel_json_config=dict(layout.TEXT), return_projected_pooled=False, **options)

    text_encoder = partial(encoders.SD1ClipModel, clip_model=clip)
    words = partial(encoders.SDTokenizer, embedding_size=layout.CONTEXT)  # textual inversions of the mini width only
    tokenizer = partial(encoders.SD1Tokenizer, tokenizer=words)

    class SCoFTMini(comfy.supported_models.SD15):
        unet_config = {
            **comfy.supported_models.SD15.unet_config,
            "context_dim": layout.CONTEXT,
            "model_channels": layout.CHANNELS[0],
        }
        unet_extra_config = {"num_heads": layout.HEADS, "num_head_channels": -1}

        def process_clip_state_dict(self, state_dict: dict) -> dict:
            """The file holds only the used rows of the vocabulary: add the others as zeros."""
            return super().process_clip_state_dict(state_dict_keys.expand_rows(state_dict, EMBEDDING))

        def clip_target(self, state_dict: dict | None = None) -> Any:
            return comfy.supported_models_base.ClipTarget(tokenizer, text_encoder)

    assert SCoFTMini.__name__ == NAME
    return SCoFTMini
