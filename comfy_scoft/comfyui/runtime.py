"""What a node needs of a running ComfyUI: leave inference mode, report progress, check for an interrupt, free memory,
and find files inside ComfyUI's own folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from ..common.errors import UserError
from ..common.folders import names_in, on_disk
from ..common.settings import shown
from ..common.text import printable, without_folders
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
            server.send_progress_text(printable(text, 1000), self.node_id)


def send_event(event: str, data: Any) -> None:
    """Send every open page an event for the pack's own script. Does nothing without a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(event, data)


def running_prompt() -> str | None:
    """The id of the prompt that ComfyUI runs, by which the page knows the workflow. None without a server."""
    return getattr(getattr(PromptServer, "instance", None), "last_prompt_id", None)


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
    """The real path of `name` under `root`; the file need not exist. Raises UserError for anything outside of it
    (absolute names, "..", links whose target is elsewhere), for `root` itself, and for what no file can be named.
    """
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else [""]
    base = os.path.realpath(root)
    try:
        path = os.path.realpath(on_disk(Path(base), *parts))
    except ValueError:  # a zero byte, half of an emoji
        path = base
    if PureWindowsPath("/".join(parts)).drive or parts[0] == "" or ".." in parts or not name.strip() or path == base:
        raise UserError(f"{shown(name)} is not a name inside {Path(root).name!r}: choose one from the list.")
    if os.path.commonpath([base, path]) != base:
        raise UserError(
            f"{shown(name)} leads out of {Path(root).name!r}: put the files themselves there instead of a link, or "
            "start ComfyUI with --input-directory on the folder that holds them."
        )
    return Path(path)


def folders(root: str | Path, depth: int = 3) -> list[str]:
    """Sub-folders of `root`, if it exists, as sorted names with "/", without hidden ones and links; for a combo."""
    names = [name for name in names_in(Path(root)).folders if not name.startswith(".")]
    below = [f"{name}/{deeper}" for name in names if depth > 1 for deeper in folders(Path(root, name), depth - 1)]
    return sorted(names + below)


def files(root: str | Path, *endings: str, depth: int = 3) -> list[str]:
    """Files under `root` with these endings (".json", …), as sorted names with "/"; for a combo."""
    places = {"": Path(root)} | {f"{name}/": Path(root, name) for name in folders(root, depth)}
    return sorted(
        place + name for place, at in places.items() for name in names_in(at).files if name.lower().endswith(endings)
    )


def plain_message(text: str) -> str:
    """An error's text as everyone may see it: printable, short, and with ComfyUI's folders by their names alone."""
    base = {"input": folder_paths.get_input_directory(), "output": folder_paths.get_output_directory()}
    base |= {"models": folder_paths.models_dir, "temp": folder_paths.get_temp_directory()}
    base |= {
        "ComfyUI": folder_paths.base_path,
        "comfy_scoft": str(Path(__file__).parents[2]),
        "~": os.path.expanduser("~"),
    }
    return without_folders(text, {each: name for name, path in base.items() for each in (path, os.path.realpath(path))})


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
