"""The comparisons: which loops take turns, in blocks of how many optimizer steps, and the targets of their ratios."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_scoft.models.lora import Targets

from . import core_node, variants
from .measure import Parts, Peak, counted, driven, ratio
from .variants import Variant
from .vgg import VggFile
from .worlds import World, build

PAPER_STEPS = 3000
"""Optimizer steps over which one-off costs are spread."""
FAST_ROLLOUT = 5

REBUILT, KEPT = "released, VGG16 rebuilt", "released, VGG16 kept"
SAME, PAPER, FAST = "ours, exact, the released terms", "ours, exact, the paper's terms", "ours, fast"
CORE, ATTENTION, EVERYTHING = "ComfyUI's Train LoRA", "ours, attention", "ours, all projections and convolutions"


@dataclass(frozen=True)
class Comparison:
    """Ratio of times, slow / fast. target: the least ratio to reach, if there is one."""

    slow: str
    fast: str
    target: float | None = None


@dataclass(frozen=True)
class Case:
    """A comparison of several loops. steps: optimizer steps per block. make: builds the loop of a variant's name."""

    title: str
    steps: int
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    make: Callable[[World, str, Path, VggFile], Variant]


def rollout_case() -> Case:
    """The released example's settings. A block is five optimizer steps: 20 passes, two of them with a rollout."""
    steps = 5

    def make(world: World, name: str, folder: Path, vgg: VggFile) -> Variant:
        if name == FAST:
            return variants.fast(name, world, folder, steps, FAST_ROLLOUT)
        if name == PAPER:
            return variants.exact(name, world, folder, steps)
        if name == SAME:
            return variants.exact(name, world, folder, steps, vgg)
        return variants.released(name, world, vgg, steps, rebuild=name == REBUILT)

    comparisons = (
        Comparison(REBUILT, SAME, 2.5),
        Comparison(KEPT, SAME, 1.5),
        Comparison(REBUILT, PAPER),
        Comparison(KEPT, PAPER),
        Comparison(PAPER, FAST),
    )
    return Case("The released script's loop and ours", steps, (REBUILT, KEPT, SAME, PAPER, FAST), comparisons, make)


def plain_case(batch: int, accumulation: int, *, checkpointing: bool = False) -> Case:
    """Diffusion loss alone, rank 64, fp32 on a CPU and bf16 on a GPU."""
    how = core_node.Plain(batch, accumulation, checkpointing)
    kinds: dict[str, Targets] = {ATTENTION: "attention", EVERYTHING: "attention + feed-forward + convolutions"}

    def make(world: World, name: str, folder: Path, vgg: VggFile) -> Variant:
        if name == CORE:
            return core_node.theirs(name, world, how)
        return core_node.beside(name, world, folder, how, kinds[name])

    title = f"Plain LoRA: ComfyUI's own node and ours, batch {batch}, accumulation {accumulation}, "
    title += f"{'with' if checkpointing else 'without'} gradient checkpointing"
    comparisons = (Comparison(CORE, ATTENTION, 1.5), Comparison(CORE, EVERYTHING))
    return Case(title, how.steps, (CORE, ATTENTION, EVERYTHING), comparisons, make)


CASES: dict[str, Callable[[], Case]] = {
    "rollout": rollout_case,
    "plain": lambda: plain_case(1, 1),
    "plain-checkpointing": lambda: plain_case(1, 1, checkpointing=True),
    "plain-accumulated": lambda: plain_case(1, 4),
    "plain-accumulated-checkpointing": lambda: plain_case(1, 4, checkpointing=True),
    "plain-batch": lambda: plain_case(4, 1),
}


def measure(key: str, world_name: str, rounds: int, images: int = 0) -> dict[str, Any]:
    """Runs a case: two blocks of each variant (warm-up, then counted), `rounds` blocks in turns, and one timed by part.

    Returns plain JSON; seconds are per optimizer step."""
    case, world = CASES[key](), build(world_name, images)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        loaded = [case.make(world, name, folder, VggFile(folder)) for name in case.names]
        with driven([v.body for v in loaded], world.device) as loops:
            for variant, loop in zip(loaded, loops, strict=True):
                once = variant.prepare()
                loop.block()
                with counted(variant.unet) as calls:
                    operations = loop.operations()
                measured[variant.name] = {
                    "seconds": [],
                    "once": once,
                    "operations": operations / case.steps,
                    **{name: count / case.steps for name, count in calls.items()},
                }
            for turn in range(rounds):
                for offset in range(len(loaded)):  # each round begins with another variant
                    place = (turn + offset) % len(loaded)
                    measured[loaded[place].name]["seconds"].append(loops[place].block() / case.steps)
            for variant, loop in zip(loaded, loops, strict=True):
                parts = Parts(world.device)
                with parts.watching(variant.targets):
                    loop.block()
                measured[variant.name]["parts"] = {name: s / case.steps for name, s in parts.seconds.items()}
    return {
        "title": case.title,
        "world": world.shape,
        "precision": world.precision,
        "device": world.device.type,
        "pictures": len(world.dataset),
        "steps in a block": case.steps,
        "rounds": rounds,
        "variants": measured,
        "comparisons": [_compared(c, measured) for c in case.comparisons],
    }


def _compared(comparison: Comparison, measured: dict[str, Any]) -> dict[str, Any]:
    slow, fast = (measured[name] for name in (comparison.slow, comparison.fast))
    slow_all, fast_all = (
        [seconds + sum(one["once"].values()) / PAPER_STEPS for seconds in one["seconds"]] for one in (slow, fast)
    )
    return {
        **dataclasses.asdict(comparison),
        "ratio": ratio(slow["seconds"], fast["seconds"]),
        "ratio with what is done once": ratio(slow_all, fast_all)["median"],
        "ratio of operations": slow["operations"] / fast["operations"],
    }


def peak_memory(key: str, world_name: str, name: str, images: int = 0) -> int:
    """Bytes that a variant needs beyond its loaded model: caches, optimizer, one block. Needs a process of its own."""
    case, world = CASES[key](), build(world_name, images)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        variant = case.make(world, name, folder, VggFile(folder))
        peak = Peak(world.device)
        variant.prepare()
        with driven([variant.body], world.device) as (loop,):
            loop.block()
        return peak.read()
