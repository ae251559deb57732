"""The extension that ComfyUI loads: it teaches ComfyUI the mini model and hands over the nodes."""

from __future__ import annotations

from typing import ClassVar

from . import mini_model
from .compat import ComfyExtension, folder_paths, io
from .runtime import output_folder


class ScoftExtension(ComfyExtension):
    """`nodes` is filled by the pack's table of contents, the root's nodes.py."""

    nodes: ClassVar[list[type[io.ComfyNode]]] = []

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes; first the mini model is added, and output/loras as a place where LoRAs are found.

        Here and not in `on_load`, which ComfyUI 0.3.75 declares and never calls. Both steps may be repeated.
        """
        mini_model.register()
        folder_paths.add_model_folder_path("loras", str(output_folder() / "loras"))
        return list(self.nodes)
