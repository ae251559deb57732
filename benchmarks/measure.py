"""Measuring: loops that take turns block by block, counts of calls and operations, time by part, peak memory."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Pause = Callable[[], None]
RESAMPLES = 2000


class Enough(BaseException):
    """Ends a loop from outside."""


class Driven:
    """A loop that runs one block at a time, so that several loops can take turns in one process.

    body: the loop; it calls its argument after each block. It runs in a thread of its own, only while `block` or
    `operations` waits for it, so no two loops run at once.
    """

    def __init__(self, body: Callable[[Pause], Any], device: torch.device) -> None:
        self._body, self._device = body, device
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._counter: FlopCounterMode | None = None
        self._ended = False
        self._fault: BaseException | None = None

    def block(self) -> float:
        """Seconds of the next block. Raises whatever the loop raises."""
        synchronize(self._device)
        start = time.perf_counter()
        self._advance()
        synchronize(self._device)
        return time.perf_counter() - start

    def operations(self) -> int:
        """Floating-point operations of the next block; a multiplication and an addition are two."""
        self._counter = counter = FlopCounterMode(display=False)
        self._advance()
        self._counter = None
        return int(counter.get_total_flops())

    def close(self) -> None:
        """Ends the loop where it paused."""
        if self._thread.is_alive():
            self._ended = True
            self._go.release()
            self._thread.join()

    def _advance(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        self._done.acquire()
        if self._fault is not None:
            raise self._fault
        assert self._thread.is_alive(), "the loop ended by itself"

    def _run(self) -> None:
        try:
            self._wait()
            self._body(self._pause)
        except Enough:
            pass
        except BaseException as fault:
            self._fault = fault
        finally:
            self._done.release()

    def _pause(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
        self._done.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._ended:
            raise Enough
        if self._counter is not None:  # in this thread: PyTorch keeps such modes for each thread
            self._counter.__enter__()


@contextmanager
def driven(bodies: Sequence[Callable[[Pause], Any]], device: torch.device) -> Iterator[list[Driven]]:
    """A loop for each body, all of them closed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Driven(body, device))) for body in bodies]


@contextmanager
def counted(unet: nn.Module) -> Iterator[dict[str, int]]:
    """Counts a UNet's calls and their samples, and how many of both are made with a gradient."""
    counts = {"calls": 0, "samples": 0, "calls with gradient": 0, "samples with gradient": 0}

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        z = args[0] if args else kwargs["x"]
        kinds = ("", " with gradient") if torch.is_grad_enabled() else ("",)
        for kind in kinds:
            counts["calls" + kind] += 1
            counts["samples" + kind] += len(z)

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield counts
    finally:
        handle.remove()


class Parts:
    """Time by part; nested calls count for the innermost part only.

    Methods are wrapped only while `watching`, so that other measurements are not slowed.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def watching(self, targets: Sequence[tuple[Any, str, str | Callable[[], str]]]) -> Iterator[None]:
        """targets: object, name of its method, and the part it belongs to, or a function that returns the part.

        The rest is "other".
        """
        with ExitStack() as stack:
            for owner, name, part in targets:
                stack.enter_context(mock.patch.object(owner, name, self._wrapped(getattr(owner, name), part)))
            self._turn(opened="other")
            try:
                yield
            finally:
                self._turn()

    def _wrapped(self, function: Callable, part: str | Callable[[], str]) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._turn(opened=part if isinstance(part, str) else part())
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()

        return call

    def _turn(self, opened: str | None = None) -> None:
        """Adds the time since the last turn to the innermost part, then opens a part or closes the innermost one."""
        synchronize(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        if opened is None:
            self._open.pop()
        else:
            self._open.append(opened)
        self._since = now


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Median of the rounds' ratios, their extremes, and a 95 % bootstrap interval of the median."""
    ratios = np.array(slow) / np.array(fast)
    samples = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[samples], axis=1), (0.025, 0.975))
    return {
        "median": float(np.median(ratios)),
        "least": float(ratios.min()),
        "most": float(ratios.max()),
        "low": float(low),
        "high": float(high),
    }


class Peak:
    """Peak memory in bytes between making this and `read`: of the GPU's allocator, else of the whole process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            self._exact = _forget_peak()
            self._before = _status("VmRSS") if self._exact else _most_resident()

    def read(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return (_status("VmHWM") if self._exact else _most_resident()) - self._before


def _forget_peak() -> bool:
    """Resets Linux's record of the process's peak memory; False on other systems."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") > 0
    except OSError:
        return False


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _most_resident() -> int:
    """The largest resident size so far, in bytes; 0 where the platform does not record it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
