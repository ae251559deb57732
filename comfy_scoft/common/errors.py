"""The exceptions of the pack. Any other exception is a fault of the code and shows its traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A person's mistake, in one sentence: what was wrong, what was expected, what to do."""


class NonFiniteLoss(UserError):
    """A loss term became NaN or infinite; the message names the term, and the last good checkpoint is kept."""


class OtherProcess(UserError):
    """Another process of the run ended or stopped with a fault, so that this one cannot go on either."""
