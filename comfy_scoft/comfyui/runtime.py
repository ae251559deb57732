"""What a node needs of a running ComfyUI: leave inference mode, report progress, check for an interrupt, free memory,
and find files inside ComfyUI's own folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..common.errors import UserError
from .compat import PromptServer, comfy, folder_paths


@contextmanager
def training_mode() -> Iterator[None]:
    """Leave the inference mode in which ComfyUI runs every node: tensors created in this context can be trained."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Progress:
    """A node's progress bar, its line of text and its preview image, updated at most every `pause` seconds."""

    def __init__(self, total: int, node_id: str | None = None, pause: float = 0.5) -> None:
        self.total, self.node_id, self.pause = total, node_id, pause
        self._bar = comfy.utils.ProgressBar(total, node_id=node_id)
        self._last = float("-inf")

    def update(self, done: int, text: str = "", preview: Any = None) -> None:
        """Show `done` steps of `total`. preview: a PIL image or None. The last step is always shown."""
        now = time.monotonic()
        if now - self._last < self.pause and done < self.total:
            return
        self._last = now
        image = ("JPEG", preview, 512) if preview is not None else None
        self._bar.update_absolute(done, self.total, image)
        self.say(text)

    def say(self, text: str) -> None:
        """Show one line of text on the node. Does nothing without a server or a node."""
        server = getattr(PromptServer, "instance", None)
        if text and self.node_id is not None and server is not None:
            server.send_progress_text(text, self.node_id)


def send_event(event: str, data: Any) -> None:
    """Send every open page an event for the pack's own script. Does nothing without a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(event, data)


def check_interrupt() -> None:
    """Raise ComfyUI's own exception if the user asked to stop. Call it before every UNet call."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def free_memory() -> None:
    """Have ComfyUI unload its models from the GPU and free their memory."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def free_bytes() -> int:
    """Free bytes of memory on ComfyUI's device."""
    return int(comfy.model_management.get_free_memory(device()))


def device() -> torch.device:
    """The device on which ComfyUI computes."""
    return comfy.model_management.get_torch_device()


def inside(root: str | Path, name: str) -> Path:
    """The real path of `name` under `root`; the file need not exist. Raises UserError for anything outside of it:
    absolute names, "..", and links whose target is elsewhere.
    """
    text = str(name)
    parts = text.replace("\\", "/").split("/")
    if not text.strip() or os.path.isabs(text) or parts[0] == "" or ":" in parts[0] or ".." in parts or "\0" in text:
        raise UserError(f"{text!r} is not a name inside {Path(root).name!r}: choose one from the list.")
    base = os.path.realpath(root)
    path = os.path.realpath(os.path.join(base, *parts))
    if os.path.commonpath([base, path]) != base:
        raise UserError(f"{text!r} leads out of {Path(root).name!r}: put the file itself there instead of a link.")
    return Path(path)


def folders(root: str | Path, depth: int = 3) -> list[str]:
    """Sub-folders of `root`, if it exists, as sorted names with "/", without hidden ones and links; for a combo."""
    names_below, root = [], Path(root)
    for place, names, _ in os.walk(root):
        level = len(Path(place).relative_to(root).parts)
        names[:] = sorted(n for n in names if not n.startswith(".") and not os.path.islink(os.path.join(place, n)))
        names_below += [(Path(place) / n).relative_to(root).as_posix() for n in names]
        if level + 1 >= depth:
            names.clear()
    return sorted(names_below)


def files(root: str | Path, *endings: str, depth: int = 3) -> list[str]:
    """Files under `root` with these endings (".json", …), as sorted names with "/"; for a combo."""
    root, names = Path(root), []
    for place in ["", *folders(root, depth)] if root.is_dir() else []:
        for entry in os.scandir(root / place):
            if entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(endings):
                names.append((Path(place) / entry.name).as_posix())
    return sorted(names)


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def in_output(path: Path) -> str:
    """A path in ComfyUI's output folder as nodes show it: output/scoft/surveys/name.html.

    Workflows and screenshots are shared, so it does not show where ComfyUI is installed.
    """
    return Path("output", path.relative_to(output_folder())).as_posix()


def view_of(path: Path) -> dict[str, str]:
    """What the address /view of ComfyUI's server is asked for a file in its output folder; web/text.js links to it."""
    folder = path.parent.relative_to(output_folder()).as_posix()
    return {"filename": path.name, "subfolder": folder, "type": "output"}
