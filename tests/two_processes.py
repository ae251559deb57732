"""Work that two processes do together, for tests/test_processes.py.

The processes are forks of the test's own, which cost a moment each; torchrun would import everything anew. Each process
writes what it found to FOLDER/<work>/<rank>.json and .safetensors, and ends with the status that it returns.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from toys import all_losses, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.losses import DiffusionLoss, PerceptualLoss
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training import trainer
from comfy_scoft.training.checkpoint import newest_step
from comfy_scoft.training.distributed import launched
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.run import Callbacks, Run

SHAPES: dict[str, dict[str, Any]] = {
    "three over two": {"accumulation": 3, "every": 1, "micro_batch": 1},
    "a rollout in one process": {"accumulation": 4, "every": 4},
    "one in one pass": {"batch_size": 2, "accumulation": 2, "micro_batch": 1, "every": 2},
    "checkpointed": {"accumulation": 2, "checkpointing": "UNet and decoder", "micro_batch": 1, "every": 1},
    "fp16": {"accumulation": 4, "precision": "fp16", "every": 2},
    "ema": {"accumulation": 3, "ema": 0.9, "every": 2},
    "rollouts alone": {"accumulation": 2, "every": 4, "steps": 5},
}
"""Runs whose gradients and LoRAs must not depend on the number of processes. With one image in a pass, the passes are
the same ones; others round differently, which a rollout in every step (`checkpointed`) makes 5 times as large as is
allowed on some CPUs (1.6e-4, in one process too)."""


def run_of(name: str, folder: Path) -> Run:
    losses = [PerceptualLoss(toy_features())] if name == "rollouts alone" else all_losses()
    return toy_run(folder, losses, dataset=toy_dataset(folder / "data"), run_folder=folder / name, **SHAPES[name])


def gradients_of(run: Run) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """The gradient of each step as the optimizer gets it, and the rows; the run is trained to its end."""
    real, found = trainer.update, []

    def update(run: Run, state: Any, terms: dict[str, float]) -> None:
        grads = [p.grad for p in state.parameters.values()]
        scale = state.scaler.get_scale()
        found.append(torch.cat([torch.zeros(1) if g is None else g.detach().flatten() / scale for g in grads]))
        real(run, state, terms)

    trainer.update = update
    try:
        rows = trainer.train(run).metrics
    finally:
        trainer.update = real
    return torch.cat(found), rows


def together(rank: int, folder: Path, names: Iterable[str] = SHAPES) -> int:
    """Train each of these SHAPES."""
    found, rows = {}, {}
    for name in names:
        run = run_of(name, folder)
        run.distributed, _ = launched()
        found[f"{name}|gradients"], rows[name] = gradients_of(run)
        found[f"{name}|lora"] = learned(run)
    save_file(found, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(rows))
    return 0


def one_stops(rank: int, folder: Path) -> int:
    """The second process meets a fault in its third step, in a forward pass of its own."""
    run = toy_run(folder, [DiffusionLoss()], dataset=toy_dataset(folder / "data"), accumulation=2, steps=5)
    run.distributed, _ = launched()
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if rank == 1 and len(calls) == 3:
            raise ValueError("The image 3.png is not in data: put it there or remove its record.")

    return _told(rank, folder, lambda: runs.train_and_log(run, Callbacks(check_interrupt=check)), run)


def first_cannot_write(rank: int, folder: Path) -> int:
    """The first process finds the disk full at its second checkpoint."""
    run = toy_run(folder, [DiffusionLoss()], dataset=toy_dataset(folder / "data"), accumulation=2, checkpoint_every=1)
    run.distributed, _ = launched()
    from comfy_scoft.training import checkpoint

    real = checkpoint.save_file

    def full(tensors: dict, path: Path) -> None:
        if newest_step(run.folder) >= 1:
            raise OSError(28, "No space left on device")
        real(tensors, path)

    checkpoint.save_file = full
    return _told(rank, folder, lambda: runs.train_and_log(run), run)


def one_is_short_of_memory(rank: int, folder: Path) -> int:
    """The second process runs out of memory in its second step, with both images at once."""
    run = toy_run(folder, [DiffusionLoss()], dataset=toy_dataset(folder / "data"), batch_size=4, steps=3)
    run.distributed, _ = launched()
    predict, said = run.base.predict, []

    def scarce(z: torch.Tensor, t: torch.Tensor, captions: Any) -> torch.Tensor:
        if rank == 1 and run.base.calls >= 1 and len(z) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return predict(z, t, captions)

    run.base.predict = scarce  # type: ignore[method-assign]
    result = trainer.train(run, Callbacks(on_message=said.append))
    (folder / f"{rank}.json").write_text(json.dumps({"said": said, "economy": result.memory_options.as_json()}))
    save_file({"lora": learned(run)}, folder / f"{rank}.safetensors")
    return 0


def fill(rank: int, folder: Path) -> int:
    """Share the work of a cache."""
    data, base, network = toy_dataset(folder / "data", (1, 0, 2)), toy_base(kl=True), toy_features()
    cache, calls, extract = Cache(base, data, 64), [], network.module.forward
    network.module.forward = lambda x: (calls.append(len(x)), extract(x))[1]  # type: ignore[method-assign]
    distributed, _ = launched()
    cache.fill(distributed, [network], flip=True)
    made = len(calls)
    cache.images = lambda sample: (_ for _ in ()).throw(AssertionError("nothing is left to be read"))
    found = {}
    for index, flip in cache.samples():
        mean, std = cache.latent((index, flip))
        found |= {f"mean {index} {flip}": mean, f"std {index} {flip}": std}
        found[f"own {index} {flip}"], found[f"negatives {index} {flip}"] = cache.features(network, (index, flip))
    save_file({key: value.contiguous() for key, value in found.items()}, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps({"made": made, "calls": len(calls)}))
    return 0


def _told(rank: int, folder: Path, work: Callable[[], Any], run: Run) -> int:
    try:
        work()
    except ValueError as error:
        told = {"kind": type(error).__name__, "says": str(error), "step": newest_step(run.folder)}
        (folder / f"{rank}.json").write_text(json.dumps(told))
        return 3
    return 0


def fork(work: Callable[[int, Path], int], folder: Path, count: int) -> list[int]:
    """Statuses of the processes, in the order of their ranks."""
    import peft  # noqa: F401  (here, so that no fork has to)

    toy_base(kl=True)  # the same for diffusers
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            status = 9
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                status = work(rank, folder)
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


WORK = (together, one_stops, first_cannot_write, one_is_short_of_memory, fill)
