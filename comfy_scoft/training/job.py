"""Exported jobs: a training run as a folder that trains outside ComfyUI, from the very tensors ComfyUI would use.

    job.json             settings, losses, records, and where the weights are
    tensors.safetensors  latents of every sample, embeddings of every text, the noise schedule; pixels, if a loss
                         looks at images; the LoRA that training goes on from, if there is one
    unet/, vae/          the weights in diffusers' form, unless the job names a checkpoint file instead

On the CPU, with the same number of threads, the LoRA is bit-identical to the one the node trains.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..common.errors import DiskError, UserError
from ..common.files import file_hash, part_folder, publish_folder, regular
from ..common.fingerprints import versions
from ..common.names import checked_name
from ..data.records import CultureRecord, Dataset
from ..features import FeatureNetwork, load_features
from ..losses import LOSSES, Loss, feature_networks, from_json
from ..losses.rollout import RolloutSettings
from ..models.lora import LoraSettings
from ..models.noise_schedule import NoiseSchedule
from ..models.placement import to_device, unet_dtype
from ..models.single_file import load_base
from ..models.stable_diffusion import FAMILIES, BaseModel, TextEmbedding
from ..models.text_encoder import LongCaptions
from .distributed import launched
from .job_models import compare, find, named, stored
from .latent_cache import Cache, Sample
from .memory import MemoryOptions, free_bytes
from .memory_estimate import fits
from .run import Callbacks, Run
from .run_folder import free_folders, train_and_log
from .settings import OptimizerSettings, TrainSettings
from .trainer import Result

JOB, TENSORS = "job.json", "tensors.safetensors"
FORMAT, VERSION = "scoft-job", 3
CUT = 2
"""The version whose captions were all cut after one window of the text encoder. It is read too."""
SETTINGS = {"train": TrainSettings, "lora": LoraSettings, "optimizer": OptimizerSettings, "rollout": RolloutSettings}
_PATHS = ("image", "negatives", "depth")


@dataclass(frozen=True)
class Job:
    """A job as read and checked; its weights are not loaded yet. `content` is job.json."""

    folder: Path
    name: str
    content: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.content["settings"]["train"]["steps"])


def write_job(
    run: Run, folder: Path, checkpoint: Path | None = None, check_interrupt: Callable[[], None] = lambda: None
) -> Path:
    """Write a run as the job `folder` (-2, -3, … if there is one), whole or not at all; returns its job.json's path.

    checkpoint: a single-file checkpoint to name instead of storing UNet and autoencoder; its weights must be the
    run's own, to the bit. Raises UserError where they are not, and DiskError.
    """
    folder = folder.with_name(checked_name(folder.name, "job name"))
    with part_folder(folder) as part:
        networks = feature_networks(run.losses)
        save_file(_tensors(run, check_interrupt, images=bool(networks)), part / TENSORS)
        if run.base.small_vae is not None:
            run.base.small_vae.save_pretrained(part / "small_vae")
        if checkpoint is None:
            run.base.unet.save_pretrained(part / "unet")
            run.base.vae.save_pretrained(part / "vae")
        else:
            compare(run.base, checkpoint)
        for target in free_folders(folder.parent, folder.name):
            content = _content(run, target.name, networks, checkpoint)
            (part / JOB).write_text(json.dumps(content, indent=1), encoding="utf-8")
            with suppress(FileExistsError):  # another process was quicker
                publish_folder(part, target)
                return target / JOB
    raise AssertionError("a free name is always found")


def read_job(path: Path) -> Job:
    """The job of a job.json (or of the folder that holds it). UserError, one sentence, for one that cannot be run."""
    path = path / JOB if path.is_dir() else path
    try:
        content = json.loads(regular(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"There is no job at {str(path)!r}: give the job.json that Export Training Job wrote."
        ) from error
    except OSError as error:
        raise DiskError(f"The job {path.name} cannot be read", error) from error
    except ValueError as error:
        raise UserError(f"{path.name} is not a job that can be read (JSON was expected): export it again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path.name} is not a SCoFT job: give the job.json that Export Training Job wrote.")
    if content.get("version") not in (CUT, VERSION):
        raise UserError(
            f"The job has version {content.get('version')!r}, but this program reads version {VERSION}: export it "
            "again, or use the program's version that wrote it."
        )
    try:
        tensors = load_file(regular(path.parent / TENSORS))
    except Exception as error:  # safetensors has its own kind of error, and a missing file another
        raise UserError(f"The job's {TENSORS} is missing or damaged: copy the whole folder again.") from error
    job = Job(path.parent, checked_name(str(content.get("name")), "job name"), content, tensors)
    try:
        job.steps  # noqa: B018 - read before anything is made for it
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The job {job.name!r} does not say how many steps it has: export it again.") from error
    return job


def load_run(job: Job, folder: Path, models: Path | None = None, *, resume: bool = False) -> Run:
    """The run of a job, its weights loaded on the CPU; checkpoints and metrics go to `folder`.

    models: a folder to look in, with all its sub-folders, for files that the job names but does not hold.
    """
    try:
        if job.content["version"] == CUT:
            job.content["settings"]["train"]["long_captions"] = LongCaptions.FIRST
        settings: dict[str, Any] = {key: kind(**job.content["settings"][key]) for key, kind in SETTINGS.items()}
        base = _base(job, models)
        settings["train"] = settings["train"].of(base)
        losses = _losses(job, models)
        cache = _cache(job, base, "dataset", settings["train"])
        held_out = None if job.content["validation"] is None else _cache(job, base, "validation", settings["train"])
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"The job {job.name!r} is not complete ({error}): export it again.") from error
    return Run(
        base=base,
        dataset=cache.dataset,
        losses=losses,
        folder=folder,
        settings=settings["train"],
        lora=settings["lora"],
        optimizer=settings["optimizer"],
        rollout=settings["rollout"],
        resume=resume,
        cache=cache,
        validation=None if held_out is None else held_out.dataset,
        held_out=held_out,
        start={k.removeprefix("start."): v for k, v in job.tensors.items() if k.startswith("start.")} or None,
        data=file_hash(job.folder / TENSORS)[:16],
    )


def run_job(
    job: Job,
    folder: Path,
    models: Path | None = None,
    *,
    resume: bool = False,
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - frozen
) -> tuple[Run, Result, list[dict[str, float]]]:
    """Train a job; returns the run, its result and the rows of its metrics."""
    run, notes = ready_run(job, folder, models, resume=resume)
    for note in notes if run.distributed.main else ():
        callbacks.on_message(note)
    return (run, *train_and_log(run, callbacks))


def ready_run(job: Job, folder: Path, models: Path | None = None, *, resume: bool = False) -> tuple[Run, list[str]]:
    """The run of a job, ready to be trained, and what to say of it: the memory that it needs, its resolution.

    Uses a GPU where torch finds one, and all processes that torchrun or accelerate started (distributed.py).
    """
    run = load_run(job, folder, models, resume=resume)
    run.distributed, device = launched()
    to_device(run.base.unet, device, unet_dtype(run.settings.precision))
    to_device(run.base.vae, device, torch.float32)
    run.memory_options, line = fits(run, MemoryOptions.of(run.settings), free_bytes(device))
    run.memory_options = run.distributed.first(run.memory_options)
    return run, [note for note in (line, run.size_note) if note]


def _tensors(run: Run, check_interrupt: Callable[[], None], *, images: bool) -> dict[str, Tensor]:
    """Everything frozen that the run needs. Pixels are stored as the 8 bits they come from, which is exact."""
    cache, held_out = run.caches()
    texts = []
    for text in run.captions():
        check_interrupt()
        texts.append(run.base.embed(text))
    tensors = {
        "text.hidden": torch.cat([text.hidden[0] for text in texts]).cpu(),
        "text.tokens": torch.tensor([text.hidden.shape[1] for text in texts]),
        "alphas_cumprod": run.base.schedule.alphas_cumprod.clone(),
    }
    if all(text.pooled is not None for text in texts):
        tensors["text.pooled"] = torch.cat([text.pooled for text in texts if text.pooled is not None]).cpu()
    sets = [("dataset", cache, cache.samples(flip=run.settings.flip))]
    sets += [("validation", held_out, held_out.samples(flip=False))] if held_out is not None else []
    for name, own, samples in sets:
        for i, sample in enumerate(samples):
            check_interrupt()
            tensors[f"{name}.{i}.mean"], tensors[f"{name}.{i}.std"] = own.latent(sample)
    for index in range(len(run.dataset)) if images else ():
        check_interrupt()
        pixels, negatives = cache.pixels((index, False))
        tensors[f"pixels.{index}"], tensors[f"negatives.{index}"] = _to_bytes(pixels), _to_bytes(negatives)
    tensors |= {f"start.{key}": value for key, value in (run.start or {}).items()}
    return {key: value.clone().contiguous() for key, value in tensors.items()}


def _to_bytes(pixels: Tensor) -> Tensor:
    return pixels.add(1.0).mul(127.5).round().to(torch.uint8)


def _content(run: Run, name: str, networks: list[FeatureNetwork], checkpoint: Path | None) -> dict[str, Any]:
    base = run.base
    settings: tuple[Any, ...] = (run.settings, run.lora, run.optimizer, run.rollout)
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "written_with": versions(),
        "settings": {key: dataclasses.asdict(value) for key, value in zip(SETTINGS, settings, strict=True)},
        "losses": [loss.as_json(networks.index) for loss in run.losses],
        "features": [{"name": network.name, "file": named(network.source)} for network in networks],
        "base": {
            "name": base.name,
            "family": base.family,
            "prediction": base.schedule.prediction,
            "vae": type(base.vae).__name__,
            "vae_scaling": base.vae_scaling,
            "small_vae": base.small_vae is not None,
            "file": named(checkpoint),
        },
        "captions": run.captions(),
        "dataset": _listed(run.dataset),
        "validation": None if run.validation is None or not len(run.validation) else _listed(run.validation),
    }


def _listed(dataset: Dataset) -> dict[str, Any]:
    """A dataset as JSON; of its records' images only their names, and how many negatives there are."""
    texts = [field.name for field in dataclasses.fields(CultureRecord) if field.name not in _PATHS]
    records = [
        {name: getattr(record, name) for name in texts}
        | {"image": record.image.name, "negatives": len(record.negatives)}
        for record in dataset.records
    ]
    return {"name": dataset.name, "records": records}


def _dataset(job: Job, listed: dict[str, Any]) -> Dataset:
    """Records whose paths are names only: their images are in the tensors."""
    records = []
    for number, entry in enumerate(listed["records"]):
        texts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        count = int(texts.pop("negatives"))
        image = job.folder / "pictures" / f"{number}_{Path(str(texts.pop('image'))).name}"
        negatives = tuple(image.with_name(f"{number}_negative_{k}.png") for k in range(count))
        records.append(CultureRecord(image=image, negatives=negatives, **texts))
    return Dataset(job.folder, tuple(records), str(listed["name"]))


def _base(job: Job, models: Path | None) -> BaseModel:
    facts, tensors = job.content["base"], job.tensors
    if facts["file"] is not None:
        loaded = load_base(find(job.folder, facts["file"], models), facts["prediction"])
        unet, vae = loaded.unet, loaded.vae
    else:
        unet, vae = stored(job.folder, "unet", "UNet2DConditionModel"), stored(job.folder, "vae", str(facts["vae"]))
    if facts["family"] not in FAMILIES:
        raise UserError(f"The job's base model is of family {facts['family']!r}, which is not known: export it again.")
    texts, pooled = job.content["captions"], tensors.get("text.pooled")
    hidden = tensors["text.hidden"]  # (tokens of all texts, C); in a CUT job (texts, tokens of one, C)
    tokens = tensors["text.tokens"].tolist() if hidden.ndim == 2 else [hidden.shape[1]] * len(texts)
    known = {
        text: TextEmbedding(own.unsqueeze(0).clone(), None if pooled is None else pooled[i : i + 1].clone())
        for i, (text, own) in enumerate(zip(texts, hidden.flatten(0, -2).split(tokens), strict=True))
    }
    schedule = NoiseSchedule(tensors["alphas_cumprod"], facts["prediction"])
    scaling = float(facts["vae_scaling"])
    small = stored(job.folder, "small_vae", "AutoencoderTiny") if facts["small_vae"] else None
    return BaseModel(unet, vae, schedule, known.__getitem__, facts["family"], str(facts["name"]), scaling, small)


def _losses(job: Job, models: Path | None) -> list[Loss]:
    networks = []
    for entry in job.content["features"]:
        path = None if entry["file"] is None else find(job.folder, entry["file"], models)
        networks.append(load_features(str(entry["name"]), path))
    losses = []
    for entry in job.content["losses"]:
        if entry["name"] not in LOSSES:
            raise UserError(
                f"The job has a loss named {entry['name']!r}, which is not known: use the version that wrote it."
            )
        losses.append(from_json(LOSSES, entry, networks.__getitem__))
    return losses


def _cache(job: Job, base: BaseModel, name: str, train: TrainSettings) -> Cache:
    """The cache of the job's `dataset` or `validation`, filled with its latents."""
    tensors, dataset = job.tensors, _dataset(job, job.content[name])
    cache = Cache(base, dataset, train.resolution, train.buckets)
    for i, sample in enumerate(cache.samples(flip=train.flip and name == "dataset")):
        cache.latents[sample] = tensors[f"{name}.{i}.mean"].clone(), tensors[f"{name}.{i}.std"].clone()

    def images(sample: Sample) -> tuple[Tensor, Tensor]:
        """[-1, 1], by the same arithmetic as the dataset's own images (data/crop.py), so to the same bits."""
        index, flip = sample
        both = tensors[f"pixels.{index}"], tensors[f"negatives.{index}"]
        pixels, negatives = ((x.flip(-1) if flip else x).float().div(127.5).sub(1.0) for x in both)
        return pixels, negatives

    cache.images = images
    return cache
