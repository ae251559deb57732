"""What a node needs of a running ComfyUI: leave inference mode, report progress, obey the interrupt, free memory, and
find files without ever leaving ComfyUI's own folders."""

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
    """ComfyUI runs every node in inference mode; tensors made inside this context can be trained."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Progress:
    """A node's progress bar, its line of text and its preview image; text and image at most every `pause` s."""

    def __init__(self, total: int, node_id: str | None = None, pause: float = 0.5) -> None:
        self.total, self.node_id, self.pause = total, node_id, pause
        self._bar = comfy.utils.ProgressBar(total, node_id=node_id)
        self._last = float("-inf")

    def update(self, done: int, text: str = "", preview: Any = None) -> None:
        """`done` steps of `total`; `preview` is a PIL image or None. The last step is always shown."""
        now = time.monotonic()
        if now - self._last < self.pause and done < self.total:
            return
        self._last = now
        image = ("JPEG", preview, 512) if preview is not None else None
        self._bar.update_absolute(done, self.total, image)
        self.say(text)

    def say(self, text: str) -> None:
        """Show one line on the node; without a server or a node there is nobody to read it."""
        server = getattr(PromptServer, "instance", None)
        if text and self.node_id is not None and server is not None:
            server.send_progress_text(text, self.node_id)


def tell(event: str, data: Any) -> None:
    """Send every open page an event that the pack's own script listens for; without a server there is no page."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(event, data)


def check_interrupt() -> None:
    """Raise ComfyUI's own exception when the user has asked to stop. Call it before every UNet call."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def free_memory() -> None:
    """Have ComfyUI put its models back where it stores them, and return what they held."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def free_bytes() -> int:
    """Bytes that are free where ComfyUI computes."""
    return int(comfy.model_management.get_free_memory(device()))


def device() -> torch.device:
    """Where ComfyUI computes."""
    return comfy.model_management.get_torch_device()


def inside(root: str | Path, name: str) -> Path:
    """The real path of `name` under `root`. One sentence (UserError) for anything that leads out of it.

    Refused: absolute names, "..", and links whose target lies elsewhere. The file need not exist.
    """
    text = str(name)
    parts = text.replace("\\", "/").split("/")
    if not text.strip() or os.path.isabs(text) or parts[0] == "" or ":" in parts[0] or ".." in parts or "\0" in text:
        raise UserError(f"{text!r} is not a name inside {Path(root).name!r}: choose one from the list.")
    base = os.path.realpath(root)
    found = os.path.realpath(os.path.join(base, *parts))
    if os.path.commonpath([base, found]) != base:
        raise UserError(f"{text!r} leads out of {Path(root).name!r}: put the file itself there instead of a link.")
    return Path(found)


def folders(root: str | Path, depth: int = 3) -> list[str]:
    """Sub-folders of `root` as names with "/", sorted, hidden ones and links left out; for a combo."""
    found = []
    root = Path(root)
    for place, names, _ in os.walk(root):
        level = len(Path(place).relative_to(root).parts)
        names[:] = sorted(n for n in names if not n.startswith(".") and not os.path.islink(os.path.join(place, n)))
        found += [(Path(place) / n).relative_to(root).as_posix() for n in names]
        if level + 1 >= depth:
            names.clear()
    return sorted(found)


def files(root: str | Path, *endings: str, depth: int = 3) -> list[str]:
    """Files under `root` whose name ends so (".json", …), as names with "/", sorted; for a combo."""
    root, found = Path(root), []
    for place in ["", *folders(root, depth)] if root.is_dir() else []:
        for entry in os.scandir(root / place):
            if entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(endings):
                found.append((Path(place) / entry.name).as_posix())
    return sorted(found)


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def in_output(path: Path) -> str:
    """A file of ComfyUI's output folder as a person looks for it there: output/scoft/surveys/name.html.

    What a node shows ends up in images that people share, so it leaves out where the computer keeps ComfyUI.
    """
    return Path("output", path.relative_to(output_folder())).as_posix()
