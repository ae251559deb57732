"""The training loop of SCoFT: `train`, and what it needs beside its arithmetic (`Trainer`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import NonFiniteLoss, OtherProcess, UserError
from ..losses import feature_networks, named
from ..models.lora import attach, export_kohya
from ..models.weight_files import are_finite
from . import memory, optimizers, preview, validation
from .batches import TrainingSample, batches_of_step, passes_of, samples_of_batch
from .checkpoint import State
from .distributed import FAULT, FINE, SHORT
from .ema import Ema, averaged
from .objective import precision, weighted_loss
from .resume import run_identity, save_checkpoint, start_or_resume
from .run import Callbacks, Run
from .settings import Decode, Precision
from .step_plan import look_calls, planned_calls, uses_rollout

EMA_SHARE = 0.1
"""Share of the newest step in the running means of the metrics, whose weighted sum is logged as `loss`."""
MAX_SKIPPED_STEPS = 20
"""Optimizer steps in a row that fp16 may skip while it looks for a loss scale."""

Terms = dict[str, list[float]]
"""The values of each term for the images that have it, by the name of its metric."""


@dataclass(frozen=True)
class Result:
    """A finished run: the LoRA in kohya's form, steps done, the rows of metrics of this call, and how memory was saved
    in the end."""

    lora: dict[str, Tensor]
    steps: int
    metrics: list[dict[str, float]]
    memory_options: memory.MemoryOptions


def train(run: Run, callbacks: Callbacks = Callbacks()) -> Result:  # noqa: B008 - frozen
    """Train a LoRA on `run.base` and return it. The base model's own weights are never written.

    A checkpoint is written every `checkpoint_every` steps, at the end, and before any exception leaves this function.
    Raises UserError for settings that do not fit, NonFiniteLoss (naming the term) when a loss stops being a number.
    """
    run.check()
    trainer = Trainer(run, callbacks)
    state = trainer.state
    with trainer.saving_on_error():
        trainer.validate_and_preview()
        while state.step < run.settings.steps:
            terms = trainer.with_enough_memory(forward_and_backward)
            update(run, state, terms)
            trainer.log(state.row)
            trainer.save_where_due()
            trainer.validate_and_preview()
        trainer.agree(FINE)
    with averaged(state.ema):
        return Result(export_kohya(run.base.unet), state.step, trainer.metrics, state.memory_options)


def forward_and_backward(trainer: Trainer) -> Terms:
    """The gradient of this process's images of one optimizer step, left in the parameters; returns their terms."""
    run, state = trainer.run, trainer.state
    terms: Terms = {}
    for samples in trainer.passes():
        loss, values = weighted_loss(
            run, trainer.cache, samples, state.memory_options, trainer.callbacks.check_interrupt
        )
        if loss.requires_grad:  # with rollout losses alone, most images give no gradient
            state.scaler.scale(loss).backward()
        for name, of_images in values.items():
            terms.setdefault(name, []).extend(of_images)
    return terms


def update(run: Run, state: State, terms: dict[str, float]) -> None:
    """Clip the gradient, make the optimizer's step, update the moving average, and write the step's row of metrics."""
    rate = run.optimizer.rate(state.step, run.settings.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    has_gradient = any(p.grad is not None for p in state.parameters.values())  # not where no image had a rollout
    if has_gradient:
        state.scaler.unscale_(state.optimizer)
    limit = run.optimizer.clip if run.optimizer.clip > 0 else float("inf")
    norm = torch.nn.utils.clip_grad_norm_(state.parameters.values(), limit)
    finite = bool(torch.isfinite(norm))
    skipped = 0.0 if finite else state.averages.get("skipped", 0.0) + 1.0
    if not finite and (not state.scaler.is_enabled() or skipped > MAX_SKIPPED_STEPS):
        raise NonFiniteLoss(
            f"The gradient of step {state.step + 1} is not a finite number, so training stopped and the last good "
            "checkpoint was kept; start a new run with a lower learning rate, or in fp32 precision."
        )
    state.consistent = False
    if has_gradient:
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if not are_finite(state.parameters.values()):
            raise NonFiniteLoss(
                f"The update of step {state.step + 1} gave weights that are not finite numbers, so training stopped "
                "and the last good checkpoint was kept; start a new run with a lower learning rate, or in fp32 "
                "precision."
            )
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None and finite:
        state.ema.update()
    state.averages["skipped"] = skipped
    state.step += 1
    for name, value in terms.items():
        state.averages[name] = state.averages.get(name, value) * (1.0 - EMA_SHARE) + value * EMA_SHARE
    loss = sum(loss.weight * state.averages.get(name, 0.0) for name, loss in named(run.losses))
    state.row = {"step": state.step, "loss": loss, **terms}
    state.row |= {"grad_norm": float(norm) if finite else 0.0, "learning_rate": rate}
    state.row |= {} if finite else {"skipped": 1.0}
    state.consistent = True


class Trainer:
    """A run in progress: its state, and all that the loop does beside a step's arithmetic.

    state: what has been learned. cache, held_out: latents and features of the training
    and of the held-out images. metrics: the rows so far.
    """

    def __init__(self, run: Run, callbacks: Callbacks) -> None:
        """Attach the LoRA, make the optimizer, and load the newest checkpoint into both where the run is resumed."""
        self.run, self.callbacks = run, callbacks
        for network in feature_networks(run.losses):
            network.to(run.base.device)
        for caption in run.captions():  # before autocast could round them
            run.base.embed(caption)
        if run.distributed.main and (sentence := run.long_captions()):
            callbacks.on_message(sentence)
        self.state = new_state(run)
        start_or_resume(run, self.state, callbacks.on_message)
        self.state.memory_options.apply(run.base)
        self.cache, self.held_out = run.caches()
        crop = self.state.memory_options.decode is Decode.CROP
        self.cache.fill(run.distributed, feature_networks(run.losses), flip=run.settings.flip, crop=crop)
        self.identity = run_identity(run)
        self.metrics: list[dict[str, float]] = []
        self._plan(0)

    def passes(self) -> list[list[TrainingSample]]:
        """This process's images of the next optimizer step, by forward and backward pass."""
        run, length = self.run, len(self.run.base.schedule)
        samples = [
            sample
            for batch in batches_of_step(run.settings, self.state.step)
            for sample in samples_of_batch(self.cache, run.settings, run.rollout, length, batch)
        ]
        return passes_of(run.distributed.share(samples), self.state.memory_options.micro_batch)

    def with_enough_memory(self, gradients: Callable[[Trainer], Terms]) -> dict[str, float]:
        """Call `gradients`, add up the gradients of all processes, and return the mean of each term.

        Where memory runs out, what was learned is saved and the call repeated with the next of `memory.ladder`.
        """
        run, state = self.run, self.state
        while True:
            error: BaseException | None = None
            terms: Terms = {}
            try:
                terms = gradients(self)
            except (RuntimeError, MemoryError) as raised:
                if not memory.is_out(raised):
                    raise
                error = raised.with_traceback(None)  # its frames hold the graph that did not fit
            if self.agree(FINE if error is None else SHORT) == FINE:
                run.distributed.sum_gradients(state.parameters.values())
                return self._means(terms)
            state.optimizer.zero_grad(set_to_none=True)
            memory.free()
            if state.saved < state.step:
                self.save()
            self._save_memory(error)

    def agree(self, outcome: int) -> int:
        """The worst outcome of all processes. Raises OtherProcess where one of them stopped with a fault."""
        outcome = self.run.distributed.worst(outcome, self.run.base.device)
        if outcome == FAULT:
            raise OtherProcess("Another process stopped, so this one stops too; what was learned is kept.")
        return outcome

    def log(self, row: dict[str, float]) -> None:
        self.metrics.append(row)
        self.callbacks.on_step(int(row["step"]), row)

    def save_where_due(self) -> None:
        """Write the checkpoint that is due after the step."""
        settings = self.run.settings
        if self.state.step % settings.checkpoint_every == 0 or self.state.step == settings.steps:
            self.save()

    def save(self) -> None:
        if self.run.distributed.main:
            save_checkpoint(self.run, self.state, self.identity)

    def validate_and_preview(self) -> None:
        """Measure held-out images and generate the preview that are due now. A run that is resumed here repeats it."""
        run, state, check = self.run, self.state, self.callbacks.check_interrupt
        if not run.distributed.main:
            return
        with averaged(state.ema), precision(run):
            if self.held_out is not None and validation.is_due(run.settings, state.step):
                found = validation.measure(self.cache, self.held_out, run.settings.seed, check)
                self.log({"step": state.step, **found})
            if preview.is_due(run.settings, state.step):
                image = preview.generate(run.base, run.settings, check)
                if image is not None:
                    self.callbacks.on_preview(state.step, image)
                else:
                    self.callbacks.on_message(f"Memory ran out in the preview of step {state.step}: it is left out.")

    @contextmanager
    def saving_on_error(self) -> Iterator[None]:
        """Before an exception leaves it, what was learned is saved, and the other processes are told to stop."""
        state = self.state
        try:
            yield
        except BaseException as error:
            if state.consistent and (state.ema is None or state.ema.consistent) and state.saved < state.step:
                try:
                    self.save()
                except UserError as second:  # the first error is the one to raise
                    self.callbacks.on_message(str(second))
            if not isinstance(error, OtherProcess):
                self.run.distributed.leave(self.run.base.device)
            raise

    def _save_memory(self, error: BaseException | None) -> None:
        """Go one step down the ladder of memory options. Raises UserError where there is none left."""
        run, state = self.run, self.state
        small = run.base.small_vae is not None
        steps = memory.ladder(
            state.memory_options, run.settings, rollouts=uses_rollout(run.losses), small_decoder=small
        )
        if not steps:
            raise UserError(
                f"Memory ran out in step {state.step + 1} even with all that saves it, so training stopped and step "
                f"{state.step} was kept; lower the resolution or the LoRA's rank in a new run, or close other programs."
            ) from error
        state.memory_options, text = steps[0]
        state.memory_options.apply(run.base)
        self.callbacks.on_message(f"Memory ran out in step {state.step + 1}; training goes on with {text}.")
        self._plan(look_calls(run, state.step))

    def _plan(self, done: int) -> None:
        """Tell the caller how many UNet calls the run makes; `done` of those planned for this step are made already."""
        if self.callbacks.on_plan is not None:
            left = planned_calls(self.run, self.state.memory_options.micro_batch, self.state.step) - done
            self.callbacks.on_plan(self.run.base.calls + left)

    def _means(self, terms: Terms) -> dict[str, float]:
        """Mean of each term over the images of all processes that have it (not every image has a rollout)."""
        names = [*(name for name, _ in named(self.run.losses)), "kappa"]
        sums = [v for name in names for v in (sum(terms.get(name, [])), float(len(terms.get(name, []))))]
        sums = self.run.distributed.sum_values(sums, self.run.base.device)
        pairs = zip(names, sums[::2], sums[1::2], strict=True)
        return {name: total / count for name, total, count in pairs if count}


def new_state(run: Run) -> State:
    """The state before the first step: a fresh LoRA, attached to the UNet, and its optimizer."""
    settings, options = run.settings, run.optimizer
    parameters = attach(run.base.unet, run.lora, torch.Generator().manual_seed(settings.seed), run.start)
    return State(
        parameters,
        optimizers.build(parameters, options.optimizer, options.learning_rate, options.weight_decay),
        torch.amp.GradScaler(run.base.device.type, enabled=settings.precision is Precision.FP16),
        run.memory_options or memory.MemoryOptions.of(settings),
        Ema(parameters, options.ema) if options.ema else None,
        asked=memory.MemoryOptions.of(settings),
    )
