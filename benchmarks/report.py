"""results.json and RESULTS.md."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import median_high
from typing import Any

import torch

from comfy_scoft.common.files import write_atomically
from comfy_scoft.common.fingerprints import versions

from .cases import PAPER_STEPS

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = "results.json", "RESULTS.md"


def code_digest() -> str:
    """16 hex digits of the code of the pack and the benchmarks: results of other code are measured again."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.split(".")[0] in ("comfy_scoft", "benchmarks") and path:
            digest.update(name.encode() + Path(path).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def machine() -> dict[str, Any]:
    """The machine's hardware and packages, without its name."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def load(folder: Path) -> dict[str, Any]:
    """The stored results; {} where there is no readable file."""
    try:
        return dict(json.loads((folder / RESULTS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def store(folder: Path, results: dict[str, Any]) -> None:
    write_atomically(folder / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    write_atomically(folder / PAGE, page(results).encode())


def page(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    cases = {key: case for key, case in results.items() if "variants" in case}
    lines = [_HEAD.format(steps=PAPER_STEPS).strip(), ""]
    if not any(case["device"] == "cuda" for case in cases.values()):
        lines += ["**None of this was run on a GPU.** The code for one was run at a tiny size on the CPU.", ""]
    for case in cases.values():
        lines += _case(case)
    for case in results.values():
        if "operations" in case:
            lines += _operations(case["operations"])
    return "\n".join(lines).rstrip() + "\n"


def _case(case: dict[str, Any]) -> list[str]:
    host, variants, memory = case["machine"], case["variants"], case.get("peak memory", {})
    device = host.get("GPU", f"CPU ({host['processor']}, {host['threads']} threads)")
    packages = ", ".join(f"{k} {host['versions'][k]}" for k in ("python", "torch", "diffusers", "peft"))
    lines = [f"## {case['title']}", "", f"`{case['command']}`", ""]
    lines += [
        f"Model: {case['world']}. {case['precision']}, {case['pictures']} images, {case['rounds']} rounds of "
        f"{case['steps in a block']} optimizer steps. {device}; {packages}.",
        "",
        *_table(_RATIOS, case["comparisons"]),
        *_table(_STEP, [{"name": name, "memory": memory.get(name), **v} for name, v in variants.items()]),
        "Milliseconds of an optimizer step by part (measured apart from the times above, and a little slower):",
        "",
        *_by_part({name: v["parts"] for name, v in variants.items()}, lambda seconds: f"{1000 * seconds:.1f}"),
    ]
    return lines


def _operations(loops: dict[str, dict[str, float]]) -> list[str]:
    sums = {name: sum(parts.values()) for name, parts in loops.items()}
    released = next(iter(sums.values()))
    rows = [("sum", *(f"**{total / 1e12:.1f}**" for total in sums.values()))]
    rows += [("released / this", *(f"{released / total:.2f}" for total in sums.values()))]
    head = "Operations at full size: Stable Diffusion 1.5, 512 px, CLIP RN50, TFLOP of an optimizer step"
    table = _by_part(loops, lambda count: f"{count / 1e12:.2f}", rows)
    return [f"## {head}", "", "`python run.py bench --case operations`", "", *table]


def _by_part(
    loops: dict[str, dict[str, float]], shown: Callable[[float], str], more: Sequence[tuple[str, ...]] = ()
) -> list[str]:
    """A table with a column for each loop and a row for each part that one of them has."""
    parts = dict.fromkeys(part for values in loops.values() for part in values)
    rows = [(part, *(shown(v[part]) if part in v else "" for v in loops.values())) for part in parts]
    columns = {name: itemgetter(i) for i, name in enumerate(("part", *loops))}
    return _table(columns, [*rows, *more])


def _table(columns: Mapping[str, Callable[[Any], str]], rows: Sequence[Any]) -> list[str]:
    """Columns by their heading."""
    lines = [tuple(columns), *(tuple(cell(row) for cell in columns.values()) for row in rows)]
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return [head, "|" + "---|" * len(columns), *body, ""]


def _verdict(compared: dict[str, Any]) -> str:
    target = compared["target"]
    if target is None:
        return ""
    return f"{target:.1f}: " + ("reached" if compared["ratio"]["median"] >= target else "**missed**")


_RATIOS: dict[str, Callable[[Any], str]] = {
    "ratio of times": lambda c: f"{c['slow']} / {c['fast']}",
    "median": lambda c: f"**{c['ratio']['median']:.2f}**",
    "95 % interval": lambda c: f"{c['ratio']['low']:.2f} to {c['ratio']['high']:.2f}",
    "least to most": lambda c: f"{c['ratio']['least']:.2f} to {c['ratio']['most']:.2f}",
    "with what is done once": lambda c: f"{c['ratio with what is done once']:.2f}",
    "operations": lambda c: f"{c['ratio of operations']:.2f}",
    "asked for": _verdict,
}
_STEP: dict[str, Callable[[Any], str]] = {
    "one optimizer step": lambda v: v["name"],
    "seconds, median": lambda v: f"{median_high(v['seconds']):.4f}",
    "UNet calls": lambda v: f"{v['calls']:.1f}",
    "of them with gradient": lambda v: f"{v['calls with gradient']:.1f}",
    "samples through the UNet": lambda v: f"{v['samples']:.1f}",
    "GFLOP": lambda v: f"{v['operations'] / 1e9:.1f}",
    "peak memory, MB": lambda v: "not measured" if v["memory"] is None else f"{v['memory'] / 1e6:.0f}",
    "done once, s": lambda v: ", ".join(f"{k} {s:.2f}" for k, s in v["once"].items()) or "nothing",
}

_HEAD = """
# Benchmarks

`python run.py bench` writes this page and `results.json`, one case after the other; what is there already from the same
code is not run again. Within a case all loops live in one process and take turns, block by block, so that a slow minute
of the machine falls on all of them; a ratio is that of two blocks of the same round. Peak memory is that of a separate
process, above what it held once the model was loaded.

- **Released** is the sequence of evaluations of the authors' script (cmubig/SCoFT, `train.py` at 45a181f), written anew
  in `released.py` on the same modules, with the settings of its example: gradient accumulation over four passes of one
  image, a rollout of 20 steps at every tenth pass, guidance 4.5, five negatives per image, rank 64. It builds VGG16 at
  each rollout; the second variant keeps it. VGG16 has random weights here, which changes no time.
- **Ours, exact** is the pack's own `train`. *The released terms* has everything that the released loss has: features in
  ten augmentations, L_C without hinge, the VGG term. *The paper's terms* has L_LDM, L_M and L_C, which
  stands in place of the paper's L_P and is not beside it; a ratio to it also counts leaving out the rest.
- **Ours, fast** has the paper's terms, rollouts of 5 steps, and a TAESD decoder where the model's own is a large one:
  its result differs, not only its speed. Cached features are in exact mode already.
- "Operations" is the ratio of counted floating-point operations. Small models spend more time on each call than on its
  arithmetic, so fewer and larger calls gain more there; expect a large model to be nearer to the ratio of operations.
- What ours computes once (text embeddings, latents of both flips, features) is not in a step's time; "with what is done
  once" adds it, spread over the paper's {steps} steps.
- With a batch of B, ComfyUI's own node puts each image through with each caption of the batch, B² samples, and takes
  the mean (the samples are counted below). With accumulation both see each image once: that is the fair pair.
- The node trains every layer; ours by default trains the attention projections, as the released code. In the second
  ratio ours trains every projection and convolution (the node also trains biases and norms). Loading and preparing
  are left out on both sides.
"""
