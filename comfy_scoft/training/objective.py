"""The loss of some images of an optimizer step, ready for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..common.errors import NonFiniteLoss
from ..losses import Loss, LossContext, named
from ..losses.context import predict_frozen
from ..losses.rollout import GradientStep, roll_out
from .batches import TrainingSample
from .latent_cache import Cache, center
from .memory import MemoryOptions
from .run import Run
from .settings import Decode, Precision


def weighted_loss(
    run: Run,
    cache: Cache,
    some: Sequence[TrainingSample],
    memory_options: MemoryOptions,
    check_interrupt: Callable[[], None],
) -> tuple[Tensor, dict[str, list[float]]]:
    """The weighted loss of some images of an optimizer step, as a share of the step's mean, and its terms by name.

    Losses on the rollout's image come first: their gradient at z_0 is taken and the decoder's graph freed before the
    prediction's graph is built; it then enters as ⟨κ g, ε_c⟩ (rollout.py).
    """
    context = context_of(run, cache, some, check_interrupt)
    terms: dict[str, list[float]] = {}
    plain = [loss for loss in run.losses if not loss.uses_rollout]
    rolling = [i for i, sample in enumerate(some) if sample.has_rollout and len(plain) < len(run.losses)]
    frozen = sorted({name for loss in plain for name in loss.calls.frozen})
    with precision(run), _dropout_of(run, some):
        total = torch.zeros((), device=run.base.device)
        if rolling:
            part = context_of(
                run, cache, [some[i] for i in rolling], check_interrupt, crop=memory_options.decode is Decode.CROP
            )
            names = {name for loss in run.losses if loss.uses_rollout for name in loss.calls.frozen}
            predict_frozen((context, frozen), (part, sorted({"caption", "empty"} | names)))
            total = total + _rollout_losses(run, context, part, some, rolling, memory_options, terms)
        else:
            predict_frozen((context, frozen))
        for name, loss in named(run.losses):
            if not loss.uses_rollout:
                total = total + loss.weight * _sum(name, loss, context, terms)
    return total / run.settings.images, terms


def _rollout_losses(
    run: Run,
    context: LossContext,
    part: LossContext,
    some: Sequence[TrainingSample],
    rolling: list[int],
    memory_options: MemoryOptions,
    terms: dict[str, list[float]],
) -> Tensor:
    """A scalar whose gradient is that of the losses on x̂ (summed over `part`, the images `rolling` of `context`),
    through the one recorded prediction. some: the samples of `context`."""
    first = part.frozen("caption", "empty")
    rand, seeds = zip(*((some[i].rollout_rand, some[i].noise_seed) for i in rolling), strict=True)
    rolled = roll_out(
        run.base, part.z_t, part.t, part.captions, run.rollout, rand, first, part.check_interrupt, noise_seeds=seeds
    )
    z_0 = rolled.z_0.requires_grad_()
    part.image = run.base.decode(
        center(z_0) if memory_options.decode is Decode.CROP else z_0, small=memory_options.decode is Decode.TAESD
    )
    image_loss = torch.zeros((), device=z_0.device)
    for name, loss in named(run.losses):
        if loss.uses_rollout:
            image_loss = image_loss + loss.weight * _sum(name, loss, part, terms)
    (g,) = torch.autograd.grad(image_loss, z_0)
    part.drop_image()
    terms["kappa"] = rolled.kappa.abs().tolist()
    if run.rollout.gradient_step is GradientStep.FIRST:
        prediction = context.prediction[rolling]
    else:
        part.check_interrupt()
        prediction = run.base.predict(rolled.recorded_z, rolled.recorded_t, part.captions)
    kappa = rolled.kappa.to(g.device, torch.float32).view(-1, 1, 1, 1)
    return (kappa * g.float() * prediction.float()).sum()


def _sum(name: str, loss: Loss, context: LossContext, terms: dict[str, list[float]]) -> Tensor:
    """The loss summed over the context's samples; logs each, unweighted."""
    values = loss(context)
    terms.setdefault(name, []).extend(values.detach().tolist())
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteLoss(
            f"The {name} loss is no longer a finite number, so training stopped and the last good checkpoint was "
            "kept; start a new run with a lower learning rate, or in fp32 precision."
        )
    return values.sum()


def context_of(
    run: Run, cache: Cache, some: Sequence[TrainingSample], check_interrupt: Callable[[], None], *, crop: bool = False
) -> LossContext:
    """What the losses of some images may ask for."""
    device, schedule = run.base.device, run.base.schedule
    z, noise = torch.stack([s.z for s in some]), torch.stack([s.noise for s in some])
    t = torch.tensor([s.t for s in some])
    samples = [s.sample for s in some]
    return LossContext(
        base=run.base,
        z_t=schedule.add_noise(z, noise, t).to(device),
        t=t.to(device),
        target=schedule.target(z, noise, t).to(device),
        captions=tuple(s.caption for s in some),
        generic=tuple(s.generic for s in some),
        positive=lambda network: cache.positive(network, samples, crop=crop),
        negatives=lambda network: cache.negatives(network, samples, crop=crop),
        records=tuple(cache.record(sample) for sample in samples),
        loss_rand=tuple(s.loss_rand for s in some),
        check_interrupt=check_interrupt,
    )


def precision(run: Run) -> torch.autocast:
    """Without autocast's cache: older PyTorch keeps in it what a frozen call cast, and the gradient is lost there."""
    kinds = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
    kind = kinds.get(run.settings.precision)
    return torch.autocast(run.base.device.type, kind, enabled=kind is not None, cache_enabled=False)


@contextmanager
def _dropout_of(run: Run, some: Sequence[TrainingSample]) -> Iterator[None]:
    """Dropout knows only PyTorch's global generator: seed it by the first image's batch, then restore it."""
    if run.lora.dropout == 0:
        yield
        return
    device = run.base.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(some[0].seed)
        yield
