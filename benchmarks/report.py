"""results.json and RESULTS.md: written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from comfy_scoft.common.fingerprints import versions
from comfy_scoft.training.checkpoint import write_atomically

from .cases import PAPER_STEPS

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = "results.json", "RESULTS.md"


def code_digest() -> str:
    """16 hex digits of the modules that are measured and of those that measure: results of others are old."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.split(".")[0] in ("comfy_scoft", "benchmarks") and path:
            digest.update(name.encode() + Path(path).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def machine() -> dict[str, Any]:
    """The machine by what it can do, not by its name."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    import os

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def load(folder: Path) -> dict[str, Any]:
    """What is known already; {} where there is nothing that can be read."""
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
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
        lines += [
            "**None of this was run on a GPU.** The code for one is there and was run at a tiny size on the CPU.",
            "",
        ]
    for case in cases.values():
        lines += _case(case)
    for case in results.values():
        if "operations" in case:
            lines += _operations(case["operations"])
    return "\n".join(lines).rstrip() + "\n"


def _case(case: dict[str, Any]) -> list[str]:
    host, found = case["machine"], case["variants"]
    runs_on = host.get("GPU", f"CPU ({host['processor']}, {host['threads']} threads)")
    packages = ", ".join(
        f"{k} {v}" for k, v in host["versions"].items() if k in ("python", "torch", "diffusers", "peft")
    )
    lines = [f"## {case['title']}", "", f"`{case['command']}`", ""]
    lines += [
        f"Model: {case['world']}. {case['precision']}, {case['pictures']} images, {case['rounds']} rounds of "
        f"{case['steps in a block']} optimizer steps. {runs_on}; {packages}.",
        "",
    ]
    lines += _table(
        (
            "ratio of times",
            "median",
            "95 % interval",
            "least to most",
            "with what is done once",
            "operations",
            "asked for",
        ),
        [
            (
                f"{c['slow']} / {c['fast']}",
                f"**{c['ratio']['median']:.2f}**",
                f"{c['ratio']['low']:.2f} to {c['ratio']['high']:.2f}",
                f"{c['ratio']['least']:.2f} to {c['ratio']['most']:.2f}",
                f"{c['ratio with what is done once']:.2f}",
                f"{c['ratio of operations']:.2f}",
                _verdict(c),
            )
            for c in case["comparisons"]
        ],
    )
    memory = case.get("peak memory", {})
    lines += _table(
        (
            "one optimizer step",
            "seconds, median",
            "UNet calls",
            "of them with gradient",
            "samples through the UNet",
            "GFLOP",
            "peak memory, MB",
            "done once, s",
        ),
        [
            (
                name,
                f"{_median(v['seconds']):.4f}",
                f"{v['calls']:.1f}",
                f"{v['calls with gradient']:.1f}",
                f"{v['samples']:.1f}",
                f"{v['operations'] / 1e9:.1f}",
                f"{memory[name] / 1e6:.0f}" if name in memory else "not measured",
                ", ".join(f"{k} {s:.2f}" for k, s in v["once"].items()) or "nothing",
            )
            for name, v in found.items()
        ],
    )
    parts = list(dict.fromkeys(part for v in found.values() for part in v["parts"]))
    lines += [
        "Milliseconds of an optimizer step by part (measured apart from the times above, and a little slower):",
        "",
    ]
    lines += _table(
        ("part", *found),
        [
            (part, *(f"{1000 * v['parts'][part]:.1f}" if part in v["parts"] else "" for v in found.values()))
            for part in parts
        ],
    )
    return lines


def _operations(found: dict[str, dict[str, float]]) -> list[str]:
    parts = list(dict.fromkeys(part for loop in found.values() for part in loop))
    rows = [(part, *(f"{loop[part] / 1e12:.2f}" if part in loop else "" for loop in found.values())) for part in parts]
    sums = [sum(loop.values()) for loop in found.values()]
    rows += [("sum", *(f"**{total / 1e12:.1f}**" for total in sums))]
    rows += [("released / this", *(f"{sums[0] / total:.2f}" for total in sums))]
    head = "Operations at full size: Stable Diffusion 1.5, 512 px, CLIP RN50, TFLOP of an optimizer step"
    return [f"## {head}", "", "`python run.py bench --case operations`", "", *_table(("part", *found), rows)]


def _verdict(compared: dict[str, Any]) -> str:
    target = compared["target"]
    if target is None:
        return ""
    return f"{target:.1f}: " + ("reached" if compared["ratio"]["median"] >= target else "**missed**")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]


_HEAD = """
# Benchmarks

`python run.py bench` writes this page and `results.json`, one case after the other; what is there already, from the
same code, is not run again. Within a case all loops live in one process and take turns, block by block, so that a slow
minute of the machine falls on all of them; a ratio is that of two blocks of the same round. Peak memory is that of a
process of its own, above what it held once the model was loaded.

- **Released** is the sequence of evaluations of the authors' script (cmubig/SCoFT, `train.py` at 45a181f), written anew
  in `released.py` on the same modules, with the paper's settings: four micro-steps of one image an optimizer step, a
  rollout of 20 steps at each tenth, guidance 4.5, five negatives an image, rank 64. It builds VGG16 at each rollout;
  the second variant keeps it. VGG16 has random weights here, which changes no time.
- **Ours, exact** is the pack's own `train`. *The released terms* has everything the released loss has: features in
  ten augmentations, L_C without hinge, the VGG term. *The paper's terms* has L_LDM, L_M and L_C alone; a ratio to it
  counts leaving out the rest as well.
- **Ours, fast** has the paper's terms, rollouts of 5 steps, and a TAESD decoder where the model's own is a large one:
  another result, not only another speed. Cached features are in exact mode already.
- "Operations" is the ratio of counted floating-point operations. Small models spend more on each call than on its
  arithmetic, so that fewer and larger calls gain more than there; expect a large model to be nearer to it.
- What ours computes once (text embeddings, latents of both flips, features) is no part of a step's time; "with what is
  done once" adds it, spread over the paper's {steps} steps.
- With a batch of B, ComfyUI's own node puts each image through with each caption of the batch, B² samples, and takes
  the mean (the samples are counted below). With accumulation both sides see each image once: that is the fair pair.
- The node trains every layer, ours by default the attention projections as in the paper, so the second ratio
  is there too, in which ours trains every projection and convolution (the node also trains biases and norms). Loading
  and preparing are left out on both sides.
"""
