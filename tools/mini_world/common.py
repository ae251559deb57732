"""Shared by the build scripts: arguments, image batches, a resumable training loop with averaged weights."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

sys.path.append(str(Path(__file__).parents[2]))

from comfy_scoft.mini_world import world  # noqa: E402


def arguments(description: str | None, *files: str, steps: int, batch: int, lr: float) -> argparse.ArgumentParser:
    """The arguments of a training script; `files` are the required paths beside --work."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("work", *files):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    return parser


def to_unit(rgb: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def save_grid(rows: Sequence[torch.Tensor], folder: Path) -> None:
    """Rows of images (N, 3, H, W) in [-1, 1] as grid.png."""
    grid = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    Image.fromarray(((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(folder / "grid.png")


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighboring pixels, down and to the right."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def unbiased(rng: np.random.Generator, count: int, dark: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, list]:
    """Images of the unbiased world (every concept, tone and palette alike).

    dark: share of images that are people of one of the two darkest tones instead.
    Returns pixels (B, 3, 64, 64) in [-1, 1], depth (B, 1, 64, 64) in [0, 1] and labels (concept, tone, palette).
    """
    names, palettes = list(world.concepts()), list(world.PALETTES)
    people = [name for name in names if world.concepts()[name].is_person]
    images, depths, labels = [], [], []
    for _ in range(count):
        person = dark > 0 and rng.random() < dark
        name = people[rng.integers(len(people))] if person else names[rng.integers(len(names))]
        tone = int(rng.choice((4, 5) if person else world.concepts()[name].tones))
        palette = palettes[rng.integers(len(palettes))]
        drawing = world.render(name, palette, rng, tone=tone, flip=bool(rng.random() < 0.5))
        images.append(drawing.rgb)
        depths.append(drawing.depth)
        labels.append((name, tone, palette))
    depth = torch.from_numpy(np.stack(depths)).unsqueeze(1).float().div(255.0)
    return to_unit(np.stack(images)), depth, labels


def start_processes() -> int:
    """Joins the other processes under torchrun; the rank of this one, 0 where it is alone."""
    if "RANK" not in os.environ:
        return 0
    dist.init_process_group("gloo")
    return dist.get_rank()


def main_process() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def average_gradients(model: torch.nn.Module) -> None:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for grad, part in zip(grads, flat.div_(dist.get_world_size()).split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def train(
    model: torch.nn.Module,
    loss_of: Callable[[int], torch.Tensor],
    args: argparse.Namespace,
    after: Callable[[torch.nn.Module, int], None],
    *,
    warmup: int = 200,
    decay: float = 0.999,
    every: int = 250,
) -> None:
    """Minimizes `loss_of(step)` (AdamW, cosine schedule, gradient norm 1).

    Under torchrun the gradients are averaged over the processes. Every `every` steps, and at the end, the main process
    calls `after(model, step)` with averaged weights in the model.
    A stopped run resumes: its state is in `state.pt` in the folder --work, and the random numbers of a step come from
    generators seeded by that step.
    """
    work, steps, lr = args.work, args.steps, args.lr
    work.mkdir(parents=True, exist_ok=True)
    state_file = work / "state.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]
    log = (work / "log.jsonl").open("a")
    began, mean = time.time(), None
    for step in range(start, steps):
        rate = lr * min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(step)
        loss.backward()
        loss = loss.detach()
        if dist.is_initialized():
            average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        keep = min(decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1.0 - keep)
                else:
                    average[name].copy_(value)
        mean = float(loss) if mean is None else 0.98 * mean + 0.02 * float(loss)
        if main_process() and (step + 1) % 50 == 0:
            rate_s = (time.time() - began) / (step + 1 - start)
            print(f"step {step + 1}/{steps} loss {mean:.4f} {rate_s:.3f} s/step", flush=True)
            log.write(json.dumps({"step": step + 1, "loss": mean}) + "\n")
            log.flush()
        if main_process() and ((step + 1) % every == 0 or step + 1 == steps):
            part = state_file.with_suffix(".part")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            torch.save({**state, "step": step + 1}, part)
            os.replace(part, state_file)
            weights = {k: v.clone() for k, v in model.state_dict().items()}
            model.load_state_dict(average)
            after(model, step + 1)
            model.load_state_dict(weights)
