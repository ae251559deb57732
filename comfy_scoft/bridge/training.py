"""One training run on ComfyUI's sockets: what the nodes Train LoRA and Export Job share."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache import Cache
from ..card import TrainedLora, training_record
from ..job import write_job
from ..lora import LoraSettings
from ..losses import Loss
from ..plots import loss_chart
from ..records import Dataset
from ..rollout import RolloutSettings
from ..runs import checked_name, place, planned_calls, run_folder, train_and_log, unet_dtype, weighted_losses
from ..settings import OptimizerSettings, TrainSettings
from ..trainer import Run, refuse_what_cannot_train
from .convert import base_model
from .runtime import Progress, check_interrupt, device, free_memory

Rows = list[dict[str, float]]


@dataclass
class Plan:
    """A node's inputs. knobs: the fields of TrainSettings, and `lora`, `optimizer`, `rollout` where connected."""

    model: Any
    clip: Any
    vae: Any
    dataset: Dataset
    losses: Sequence[Loss]
    knobs: Mapping[str, Any]
    name: str

    def run(self, folder: Path, resume: bool = False) -> Run:
        """The run, with its base model converted. Settings are checked before anything is computed."""
        knobs = dict(self.knobs)
        options = {key: knobs.pop(key, None) for key in ("lora", "optimizer", "rollout")}
        settings = TrainSettings(**knobs)
        records = self.dataset.split("train")
        if len(self.dataset) and not len(records):
            raise ValueError(
                f"The data set {self.dataset.name!r} has no picture of the split 'train', and only those are trained "
                "on; load that split too."
            )
        free_memory()
        base = base_model(self.model, self.clip, self.vae, self.name)
        run = Run(
            base=base,
            dataset=records,
            losses=tuple(self.losses),
            folder=folder,
            settings=settings,
            lora=options["lora"] or LoraSettings(),
            optimizer=options["optimizer"] or OptimizerSettings(),
            rollout=options["rollout"] or RolloutSettings(),
            resume=resume,
            cache=Cache(base, records, settings.resolution),
        )
        refuse_what_cannot_train(run)
        return run


def train_in_comfyui(
    plan: Plan, root: Path, name: str, resume: bool, node_id: str | None
) -> tuple[TrainedLora, Rows, int]:
    """Train and return the LoRA with its record, all rows of the run's metrics, and the steps done.

    An interrupt is obeyed before each UNet call; the trainer writes a checkpoint before it leaves. What training held
    is freed however it ends.
    """
    run = plan.run(root, resume)
    try:
        folder = run.folder = run_folder(root, name, resume)
        bar = Progress(planned_calls(run), node_id)
        bar.say(_where(folder.name, name, resume))
        prepare(run, bar.say)
        place(run.base.unet, device(), unet_dtype(run.settings.precision))
        watch = _Watch(run, bar)
        started = time.monotonic()
        result, rows = train_and_log(run, watch.check, watch.observe)
        bar.update(bar.total, f"{folder.name}: {result.steps} steps done")
        record = training_record(run, result, rows, time.monotonic() - started)
        return TrainedLora(result.lora, record), rows, result.steps
    finally:
        release(run)
        with suppress(OSError):
            run.folder.rmdir()  # a name under which nothing was begun; a folder with anything in it stays


def export(plan: Plan, root: Path, name: str, checkpoint: Path | None) -> Path:
    """Write the job `name` under `root` (with -2, -3, … where that is taken) and return its job.json."""
    checked_name(name, "job name")
    run = plan.run(root)
    try:
        folder = run_folder(root, name, resume=False)
        folder.rmdir()  # it only held the name; the job appears whole
        prepare(run)
        return write_job(run, folder, checkpoint, check_interrupt)
    finally:
        release(run)


def prepare(run: Run, say: Callable[[str], None] = lambda text: None) -> None:
    """Embed all texts through ComfyUI's CLIP, give its memory back, and encode all pictures."""
    cache = run.cache
    assert cache is not None
    say("reading captions")
    for text in cache.captions():
        check_interrupt()
        run.base.embed(text)
    free_memory()
    place(run.base.vae, device(), torch.float32)
    samples = cache.samples(run.settings.flip)
    for number, sample in enumerate(samples):
        check_interrupt()
        say(f"encoding pictures: {number + 1} of {len(samples)}")
        cache.latent(sample)


def release(run: Run) -> None:
    """Let go of the run's modules and caches, and put feature networks back where they were loaded."""
    for loss in run.losses:
        if hasattr(loss, "features"):
            loss.features.to(torch.device("cpu"))
    run.cache = None
    run.base.unet = run.base.vae = None  # type: ignore[assignment]  # the run is over
    gc.collect()
    free_memory()


def model_name(prompt: Any, node_id: Any) -> str:
    """The checkpoint's file name, found by walking the graph up from this node's model input; "unknown" otherwise."""
    seen: set[str] = set()
    node = _above(prompt, str(node_id))
    while node is not None and node not in seen:
        seen.add(node)
        inputs = prompt[node].get("inputs", {})
        for key in ("ckpt_name", "unet_name", "model_name"):
            if isinstance(inputs.get(key), str):
                return inputs[key]
        node = _above(prompt, node)
    return "unknown"


def loss_map(rows: Rows, losses: Sequence[Loss]) -> dict[str, list[float]]:
    """The weighted loss of each step, for ComfyUI's own graph node.

    That node divides by the range of the values. A run of one step, or of no change at all, therefore gets its last
    value once more, moved by the smallest amount there is; nothing else is made up.
    """
    values = weighted_losses(rows, losses) or [0.0]
    if len(set(values)) < 2:
        values = [*values, math.nextafter(values[-1], math.inf)]
    return {"loss": values}


def chart(rows: Rows, title: str) -> Tensor:
    """The run's chart as IMAGE (1, H, W, 3)."""
    return loss_chart(rows, title).unsqueeze(0)


@dataclass
class _Watch:
    """Keeps the progress bar going by UNet calls, and its line of text by optimizer steps."""

    run: Run
    bar: Progress
    text: str = ""

    def check(self) -> None:
        check_interrupt()
        self.bar.update(min(self.run.base.calls, self.bar.total - 1), self.text)

    def observe(self, step: int, row: Mapping[str, float]) -> None:
        terms = [f"{loss.name} {row[loss.name]:.4f}" for loss in self.run.losses if loss.name in row]
        self.text = f"{self.run.folder.name}: step {step} of {self.run.settings.steps}, {', '.join(terms)}"


def _where(folder: str, name: str, resume: bool) -> str:
    if resume:
        return f"going on with the run {folder}"
    return f"run {folder}" if folder == name else f"run {folder}, for {name} exists and is kept"


def _above(prompt: Any, node: str) -> str | None:
    """The node that feeds this node's model input."""
    if not isinstance(prompt, Mapping) or node not in prompt:
        return None
    link = prompt[node].get("inputs", {}).get("model")
    return str(link[0]) if isinstance(link, list) and len(link) == 2 else None
