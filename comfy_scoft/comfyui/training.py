"""One training run on ComfyUI's sockets: what the nodes Train LoRA and Export Job share."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.names import checked_name
from ..data.records import Dataset
from ..losses import Loss, feature_networks, named
from ..losses.rollout import RolloutSettings
from ..models.lora import LoraSettings
from ..models.placement import to_device, unet_dtype
from ..reports.plots import loss_chart
from ..training.job import write_job
from ..training.memory import MemoryOptions
from ..training.memory_estimate import fits
from ..training.model_card import TrainedLora, training_record
from ..training.run import Run
from ..training.run_folder import OFF, discard_empty, run_folder, train_and_log, weighted_losses
from ..training.settings import OptimizerSettings, TrainSettings
from .live_chart import Curves, Live
from .lora_files import read_lora
from .runtime import Progress, check_interrupt, device, free_bytes, free_memory
from .small_vae import small_vae
from .to_diffusers import base_model
from .training_progress import Follower

Rows = list[dict[str, float]]


@dataclass
class Plan:
    """A node's inputs. knobs: the fields of TrainSettings, and `lora`, `optimizer`, `rollout` and `validation` where
    connected."""

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
        options = {key: knobs.pop(key, None) for key in ("lora", "optimizer", "rollout", "validation")}
        settings = TrainSettings(**knobs)
        records = self.dataset.split("train")
        if len(self.dataset) and not len(records):
            raise UserError(
                f"The dataset {self.dataset.name!r} has no image of the split 'train', and only those are trained "
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
            validation=held_out(options["validation"], records),
        )
        if run.lora.start_from:
            run.start = read_lora(run.lora.start_from)
        if settings.decode == "TAESD" or settings.resolution >= 256:
            base.small_vae = small_vae(base)
        run.check()
        return run


def held_out(given: Dataset | None, trained: Dataset) -> Dataset | None:
    """The images of a dataset that are not trained on, so that the same set can be connected twice."""
    if given is None:
        return None
    found = given.without(trained)
    if not len(found):
        raise UserError(
            f"Every image of the validation set {given.name!r} is trained on too, so it would show nothing; connect "
            "images of another split, for example Load Dataset with the split 'test'."
        )
    return found


def train_in_comfyui(
    plan: Plan, root: Path, name: str, resume: str, node_id: str | None, workflow: str | None = None
) -> tuple[TrainedLora, Rows, int]:
    """Train and return the LoRA with its record, all rows of the run's metrics, and the steps done.

    node_id, workflow: whose progress and chart it is on the page.
    An interrupt is obeyed before each UNet call; the trainer writes a checkpoint before it leaves. What training held
    is freed however it ends.
    """
    run = plan.run(root, resume != OFF)
    try:
        folder = run.folder = run_folder(root, name, resume)
        live = Live(folder.name, run.settings.steps, Curves(dict(named(run.losses))), node_id, workflow)
        follower = Follower(run, Progress(1, node_id), live)
        follower.on_message(_where(folder.name, name, resume))
        prepare(run, follower.on_message)
        run.memory_options, line = fits(run, MemoryOptions.of(run.settings), free_bytes())
        follower.on_message(line)
        to_device(run.base.unet, device(), unet_dtype(run.settings.precision))
        started = time.monotonic()
        with follower.told_of_a_stop():
            result, rows = train_and_log(run, follower.callbacks())
        follower.end(result.steps, rows)
        record = training_record(run, result, rows, time.monotonic() - started)
        return TrainedLora(result.lora, record), rows, result.steps
    finally:
        release(run)
        discard_empty(run.folder)


def export(plan: Plan, root: Path, name: str, checkpoint: Path | None) -> Path:
    """Write the job `name` under `root` (with -2, -3, … where that is taken) and return its job.json."""
    checked_name(name, "job name")
    run = plan.run(root)
    try:
        folder = run_folder(root, name)
        folder.rmdir()  # it only held the name; the job appears whole
        prepare(run)
        return write_job(run, folder, checkpoint, check_interrupt)
    finally:
        release(run)


def prepare(run: Run, say: Callable[[str], None] = lambda text: None) -> None:
    """Embed all texts through ComfyUI's CLIP, give its memory back, and encode all images."""
    cache, held_out = run.caches()
    say("reading captions")
    for caption in run.captions():
        check_interrupt()
        run.base.embed(caption)
    free_memory()
    to_device(run.base.vae, device(), torch.float32)
    if run.base.small_vae is not None:
        to_device(run.base.small_vae, device(), torch.float32)
    wanted = [(cache, sample) for sample in cache.samples(run.settings.flip)]
    wanted += [(held_out, sample) for sample in held_out.samples(flip=False)] if held_out is not None else []
    for number, (own, sample) in enumerate(wanted):
        check_interrupt()
        say(f"encoding images: {number + 1} of {len(wanted)}")
        own.latent(sample)


def release(run: Run) -> None:
    """Let go of the run's modules and caches, and put feature networks back where they were loaded."""
    for network in feature_networks(run.losses):
        network.to(torch.device("cpu"))
    run.cache = run.held_out = None
    run.base.unet = run.base.vae = run.base.small_vae = None  # type: ignore[assignment]  # the run is over
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


def _where(folder: str, name: str, resume: str) -> str:
    if resume != OFF:
        return f"going on with the run {folder}"
    return f"run {folder}" if folder == name else f"run {folder}, for {name} exists and is kept"


def _above(prompt: Any, node: str) -> str | None:
    """The node that feeds this node's model input."""
    if not isinstance(prompt, Mapping) or node not in prompt:
        return None
    link = prompt[node].get("inputs", {}).get("model")
    return str(link[0]) if isinstance(link, list) and len(link) == 2 else None
