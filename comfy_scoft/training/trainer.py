"""The training loop of SCoFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import NonFiniteLoss, OtherProcess, UserError
from ..losses import named
from ..models.lora import attach, export_kohya
from . import batches, memory, optimizers, preview
from .checkpoint import State
from .distributed import FAULT, FINE, SHORT
from .ema import Ema
from .latent_cache import Cache
from .objective import precision, weighted_loss
from .resume import described, save_checkpoint, start_or_go_on
from .run import Callbacks, Run
from .validation import Validation

NEW = 0.1
"""Share of a step's figures in their running means, whose weighted sum is logged as `loss`."""
SKIPS = 20
"""Optimizer steps in a row that fp16 may skip while it looks for a loss scale."""


@dataclass(frozen=True)
class Result:
    """A finished run: the LoRA in kohya's form, steps done, one row of figures per optimizer step of this call, and
    what was done to save memory in the end."""

    lora: dict[str, Tensor]
    steps: int
    metrics: list[dict[str, float]]
    memory_options: memory.MemoryOptions


def train(run: Run, watch: Callbacks = Callbacks()) -> Result:  # noqa: B008 - frozen
    """Train a LoRA on `run.base` and return it. The base model's own weights are never written.

    A checkpoint is written every `checkpoint_every` steps, at the end, and before any exception leaves this function.
    Raises UserError for settings that do not fit, NonFiniteLoss (naming the term) when a loss stops being a number.
    """
    refuse_what_cannot_train(run)
    settings, (cache, held_out) = run.settings, run.caches()
    state = _start(run, watch)
    facts = described(run)
    validation = (
        Validation(cache, held_out, settings.seed) if held_out is not None and settings.validate_every else None
    )
    metrics: list[dict[str, float]] = []

    def save() -> None:
        if run.processes.main:
            save_checkpoint(run, state, facts)

    def log(row: dict[str, float]) -> None:
        metrics.append(row)
        watch.observe(int(row["step"]), row)

    def look(step: int) -> None:
        """Measure and draw what is due after so many steps; a run that goes on there does it again."""
        if not run.processes.main:  # figures and images are the first process's
            return
        with _averaged(state), precision(run):
            if validation is not None and (step % settings.validate_every == 0 or step == settings.steps):
                log({"step": step, **validation.measure(watch.check)})
            if settings.preview_prompt and settings.preview_every and step % settings.preview_every == 0:
                image = preview.draw(run.base, settings, watch.check)
                if image is None:
                    watch.say(f"Memory ran out while the preview of step {step} was drawn, so it is left out.")
                else:
                    watch.show(step, image)

    try:
        while state.step < settings.steps:
            look(state.step)
            terms = _gradients(run, cache, state, watch, save)
            _update(run, state, terms)
            log(state.row)
            if state.step % settings.checkpoint_every == 0 or state.step == settings.steps:
                save()
        look(state.step)
        _agreed(run, FINE)
    except BaseException as error:
        if state.whole and (state.ema is None or state.ema.whole) and state.saved < state.step:
            try:
                save()
            except UserError as fault:  # the first fault is the one to raise
                watch.say(str(fault))
        if not isinstance(error, OtherProcess):
            run.processes.leave(run.base.device)
        raise
    with _averaged(state):
        return Result(export_kohya(run.base.unet), state.step, metrics, state.memory_options)


def _start(run: Run, watch: Callbacks) -> State:
    """The LoRA attached, the optimizer made, and both as a checkpoint has them where the run goes on."""
    settings = run.settings
    for loss in run.losses:
        if loss.network is not None:
            loss.network.to(run.base.device)
    for text in run.texts():  # before autocast could round them
        run.base.embed(text)
    parameters = attach(run.base.unet, run.lora, torch.Generator().manual_seed(settings.seed), run.start)
    wanted = run.optimizer
    state = State(
        parameters,
        optimizers.build(parameters, wanted.optimizer, wanted.learning_rate, wanted.weight_decay),
        torch.amp.GradScaler(run.base.device.type, enabled=settings.precision == "fp16"),
        run.memory_options or memory.MemoryOptions.of(settings),
        Ema(parameters, wanted.ema) if wanted.ema else None,
        asked=memory.MemoryOptions.of(settings),
    )
    start_or_go_on(run, state, watch.say)
    state.memory_options.apply(run.base)
    networks = list(dict.fromkeys(loss.network for loss in run.losses if loss.network is not None))
    run.caches()[0].fill(run.processes, networks, settings.flip, state.memory_options.decode == "crop")
    return state


def _gradients(run: Run, cache: Cache, state: State, watch: Callbacks, save: Callable[[], None]) -> dict[str, float]:
    """Forward and backward over all images of an optimizer step; returns the mean of each term.

    Where memory runs out, what was learned is saved and the step made again with less, down the ladder of memory.py.
    """
    while True:
        fault: BaseException | None = None
        terms: dict[str, list[float]] = {}
        try:
            terms = _backward(run, cache, state, watch.check)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out(error):
                raise
            fault = error.with_traceback(None)  # its frames hold the graph that did not fit
        if _agreed(run, FINE if fault is None else SHORT) == FINE:
            run.processes.sum_gradients(state.parameters.values())
            return _means(run, terms)
        state.optimizer.zero_grad(set_to_none=True)
        memory.free()
        if state.saved < state.step:
            save()
        _step_down(run, state, fault, watch.say)


def _agreed(run: Run, outcome: int) -> int:
    """The worst outcome of all processes. Raises OtherProcess where one stopped with a fault."""
    outcome = run.processes.worst(outcome, run.base.device)
    if outcome == FAULT:
        raise OtherProcess("Another process stopped, so this one stops too; what was learned is kept.")
    return outcome


def _backward(run: Run, cache: Cache, state: State, check: Callable[[], None]) -> dict[str, list[float]]:
    settings, length = run.settings, len(run.base.schedule)
    micro_steps = range(state.step * settings.accumulation, (state.step + 1) * settings.accumulation)
    drawn = [d for m in micro_steps for d in batches.samples_of_pass(cache, settings, run.rollout, length, m)]
    terms: dict[str, list[float]] = {}
    for some in batches.together(run.processes.share(drawn), state.memory_options.micro_batch):
        loss, found = weighted_loss(run, cache, some, state.memory_options, check)
        if loss.requires_grad:  # with rollout losses alone, most images have nothing to teach
            state.scaler.scale(loss).backward()
        for name, values in found.items():
            terms.setdefault(name, []).extend(values)
    return terms


def _step_down(run: Run, state: State, fault: BaseException | None, say: Callable[[str], None]) -> None:
    rollouts = any(loss.uses_rollout for loss in run.losses)
    steps = memory.ladder(state.memory_options, run.settings, rollouts, run.base.small_vae is not None)
    if not steps:
        raise UserError(
            f"Memory ran out in step {state.step + 1} even with all that saves it, so training stopped and step "
            f"{state.step} was kept; lower the resolution or the LoRA's rank, or close other programs, in a new run."
        ) from fault
    state.memory_options, words = steps[0]
    state.memory_options.apply(run.base)
    say(f"Memory ran out in step {state.step + 1}; training goes on with {words}.")


def _update(run: Run, state: State, terms: dict[str, float]) -> None:
    """Clip the gradient, make the optimizer's step, and take it into the moving average; the state's row says of it."""
    rate = run.optimizer.rate(state.step, run.settings.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    taught = any(p.grad is not None for p in state.parameters.values())  # not where no image had a rollout
    if taught:
        state.scaler.unscale_(state.optimizer)
    limit = run.optimizer.clip if run.optimizer.clip > 0 else float("inf")
    norm = torch.nn.utils.clip_grad_norm_(state.parameters.values(), limit)
    finite = bool(torch.isfinite(norm))
    skipped = 0.0 if finite else state.averages.get("skipped", 0.0) + 1.0
    if not finite and (not state.scaler.is_enabled() or skipped > SKIPS):
        raise NonFiniteLoss(
            f"The gradient of step {state.step + 1} is not a finite number, so training stopped and the last good "
            "checkpoint was kept; start a new run with a lower learning rate, or in fp32 precision."
        )
    state.whole = False
    if taught:
        state.scaler.step(state.optimizer)
        state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None and finite:
        state.ema.update()
    state.averages["skipped"] = skipped
    state.step += 1
    for name, value in terms.items():
        state.averages[name] = state.averages.get(name, value) * (1.0 - NEW) + value * NEW
    loss = sum(loss.weight * state.averages.get(name, 0.0) for name, loss in named(run.losses))
    state.row = {"step": state.step, "loss": loss, **terms}
    state.row |= {"grad_norm": float(norm) if finite else 0.0, "learning_rate": rate}
    state.row |= {} if finite else {"skipped": 1.0}
    state.whole = True


@contextmanager
def _averaged(state: State) -> Iterator[None]:
    """Within it, the LoRA is the one that is exported: its moving average, where there is one."""
    with nullcontext() if state.ema is None else state.ema.applied():
        yield


def _means(run: Run, terms: dict[str, list[float]]) -> dict[str, float]:
    """Mean of each term over the images of all processes that have it (a rollout is not made of each)."""
    names = [*(name for name, _ in named(run.losses)), "kappa"]
    sums = [v for name in names for v in (sum(terms.get(name, [])), float(len(terms.get(name, []))))]
    sums = run.processes.sum_values(sums, run.base.device)
    pairs = zip(names, sums[::2], sums[1::2], strict=True)
    return {name: total / count for name, total, count in pairs if count}


def refuse_what_cannot_train(run: Run) -> None:
    """Raise UserError, one sentence, for data and losses that do not fit. Cheap: ask before encoding images."""
    if len(run.dataset) == 0:
        raise UserError("The dataset has no records, so there is nothing to train on; load one with at least one.")
    if not run.losses:
        raise UserError("No loss is connected, so there is nothing to learn; connect at least the Diffusion Loss.")
    if any(loss.needs_generic for loss in run.losses):
        if not any(record.generic_captions for record in run.dataset.records):
            raise UserError(
                "The Memorization Loss compares each caption with generic captions, but no record has one; add them to "
                "the dataset (blip_text), or bypass the Memorization Loss."
            )
    if any(loss.needs_negatives for loss in run.losses):
        if not any(record.negatives for record in run.dataset.records):
            raise UserError(
                "The Self-Contrastive Loss pushes away from negatives, but no record has one; connect Make Negatives, "
                "or use the Perceptual Loss in its place."
            )
    if run.processes.count > run.settings.images:
        raise UserError(
            f"{run.processes.count} processes share the {run.settings.images} images of an optimizer step, so some "
            "would have nothing to do; raise accumulation or batch_size, or start fewer processes."
        )
    if run.settings.decode == "TAESD" and run.base.small_vae is None:
        raise UserError(
            "decode is TAESD, but there is no TAESD decoder of this model: put its file into models/vae_approx, or "
            "decode full."
        )
