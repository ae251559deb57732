"""SCoFT: self-contrastive fine-tuning of text-to-image models, in plain PyTorch, diffusers and peft."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The exceptions, which name this module as theirs: one that another process raised is looked up here."""
    from .common import errors

    return getattr(errors, name)
