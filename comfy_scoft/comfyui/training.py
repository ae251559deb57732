"""A training run on ComfyUI's sockets, for the nodes Train LoRA and Export Training Job."""

from __future__ import annotations

import gc
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..common.errors import UserError
from ..common.files import regular
from ..common.names import checked_name
from ..data.records import Dataset
from ..losses import Loss, feature_networks, named
from ..losses.rollout import RolloutSettings
from ..models.lora import LoraSettings
from ..models.placement import to_device, unet_dtype
from ..training.job import write_job
from ..training.memory import MemoryOptions
from ..training.memory_estimate import fits
from ..training.model_card import TrainedLora, training_record
from ..training.run import Run
from ..training.run_folder import LATEST, OFF, discard_empty, run_folder, run_line, train_and_log, weighted_losses
from ..training.settings import Decode, OptimizerSettings, TrainSettings
from .listed_files import lora_file
from .live_chart import LiveChart
from .runtime import Progress, check_interrupt, device, free_bytes, free_memory
from .small_vae import small_vae
from .to_diffusers import base_model
from .training_progress import TrainingProgress

Rows = list[dict[str, float]]
OnPrepare = Callable[[int, int, str], None]
"""Called with how many captions and images are encoded, how many there are, and what is done now."""


def _unseen(done: int, total: int, text: str) -> None:
    """An `OnPrepare` of a caller who shows nothing."""


@dataclass
class TrainInputs:
    """A node's inputs. settings: the fields of TrainSettings, and `lora`, `optimizer`, `rollout` and `validation` if
    connected. name: of the base model, for the card."""

    model: Any
    clip: Any
    vae: Any
    dataset: Dataset
    losses: Sequence[Loss]
    settings: Mapping[str, Any]
    name: str

    def run(self, folder: Path, *, resume: bool = False) -> Run:
        """The run, with its base model converted. Settings are checked before anything is computed."""
        values = dict(self.settings)
        options = {key: values.pop(key, None) for key in ("lora", "optimizer", "rollout", "validation")}
        settings = TrainSettings(**values)
        records = self.dataset.split("train")
        if len(self.dataset) and not len(records):
            raise UserError(
                f"The dataset {self.dataset.name!r} has no image of the split 'train', the only one that is "
                "trained on: load that split too."
            )
        validation = options["validation"]
        if validation is not None:
            validation = validation_images(validation, records)
        free_memory()
        base = base_model(self.model, self.clip, self.vae, self.name, settings.long_captions)
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
            validation=validation,
        )
        if run.lora.start_from:
            run.start = _lora(run.lora.start_from)
        if settings.decode is Decode.TAESD or run.settings.resolution >= 256:
            base.small_vae = small_vae(base)
        run.check()
        return run


def _lora(name: str) -> dict[str, Tensor]:
    """The tensors of a listed LoRA. Raises UserError for a file that cannot be read."""
    path = lora_file(name)
    try:
        return load_file(regular(path))
    except Exception as error:  # safetensors has its own kind of error, and a missing file another
        raise UserError(f"The LoRA {name!r} cannot be read ({error}): choose another safetensors file.") from error


def validation_images(validation: Dataset, trained: Dataset) -> Dataset:
    """The images of a dataset that are not trained on, so that the same dataset can be connected twice."""
    others = validation.without(trained)
    if not len(others):
        raise UserError(
            f"Every image of the validation set {validation.name!r} is trained on too, so it would show nothing: "
            "connect images of another split, for example Load Dataset with the split 'test'."
        )
    return others


def train_in_comfyui(
    inputs: TrainInputs, root: Path, name: str, resume: str, node_id: str | None, workflow: str | None = None
) -> tuple[TrainedLora, Rows, int]:
    """Train, and return the LoRA with its record, all rows of the run's metrics, and the number of steps done.

    node_id, workflow: the node and workflow of the page that show progress and chart.
    An interrupt is checked before each UNet call; the trainer then saves a checkpoint. Memory is freed in any case.
    """
    run = inputs.run(root, resume=resume != OFF)
    try:
        folder = run.folder = run_folder(root, name, resume)
        chart = LiveChart(folder.name, run.settings.steps, dict(named(run.losses)), node_id, workflow)
        go_on = LATEST if resume == OFF else resume
        progress = TrainingProgress(run, Progress(1, node_id), chart, go_on)
        with progress.stop_is_shown():
            progress.on_message(run_line(folder, name, resume))
            progress.on_message(run.size_note)
            prepare(run, progress.on_prepare)
            run.memory_options, line = fits(run, MemoryOptions.of(run.settings), free_bytes())
            progress.on_message(line)
            to_device(run.base.unet, device(), unet_dtype(run.settings.precision))
            started = time.monotonic()
            result, rows = train_and_log(run, progress.callbacks())
        progress.end(result.steps, rows)
        record = training_record(run, result, rows, time.monotonic() - started)
        return TrainedLora(result.lora, record), rows, result.steps
    finally:
        release(run)
        discard_empty(run.folder)


def export(
    inputs: TrainInputs,
    root: Path,
    name: str,
    checkpoint: Path | None,
    watch: OnPrepare = _unseen,
) -> Path:
    """Write the job `name` under `root` (-2, -3, … if the name is in use) and return the path of its job.json."""
    checked_name(name, "job name")
    run = inputs.run(root)
    try:
        done = total = 0

        def encoded(count: int, of: int, text: str) -> None:
            """Half of the work: the other half is that all of it is written."""
            nonlocal done, total
            done, total = count, 2 * of + (len(run.dataset) if feature_networks(run.losses) else 0)
            watch(done, total, text)

        def written() -> None:
            nonlocal done
            check_interrupt()
            done = min(done + 1, total)
            watch(done, total, "writing the job")

        prepare(run, encoded)
        return write_job(run, root / name, checkpoint, written)
    finally:
        release(run)


def command(job: Path) -> str:
    """What to type in a terminal to train a job, in any folder, quoted for the shells of this system."""
    pack = Path(__file__).resolve().parents[2]
    return f"{_quoted(sys.executable, first=True)} {_quoted(pack)} train {_quoted(job)}"


def _quoted(path: Path | str, *, first: bool = False) -> str:
    """first: the word that begins the line. PowerShell takes one that begins with a quote for a text, not a command."""
    if os.name != "nt":
        return shlex.quote(str(path))
    parts = str(path).split("\\") if first else [str(path)]  # a file's name cannot have a quote there
    return "\\".join(f'"{part}"' if re.search(r"[^\w.:\\-]", part) else part for part in parts)


def prepare(run: Run, watch: OnPrepare = _unseen) -> None:
    """Encode all captions with ComfyUI's CLIP, free its memory, and encode all images. watch: called before each."""
    cache, held_out = run.caches()
    captions = run.captions()
    samples = [(cache, sample) for sample in cache.samples(flip=run.settings.flip)]
    samples += [(held_out, sample) for sample in held_out.samples(flip=False)] if held_out is not None else []
    total = len(captions) + len(samples)
    for number, caption in enumerate(captions):
        check_interrupt()
        watch(number, total, f"encoding captions: {number + 1} of {len(captions)}")
        run.base.embed(caption)
    free_memory()
    to_device(run.base.vae, device(), torch.float32)
    if run.base.small_vae is not None:
        to_device(run.base.small_vae, device(), torch.float32)
    for number, (own, sample) in enumerate(samples):
        check_interrupt()
        watch(len(captions) + number, total, f"encoding images: {number + 1} of {len(samples)}")
        own.latent(sample)


def release(run: Run) -> None:
    """Free the run's modules and caches, and move feature networks back to the CPU."""
    for network in feature_networks(run.losses):
        network.to(torch.device("cpu"))
    run.cache = run.held_out = None
    run.base.unet = run.base.vae = run.base.small_vae = None  # type: ignore[assignment]  # the run is over
    gc.collect()
    free_memory()


def model_name(prompt: Any, node_id: Any) -> str:
    """The checkpoint's file name, found by walking the graph up from this node's model input; "unknown" otherwise."""
    seen: set[str] = set()
    node = str(node_id)
    while isinstance(prompt, Mapping) and node in prompt and node not in seen:
        inputs = prompt[node].get("inputs", {})
        for key in ("ckpt_name", "unet_name", "model_name") if seen else ():  # of the nodes above
            if isinstance(inputs.get(key), str):
                return inputs[key]
        seen.add(node)
        link = inputs.get("model")
        if not isinstance(link, list) or len(link) != 2:
            break
        node = str(link[0])
    return "unknown"


def loss_map(rows: Rows, losses: Sequence[Loss]) -> dict[str, list[float]]:
    """The weighted loss of each step, for ComfyUI's Plot Loss Graph.

    That node divides by the range of the values. If all are equal, the last value is therefore added once more, changed
    by the smallest possible amount.
    """
    values = weighted_losses(rows, losses) or [0.0]
    if len(set(values)) < 2:
        values = [*values, math.nextafter(values[-1], math.inf)]
    return {"loss": values}
