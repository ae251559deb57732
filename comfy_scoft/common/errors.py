"""The exceptions of the pack that callers tell apart; every other fault of a user's input is a ValueError."""

from __future__ import annotations


class Interrupted(Exception):
    """Raised by a `check` callback to stop a training run; what was learned so far is kept."""


class NonFiniteLoss(ValueError):
    """A loss term became NaN or infinite; the message names the term, and the last good checkpoint is kept."""


class OtherProcess(ValueError):
    """Another process of the run ended or stopped with a fault, so that this one cannot go on either."""
