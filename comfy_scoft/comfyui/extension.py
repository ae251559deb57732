"""The extension that ComfyUI loads: it registers the mini model and returns the nodes."""

from __future__ import annotations

from typing import ClassVar

from . import mini_model
from .compat import ComfyExtension, folder_paths, io
from .runtime import output_folder


class ScoftExtension(ComfyExtension):
    """`nodes` is filled by nodes.py in the root folder."""

    nodes: ClassVar[list[type[io.ComfyNode]]] = []

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register the mini model and output/loras as a LoRA folder, and return the nodes. Safe to call again.

        Not in `on_load`, which ComfyUI 0.3.75 declares and never calls.
        """
        mini_model.register()
        folder_paths.add_model_folder_path("loras", str(output_folder() / "loras"))
        return list(self.nodes)
