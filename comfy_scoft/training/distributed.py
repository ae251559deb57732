"""Several processes train one LoRA, or make negatives together.

In training each takes its share of an optimizer step's images, and gradients are summed. Start them with `torchrun
--standalone --nproc_per_node N -m comfy_scoft train job.json`, or with `accelerate launch --multi_gpu --num_processes N
-m comfy_scoft train job.json`. What is learned is the same, up to rounding, whatever their number: the effective batch
is the run's, not one per process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from ..common.errors import OtherProcess, UserError

T = TypeVar("T")

VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What launchers set beside WORLD_SIZE."""
FINE, SHORT, FAULT = 0, 1, 2
"""How a process came out of its share of a step: well, short of memory, or with a fault that ends the run."""


@dataclass(frozen=True)
class Distributed:
    """This process's place among all that train the run together; by default there is only this one.

    Each method but `share` is called by all processes at the same place. OtherProcess is raised where one is gone.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every count-th item, from this process's rank on. The shares of all processes together are the items."""
        return list(items[self.rank :: self.count])

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in each of them. One that no process has stays missing."""
        if self.count == 1:
            return
        trained = list(parameters)
        there = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
        total = torch.cat([there, *flat])
        with _together():
            torch.distributed.all_reduce(total)
        there, *parts = total.split([len(trained), *(p.numel() for p in trained)])
        for parameter, count, part in zip(trained, there.tolist(), parts, strict=True):
            parameter.grad = part.view_as(parameter).clone() if count else None

    def sum_values(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each number added up over all processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        with _together():
            torch.distributed.all_reduce(total)
            return total.tolist()

    def worst(self, outcome: int, device: torch.device) -> int:
        """The worst outcome (FINE, SHORT or FAULT) of all processes."""
        if self.count == 1:
            return outcome
        worst = torch.tensor(outcome, device=device)
        with _together():
            torch.distributed.all_reduce(worst, torch.distributed.ReduceOp.MAX)
            return int(worst)

    def leave(self, device: torch.device) -> None:
        """Tell the others, who ask for the worst outcome after their share, that this one stops with a fault."""
        with suppress(OtherProcess):  # they may be gone themselves
            self.worst(FAULT, device)

    def gather(self, mine: Any) -> list[Any]:
        """The objects of all processes, in the order of their ranks. Only the pack's own objects: they are pickled."""
        if self.count == 1:
            return [mine]
        objects: list[Any] = [None] * self.count
        with _together():
            torch.distributed.all_gather_object(objects, mine)
        return objects

    def first(self, value: T) -> T:
        """The first process's value, in each of them."""
        return self.gather(value)[0]


@contextmanager
def _together() -> Iterator[None]:
    """Within it, a process that is gone is a UserError of one sentence in place of torch's error."""
    try:
        yield
    except RuntimeError as error:
        raise OtherProcess(
            "Another process of this run has ended or does not answer, so this one stops too."
        ) from error


def launched(backend: str | None = None, timeout: timedelta | None = None) -> tuple[Distributed, torch.device]:
    """The processes that torchrun or accelerate launched this one with, connected, and this process's device.

    backend: torch's way to connect them; None takes the usual one for the device. timeout: how long a process waits for
    the others; None is torch's own (10 or 30 minutes). Raises UserError for variables that do not belong together.
    """
    try:
        rank, count = int(os.environ.get("RANK", "0")), max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise UserError("RANK and WORLD_SIZE must be whole numbers: set both, or neither.") from error
    if not 0 <= rank < count:
        raise UserError(f"RANK is {rank} of WORLD_SIZE {count}: ranks begin at 0 and end before WORLD_SIZE.")
    if count == 1:
        return Distributed(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    from accelerate import PartialState

    lacking = [name for name in VARIABLES if name not in os.environ]
    if lacking:
        raise UserError(
            f"WORLD_SIZE is {count}, but {', '.join(lacking)} not set: start the processes with torchrun or "
            "accelerate launch, which set all of them."
        )
    options = {"backend": backend, "timeout": timeout}
    given = {name: value for name, value in options.items() if value is not None}
    state = PartialState(cpu=not torch.cuda.is_available(), **given)
    return Distributed(state.process_index, state.num_processes), state.device
