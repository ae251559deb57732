"""The comparisons: which loops take turns, in blocks of how many optimizer steps, and what is asked of their ratios."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from comfy_scoft.models.lora import Targets

from . import core_node, variants
from .measure import Parts, Peak, counted, driven, ratio
from .variants import Variant
from .vgg import VggFile
from .worlds import World, build

PAPER_STEPS = 3000
"""Optimizer steps that one-off costs are spread over."""
FAST_ROLLOUT = 5

REBUILT, KEPT = "released, VGG16 rebuilt", "released, VGG16 kept"
SAME, PAPER, FAST = "ours, exact, the released terms", "ours, exact, the paper's terms", "ours, fast"
CORE, ATTENTION, EVERYTHING = "ComfyUI's Train LoRA", "ours, attention", "ours, all projections and convolutions"


@dataclass(frozen=True)
class Comparison:
    """slow / fast, in time; target: the ratio that was asked for, where one was."""

    slow: str
    fast: str
    target: float | None = None


@dataclass(frozen=True)
class Case:
    """One comparison of several loops.

    steps: optimizer steps a block. make: name of a variant -> its loop, made when it is asked for.
    """

    title: str
    steps: int
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    make: Callable[[World, str, Path, VggFile], Variant]


def rollout_case() -> Case:
    """The paper's settings. Blocks of five optimizer steps: 20 micro-steps, of which two have a rollout."""
    steps = 5

    def make(world: World, name: str, folder: Path, vgg: VggFile) -> Variant:
        if name == FAST:
            return variants.fast(name, world, folder, steps, FAST_ROLLOUT)
        if name == PAPER:
            return variants.exact(name, world, folder, steps)
        if name == SAME:
            return variants.exact(name, world, folder, steps, vgg)
        return variants.released(name, world, vgg, name == REBUILT, steps)

    comparisons = (
        Comparison(REBUILT, SAME, 2.5),
        Comparison(KEPT, SAME, 1.5),
        Comparison(REBUILT, PAPER),
        Comparison(KEPT, PAPER),
        Comparison(PAPER, FAST),
    )
    return Case("The released script's loop and ours", steps, (REBUILT, KEPT, SAME, PAPER, FAST), comparisons, make)


def plain_case(batch: int, accumulation: int, checkpointing: bool) -> Case:
    """Diffusion loss alone, rank 64, fp32 on a CPU and bf16 on a GPU."""
    how = core_node.Plain(batch, accumulation, checkpointing)
    kinds: dict[str, Targets] = {ATTENTION: "attention", EVERYTHING: "attention + feed-forward + convolutions"}

    def make(world: World, name: str, folder: Path, vgg: VggFile) -> Variant:
        given = _given(world)
        if name == CORE:
            return core_node.theirs(name, given, world, how)
        return core_node.beside(name, given, world, folder, how, kinds[name])

    title = f"Plain LoRA: ComfyUI's own node and ours, batch {batch}, accumulation {accumulation}, "
    title += f"{'with' if checkpointing else 'without'} gradient checkpointing"
    comparisons = (Comparison(CORE, ATTENTION, 1.5), Comparison(CORE, EVERYTHING))
    return Case(title, how.steps, (CORE, ATTENTION, EVERYTHING), comparisons, make)


CASES: dict[str, Callable[[], Case]] = {
    "rollout": rollout_case,
    "plain": lambda: plain_case(1, 1, False),
    "plain-checkpointing": lambda: plain_case(1, 1, True),
    "plain-accumulated": lambda: plain_case(1, 4, False),
    "plain-accumulated-checkpointing": lambda: plain_case(1, 4, True),
    "plain-batch": lambda: plain_case(4, 1, False),
}

_GIVEN: dict[str, core_node.Sockets] = {}


def _given(world: World) -> core_node.Sockets:
    """One MODEL for all variants of a process."""
    if world.name not in _GIVEN:
        _GIVEN[world.name] = core_node.sockets(world)
    return _GIVEN[world.name]


def measure(key: str, world_name: str, rounds: int, images: int = 0) -> dict[str, Any]:
    """Run a case: two blocks of each variant first (one warms up, one is counted), then `rounds` in turns, then one
    with its time by part. Returns plain JSON; seconds are of one optimizer step."""
    case, world = CASES[key](), build(world_name, images)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = [case.make(world, name, folder, VggFile(folder)) for name in case.names]
        with driven([v.body for v in made], world.device) as loops:
            for variant, loop in zip(made, loops, strict=True):
                once = variant.prepare()
                loop.block()
                with counted(variant.unet) as calls:
                    operations = loop.operations()
                found[variant.name] = {
                    "seconds": [],
                    "once": once,
                    "operations": operations / case.steps,
                    **{name: count / case.steps for name, count in calls.items()},
                }
            for turn in range(rounds):
                for offset in range(len(made)):  # each round begins with another one
                    place = (turn + offset) % len(made)
                    found[made[place].name]["seconds"].append(loops[place].block() / case.steps)
            for variant, loop in zip(made, loops, strict=True):
                parts = Parts(world.device)
                with parts.watching(variant.targets):
                    loop.block()
                found[variant.name]["parts"] = {name: s / case.steps for name, s in parts.seconds.items()}
    return {
        "title": case.title,
        "world": world.shape,
        "precision": world.precision,
        "device": world.device.type,
        "pictures": len(world.dataset),
        "steps in a block": case.steps,
        "rounds": rounds,
        "variants": found,
        "comparisons": [_compared(c, found) for c in case.comparisons],
    }


def _compared(wanted: Comparison, found: dict[str, Any]) -> dict[str, Any]:
    slow, fast = (found[name] for name in (wanted.slow, wanted.fast))
    slow_all, fast_all = (
        [seconds + sum(one["once"].values()) / PAPER_STEPS for seconds in one["seconds"]] for one in (slow, fast)
    )
    return {
        "slow": wanted.slow,
        "fast": wanted.fast,
        "target": wanted.target,
        "ratio": ratio(slow["seconds"], fast["seconds"]),
        "ratio with what is done once": ratio(slow_all, fast_all)["median"],
        "ratio of operations": slow["operations"] / fast["operations"],
    }


def peak_memory(key: str, world_name: str, name: str, images: int = 0) -> int:
    """Bytes that a variant needs beyond its loaded model: its caches, its optimizer, and one block. Ask in a process
    of its own."""
    case, world = CASES[key](), build(world_name, images)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        variant = case.make(world, name, folder, VggFile(folder))
        peak = Peak(world.device)
        variant.prepare()
        with driven([variant.body], world.device) as (loop,):
            loop.block()
        return peak.read()


def default_world() -> str:
    """Stable Diffusion 1.5's shape where there is a GPU, the mini model otherwise."""
    return "sd15" if torch.cuda.is_available() else "mini"
