"""The moving average of a LoRA's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..common.errors import UserError


class Ema:
    """Exponential moving average of the trained parameters (diffusers' EMAModel): v ← v − (1 − d)(v − p).

    The decay d of update n, counted from 0, is 0 for n = 0 (a copy) and then min(decay, (1 + n) / (10 + n)), so that
    the start is forgotten early. A decay of 0.99 averages over about the last 100 steps.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._parameters = parameters
        self.consistent = True
        self._model = EMAModel(parameters.values(), decay=decay)

    def update(self) -> None:
        """Take in the parameters as they are now: after each optimizer step."""
        self._model.step(self._parameters.values())

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the parameters' names, and `updates`, their count (int64, no dimension): copies, CPU."""
        averages = zip(self._parameters, self._model.shadow_params, strict=True)
        held = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in averages}
        return {**held, "updates": torch.tensor(self._model.optimization_step)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned. Raises UserError, one sentence, where it does not fit."""
        expected = {name: p.shape for name, p in self._parameters.items()} | {"updates": torch.Size()}
        if {name: value.shape for name, value in tensors.items()} != expected:
            raise UserError(
                "The saved moving average does not fit this LoRA; go on with the LoRA options and base model that the "
                "run was started with, or start a run with a new name."
            )
        for name, average in zip(self._parameters, self._model.shadow_params, strict=True):
            average.copy_(tensors[name])
        self._model.optimization_step = int(tensors["updates"])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the parameters hold their averages; afterwards the trained values are restored, bit for bit.

        `consistent` is False until they are, so that nothing is saved after an interrupt in between.
        """
        parameters = list(self._parameters.values())
        self.consistent = False
        self._model.store(parameters)
        try:
            self._model.copy_to(parameters)
            yield
        finally:
            self._model.restore(parameters)
            self.consistent = True


def averaged(ema: Ema | None) -> AbstractContextManager[None]:
    """Within it, the LoRA is the one that is exported: its moving average, where there is one."""
    return nullcontext() if ema is None else ema.applied()
