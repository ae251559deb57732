"""All imports from ComfyUI, so that a change in ComfyUI needs a change only here.

The oldest supported version is 0.3.75: only names that exist since then are imported.
"""

from __future__ import annotations

import comfy.controlnet
import comfy.latent_formats
import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import nodes
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from server import PromptServer

__all__ = ["ComfyExtension", "ExecutionBlocker", "PromptServer", "comfy", "folder_paths", "io", "registered", "ui"]


def registered(node_id: str) -> type | None:
    """The node that ComfyUI has under an id now, of whatever pack."""
    return nodes.NODE_CLASS_MAPPINGS.get(node_id)  # type: ignore[attr-defined]  # mypy finds the pack's own nodes.py
