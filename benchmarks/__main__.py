"""`python -m benchmarks`: every case and every variant's peak memory, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from comfy_scoft.common.console import printable_streams
from comfy_scoft.common.files import write_atomically

from . import cases, full_shape, report
from .worlds import WORLDS

OPERATIONS = "operations"
"""The case without a measurement: operations counted at full size."""


def main(arguments: Sequence[str] | None = None) -> int:
    printable_streams()
    options = _parse(arguments)
    if options.write is not None:
        write_atomically(options.write, json.dumps(_work(options)).encode())
        return 0
    world = options.world or ("sd15" if torch.cuda.is_available() else "mini")
    results, code = report.load(options.out), report.code_digest()
    for key in options.case or (*cases.CASES, OPERATIONS):
        if key == OPERATIONS:
            results[OPERATIONS] = {"operations": full_shape.operations()}
            report.store(options.out, results)
            continue
        name = f"{world} {key}"
        asked = {"code": code, "rounds": options.rounds, "short": options.short, "threads": options.threads}
        if not options.fresh and results.get(name, {}).get("asked") == asked:
            print(f"{name}: known already", flush=True)
            continue
        results[name] = {**_case(options, key, world), "asked": asked}
        report.store(options.out, results)
    print((options.out / report.PAGE).read_text(encoding="utf-8"))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--case",
        action="append",
        choices=[*cases.CASES, OPERATIONS],
        help="only this case, may be repeated (default: all)",
    )
    parser.add_argument("--world", choices=WORLDS, help="default: sd15 where there is a GPU, else mini")
    parser.add_argument("--rounds", type=int, help="blocks of each variant that are timed (default: 12, short: 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of PyTorch (default: one a core)")
    parser.add_argument("--short", action="store_true", help="few rounds and images, no memory: to see that it runs")
    parser.add_argument("--fresh", action="store_true", help="run again what is known already")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)  # the rest is for child processes
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (2 if options.short else 12)
    return options


def _work(options: argparse.Namespace) -> Any:
    """What a child process does: one case, or the peak memory of one variant."""
    (key,), images = options.case, 8 if options.short else 0
    if options.memory:
        return cases.peak_memory(key, options.world, options.memory, images)
    return {**cases.measure(key, options.world, options.rounds, images), "machine": report.machine()}


def _case(options: argparse.Namespace, key: str, world: str) -> dict[str, Any]:
    start = time.monotonic()
    arguments = ["--case", key, "--world", world, "--rounds", str(options.rounds), "--threads", str(options.threads)]
    arguments += ["--short"] if options.short else []
    print(f"{world} {key} ...", end=" ", flush=True)
    case = _child(arguments)
    if not options.short:
        case["peak memory"] = {name: _child([*arguments, "--memory", name]) for name in case["variants"]}
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    return {**case, "command": " ".join(["python run.py bench", *arguments])}


def _child(arguments: Sequence[str]) -> Any:
    """The answer of this program in a new process, where nothing else has used memory or threads."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks", *arguments, "--write", str(answer)]
        # Waiting threads sleep: one that spins would slow whatever else the machine does.
        quiet = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        quiet["OMP_NUM_THREADS"] = arguments[arguments.index("--threads") + 1]
        done = subprocess.run(
            command,
            cwd=report.ROOT,
            env=quiet,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            raise SystemExit(f"failed:\n{done.stdout}\n{done.stderr}")
        return json.loads(answer.read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
