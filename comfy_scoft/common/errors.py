"""The exceptions of the pack. Any other exception is a fault of the code and shows its traceback."""

from __future__ import annotations

NAME = "comfy_scoft"
"""The module that ComfyUI shows with an error: the real one's name holds the path of the pack's folder."""


class UserError(ValueError):
    """A person's mistake, in one sentence: what was wrong, what was expected, what to do."""

    __module__ = NAME


class NonFiniteLoss(UserError):
    """A loss term became NaN or infinite; the message names the term, and the last good checkpoint is kept."""

    __module__ = NAME


class OtherProcess(UserError):
    """Another process of the run ended or stopped with a fault, so that this one cannot go on either."""

    __module__ = NAME
