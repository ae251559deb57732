"""What a node says when a person stops it: what is kept, and how to go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .compat import comfy
from .widgets import Node

LOG = logging.getLogger(__name__)
GO_ON = "Queue again to go on."
NOTHING = "Nothing of it is kept."


@contextmanager
def when_stopped(node: type[Node], kept: str, how: str = GO_ON) -> Iterator[None]:
    """If ComfyUI's interrupt ends what is done within it, the node and the log say what is kept and how to go on."""
    try:
        yield
    except comfy.model_management.InterruptProcessingException:
        text = f"Stopped. {kept} {how}".strip()
        LOG.info("%s: %s", node.__name__, text)
        node.progress(1).say(text)
        raise
