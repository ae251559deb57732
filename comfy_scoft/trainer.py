"""The training loop of SCoFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checkpoint
from .base_model import BaseModel
from .cache import Cache, Sample
from .errors import NonFiniteLoss
from .lora import LoraSettings, attach, export_kohya
from .losses import Loss, LossContext
from .records import Dataset
from .rollout import RolloutSettings, roll_out
from .settings import OptimizerSettings, TrainSettings


@dataclass
class Run:
    """One training run: what is trained, on what, how, and where its checkpoints live.

    cache: latents and features that are known already; None computes each on first use.
    """

    base: BaseModel
    dataset: Dataset
    losses: Sequence[Loss]
    folder: Path
    settings: TrainSettings = field(default_factory=TrainSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    resume: bool = False
    cache: Cache | None = None

    def described(self) -> dict[str, Any]:
        """What decides the result, as plain JSON: a run goes on only where all of it is the same."""
        base = {"name": self.base.name, "family": self.base.family, "prediction": self.base.schedule.prediction}
        return {
            "base model": base,
            "train": {k: v for k, v in asdict(self.settings).items() if k != "checkpoint_every"},
            "lora": asdict(self.lora),
            "optimizer": asdict(self.optimizer),
            "rollout": asdict(self.rollout),
            "losses": [_described(loss) for loss in self.losses],
            "dataset": self.dataset.fingerprint(),
        }


@dataclass(frozen=True)
class Result:
    """A finished run: the LoRA in kohya's form, steps done, and one row of figures per optimizer step of this call."""

    lora: dict[str, Tensor]
    steps: int
    metrics: list[dict[str, float]]


def train(
    run: Run,
    check: Callable[[], None] = lambda: None,
    observe: Callable[[int, dict[str, float]], None] = lambda step, row: None,
) -> Result:
    """Train a LoRA on `run.base` and return it. The base model's own weights are never written.

    check: called before each UNet call; it may raise to stop. observe: called after each optimizer step.
    A checkpoint is written every `checkpoint_every` steps, at the end, and before any exception leaves this function.
    Raises ValueError for settings that do not fit, NonFiniteLoss (naming the term) when a loss stops being a number.
    """
    refuse_what_cannot_train(run)
    settings, cache = run.settings, run.cache or Cache(run.base, run.dataset, run.settings.resolution)
    for loss in run.losses:
        if hasattr(loss, "features"):
            loss.features.to(run.base.device)
    parameters = attach(run.base.unet, run.lora, torch.Generator().manual_seed(settings.seed))
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=run.optimizer.learning_rate, weight_decay=run.optimizer.weight_decay
    )
    done = _start(run, parameters, optimizer)
    metrics: list[dict[str, float]] = []
    try:
        for step in range(done, settings.steps):
            figures = _Figures()
            for micro in range(step * settings.accumulation, (step + 1) * settings.accumulation):
                loss, terms = micro_step(run, cache, micro, check)
                if loss.requires_grad:  # with rollout losses alone, most micro-steps have nothing to learn from
                    (loss / settings.accumulation).backward()
                figures.add(terms)
            norm = _clip(parameters, run.optimizer.clip, step)
            rate = _set_rate(optimizer, run.optimizer.rate(step, settings.steps))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done = step + 1
            row = {"step": done, **figures.means(), "grad_norm": norm, "learning_rate": rate}
            metrics.append(row)
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                checkpoint.save(run.folder, done, parameters, optimizer, run.described())
            observe(done, row)
    except BaseException:
        if checkpoint.newest_step(run.folder) < done:
            checkpoint.save(run.folder, done, parameters, optimizer, run.described())
        raise
    return Result(export_kohya(run.base.unet), done, metrics)


def micro_step(run: Run, cache: Cache, micro: int, check: Callable[[], None]) -> tuple[Tensor, dict[str, float]]:
    """The weighted loss of one micro-step, ready for backward, and its terms by name.

    `micro` counts over the whole run and decides, with the seed, every random number, so that nothing else need be
    saved to go on. Losses on the rollout's image come first: their gradient at z_0 is taken and the decoder's graph
    freed before the prediction's graph is built; it then enters as ⟨κ g, ε_c⟩ (rollout.py).
    """
    generator = torch.Generator().manual_seed(_seed(run.settings.seed, micro))
    samples = _samples(run, micro, generator)
    context = _context(run, cache, samples, generator, check)
    terms: dict[str, float] = {}
    with _precision(run), _dropout_of(run, micro):
        total = torch.zeros((), device=run.base.device)
        if any(loss.uses_rollout for loss in run.losses) and micro % run.rollout.every == 0:
            total = total + _rollout_losses(run, context, terms, generator)
        for loss in run.losses:
            if not loss.uses_rollout:
                total = total + loss.weight * _mean(loss, context, terms)
    return total, terms


def _rollout_losses(run: Run, context: LossContext, terms: dict[str, float], generator: torch.Generator) -> Tensor:
    """A scalar whose gradient is that of the losses on x̂, through the one recorded prediction."""
    generic = ["generic"] if any(getattr(loss, "reference", "") == "current" for loss in run.losses) else []
    caption, empty, *_ = context.frozen("caption", "empty", *generic)
    rolled = roll_out(
        run.base, context.z_t, context.t, context.captions, run.rollout, generator, (caption, empty), context.check
    )
    z_0 = rolled.z_0.requires_grad_()
    context.image = run.base.decode(z_0)
    image_loss = torch.zeros((), device=z_0.device)
    for loss in run.losses:
        if loss.uses_rollout:
            image_loss = image_loss + loss.weight * _mean(loss, context, terms)
    (g,) = torch.autograd.grad(image_loss, z_0)
    context.drop_image()
    terms["kappa"] = float(rolled.kappa.abs().mean())
    if run.rollout.gradient_step == "first":
        prediction = context.prediction
    else:
        context.check()
        prediction = run.base.predict(rolled.recorded_z, rolled.recorded_t, context.captions)
    kappa = rolled.kappa.to(g.device, torch.float32).view(-1, 1, 1, 1)
    return (kappa * g.float() * prediction.float()).sum()


def _precision(run: Run) -> torch.autocast:
    """Without autocast's cache: older PyTorch keeps in it what a frozen call cast, and the gradient is lost there."""
    wanted = run.settings.precision == "bf16"
    return torch.autocast(run.base.device.type, torch.bfloat16, enabled=wanted, cache_enabled=False)


@contextmanager
def _dropout_of(run: Run, micro: int) -> Iterator[None]:
    """Dropout knows only PyTorch's global generator: seed it for this micro-step, and put it back as it was."""
    if run.lora.dropout == 0:
        yield
        return
    device = run.base.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_seed(run.settings.seed, micro))
        yield


def _mean(loss: Loss, context: LossContext, terms: dict[str, float]) -> Tensor:
    value = loss(context).mean()
    terms[loss.name] = terms.get(loss.name, 0.0) + float(value.detach())
    if not torch.isfinite(value):
        raise NonFiniteLoss(
            f"The {loss.name} loss is no longer a finite number, so training stopped and the last good checkpoint was "
            "kept; lower the learning rate, or use fp32 precision."
        )
    return value


def _context(
    run: Run, cache: Cache, samples: list[Sample], generator: torch.Generator, check: Callable[[], None]
) -> LossContext:
    """Draw the noise, timesteps and generic captions of a micro-step."""
    device, schedule = run.base.device, run.base.schedule
    moments = [cache.latent(s) for s in samples]
    mean, std = (torch.stack(part) for part in zip(*moments, strict=True))
    z = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(z.shape, generator=generator)
    t = torch.randint(len(schedule), (len(samples),), generator=generator)
    records = [cache.record(s) for s in samples]
    generic = []
    for record in records:
        choices = record.generic_captions or (record.caption,)
        generic.append(choices[int(torch.randint(len(choices), (1,), generator=generator))])
    return LossContext(
        base=run.base,
        z_t=schedule.add_noise(z, noise, t).to(device),
        t=t.to(device),
        target=schedule.target(z, noise, t).to(device),
        captions=tuple(record.caption for record in records),
        generic=tuple(generic),
        positive=lambda network: cache.positive(network, samples),
        negatives=lambda network: cache.negatives(network, samples),
        check=check,
    )


def _samples(run: Run, micro: int, generator: torch.Generator) -> list[Sample]:
    """The pictures of a micro-step: epochs are permutations drawn from the seed and the epoch's number."""
    count, size = len(run.dataset), run.settings.batch_size
    samples = []
    for position in range(micro * size, (micro + 1) * size):
        epoch, place = divmod(position, count)
        order = np.random.default_rng((run.settings.seed, epoch)).permutation(count)
        flipped = run.settings.flip and bool(torch.rand((), generator=generator) < 0.5)
        samples.append((int(order[place]), flipped))
    return samples


def _seed(seed: int, micro: int) -> int:
    return int(np.random.SeedSequence((seed, micro)).generate_state(1, np.uint64)[0] >> 1)


def _start(run: Run, parameters: dict, optimizer: torch.optim.Optimizer) -> int:
    """Finished steps of the run to go on with, or 0. Refuses to mix a run with another of the same name."""
    saved = checkpoint.newest(run.folder)
    if saved is None or saved.step == 0:  # a run that stopped in its first step has learned nothing to go on with
        return 0
    if not run.resume:
        raise ValueError(
            f"A run named {run.folder.name!r} exists already; choose another run name, or set resume to go on with it."
        )
    wanted, found = run.described(), saved.settings
    different = sorted(k for k in wanted if wanted[k] != found.get(k))
    if different:
        raise ValueError(
            f"The run {run.folder.name!r} was started with other settings ({', '.join(different)}), so going on would "
            "give a LoRA of neither; use the same settings, or choose another run name."
        )
    checkpoint.restore(saved, parameters, optimizer)
    return saved.step


def refuse_what_cannot_train(run: Run) -> None:
    """Raise ValueError, one sentence, for data and losses that do not fit. Cheap: ask before encoding pictures."""
    if len(run.dataset) == 0:
        raise ValueError("The dataset has no records, so there is nothing to train on; load one with at least one.")
    if not run.losses:
        raise ValueError("No loss is connected, so there is nothing to learn; connect at least the Diffusion Loss.")
    if any(getattr(loss, "reference", None) for loss in run.losses):
        if not any(record.generic_captions for record in run.dataset.records):
            raise ValueError(
                "The Memorization Loss compares each caption with generic captions, but no record has one; add them to "
                "the dataset (blip_text), or bypass the Memorization Loss."
            )
    if any(loss.name == "contrastive" for loss in run.losses):
        if not any(record.negatives for record in run.dataset.records):
            raise ValueError(
                "The Self-Contrastive Loss pushes away from negatives, but no record has one; connect Make Negatives, "
                "or use the Perceptual Loss in its place."
            )


def _clip(parameters: dict[str, torch.nn.Parameter], limit: float, step: int) -> float:
    """Clip the gradient to a norm (0: no limit) and return its norm before."""
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), limit if limit > 0 else float("inf"))
    if not torch.isfinite(norm):
        raise NonFiniteLoss(
            f"The gradient of step {step + 1} is not a finite number, so training stopped and the last good checkpoint "
            "was kept; lower the learning rate, or use fp32 precision."
        )
    return float(norm)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


class _Figures:
    """Mean of each term over the micro-steps of a step that have it (a rollout is not made in each)."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def add(self, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            self.found.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.found.items()}


def _described(loss: Loss) -> dict[str, Any]:
    """A loss as plain JSON: a network by its name, anything else that is no number or text by its `str`."""
    plain = (str, int, float, bool, type(None))
    values = {k: getattr(v, "name", v) for k, v in vars(loss).items()}
    return {"name": loss.name, **{k: v if isinstance(v, plain) else str(v) for k, v in values.items()}}
