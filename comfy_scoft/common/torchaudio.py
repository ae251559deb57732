"""A torchaudio that is installed and does not load, beside which the rest has to work."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from types import ModuleType


def without_broken_torchaudio() -> None:
    """Have transformers, and so diffusers, load beside a torchaudio that raises when it is imported.

    transformers imports it wherever it is installed. Built for another CUDA version than torch, it raises; as its last
    release and torch's newest are, this is what ComfyUI's own requirements install. Call it before either is imported.
    """
    spec = importlib.util.find_spec("torchaudio")
    if spec is None:
        return
    try:
        import torchaudio  # noqa: F401
    except Exception:  # whatever it likes to raise
        empty = ModuleType("torchaudio")
        empty.__spec__ = spec
        sys.modules["torchaudio"] = empty
        try:
            with suppress(ImportError):  # older ones have no such module and need none
                import transformers.audio_utils  # noqa: F401
        finally:
            del sys.modules["torchaudio"]
