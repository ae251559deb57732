"""Kill a real training process at random moments, go on, and compare the LoRA with an uninterrupted run's, bit for bit.

    python tests/recorded/chaos.py --kills 1000          # adds to records/chaos.json; stop and repeat at will

One warm process forks a child for every attempt, so that a kill costs about a second. A child trains the toy model of
the tests with the real trainer and goes on with what it finds on disk. It is ended in one of four ways: SIGKILL after a
random time; SIGKILL at a random file operation (write, flush, rename, delete); SIGINT after a random time, which raises
KeyboardInterrupt at any instruction; and an error raised before a random UNet call. After each, every file that the run
shows is read. When a run's share of kills is used up it is let finish, and its files are compared with the reference's.
POSIX only: it needs fork.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path += [str(TESTS), str(TESTS.parent)]

from toys import toy_base, toy_dataset, toy_features, toy_run  # noqa: E402

from comfy_scoft.common.files import write_atomically  # noqa: E402
from comfy_scoft.common.fingerprints import versions  # noqa: E402
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss  # noqa: E402
from comfy_scoft.training import checkpoint  # noqa: E402
from comfy_scoft.training import run_folder as runs  # noqa: E402
from comfy_scoft.training.run import Callbacks, Run  # noqa: E402

RECORD = TESTS / "recorded" / "records" / "chaos.json"
WAYS = ("SIGKILL at a time", "SIGKILL at a file operation", "SIGINT at a time", "error before a UNet call")
KILLS_A_RUN = 8
PATIENCE = 300.0
"""Seconds after which an attempt that should finish counts as hanging."""

LOSS_SETS: dict[str, Callable[[Any], list[Any]]] = {
    "LDM": lambda network: [DiffusionLoss()],
    "LDM+M": lambda network: [DiffusionLoss(), MemorizationLoss()],
    "LDM+MP": lambda network: [DiffusionLoss(), MemorizationLoss(), PerceptualLoss(network, weight=0.5)],
    "LDM+MPC": lambda network: [DiffusionLoss(), MemorizationLoss(), ContrastiveLoss(network, weight=0.5)],
    "C alone": lambda network: [ContrastiveLoss(network, weight=0.5)],
}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"ema": 0.9, "gradient_step": "random", "preview_every": 1, "preview_prompt": "a toy", "validate_every": 1},
    {"optimizer": "Prodigy", "learning_rate": 1.0, "dropout": 0.3},
    {"optimizer": "Adafactor", "micro_batch": 1, "noise_offset": 0.05},
    {"optimizer": "AdamW8bit", "precision": "bf16", "checkpointing": "UNet and decoder"},
    {"dora": True, "schedule": "constant", "reference": "base"},
)


@dataclass
class Trial:
    """A kind of run, and what has been counted of it. `attempts` by way; `faults` are texts for people."""

    losses: str
    batch_size: int
    accumulation: int
    options: dict[str, Any]
    seed: int
    runs: int = 0
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))
    resumed_at: dict[str, int] = field(default_factory=dict)
    different: int = 0
    unreadable: int = 0
    faults: list[str] = field(default_factory=list)


def trials(seed: int = 0) -> list[Trial]:
    """Each loss set with batch 1 to 4 and accumulation 1 and 4; the options take turns."""
    shapes = [
        (losses, batch, accumulation) for losses in LOSS_SETS for batch in (1, 2, 3, 4) for accumulation in (1, 4)
    ]
    return [Trial(*shape, dict(OPTIONS[i % len(OPTIONS)]), seed + i) for i, shape in enumerate(shapes)]


class Chaos:
    """Runs trials below `work`. The models are loaded once, here; children are forked with them."""

    def __init__(self, work: Path) -> None:
        torch.set_num_threads(1)  # a fork keeps one thread
        self.work, self.base, self.network = work, toy_base(), toy_features()
        self.dataset = toy_dataset(work / "data")

    def run(self, trial: Trial, folder: Path, resume: bool) -> Run:
        losses = LOSS_SETS[trial.losses](self.network)
        options = dict(trial.options)
        if options.pop("reference", "") == "base":
            losses = [MemorizationLoss(reference="base") if loss.name == "memorization" else loss for loss in losses]
        shape = {"batch_size": trial.batch_size, "accumulation": trial.accumulation, "seed": trial.seed}
        shape |= {"steps": 4, "checkpoint_every": 1 + trial.seed % 3, "every": 2, "rollout_steps": 2}
        more = {"dataset": self.dataset, "base": self.base, "run_folder": folder, "resume": resume}
        more |= {"validation": self.dataset} if "validate_every" in options else {}
        return toy_run(self.work, losses, **{**shape, **more, **options})

    def attempt(self, trial: Trial, folder: Path, before: Callable[[], Callbacks]) -> int:
        """Fork a child that trains the run; returns its process id."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            log = os.open(folder.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1), os.dup2(log, 2)
            watch = before()
            runs.train_and_log(self.run(trial, folder, resume=True), watch)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def reference(self, trial: Trial, folder: Path) -> float:
        """Train without interruption; returns the seconds that a child took."""
        started = time.monotonic()
        code = waited(self.attempt(trial, folder, Callbacks))
        if code != 0:
            raise RuntimeError(f"The uninterrupted run failed:\n{folder.with_suffix('.log').read_text()}")
        return time.monotonic() - started

    def torment(self, trial: Trial, kills: int, rng: random.Random) -> None:
        """One run of the trial, stopped `kills` times (or until it finishes), let finish, and compared."""
        whole, parts = self.work / "whole", self.work / "parts"
        for folder in (whole, parts):
            shutil.rmtree(folder, ignore_errors=True)
        seconds = self.reference(trial, whole)
        for _ in range(kills):
            way = rng.choice(WAYS)
            if self.stopped(trial, parts, way, rng, seconds):
                trial.kills[way] += 1
                step = str(checkpoint.newest_step(parts))
                trial.resumed_at[step] = trial.resumed_at.get(step, 0) + 1
                self.look(trial, parts, way)
            else:
                break  # it finished first
        if waited(self.attempt(trial, parts, Callbacks)) != 0:
            trial.different += 1
            trial.faults.append(f"did not go on: {tail(parts.with_suffix('.log'))}")
        elif found := difference(whole, parts):
            trial.different += 1
            trial.faults.append(found)
        trial.runs += 1

    def stopped(self, trial: Trial, folder: Path, way: str, rng: random.Random, seconds: float) -> bool:
        """Start the run and end it in one way; False where it finished before that."""
        number = rng.randrange(1, 40)
        before = {WAYS[1]: lambda: die_at_file_operation(number), WAYS[3]: lambda: fail_at_call(number // 2 + 1)}
        child = self.attempt(trial, folder, before.get(way, Callbacks))
        if way in (WAYS[0], WAYS[2]):
            time.sleep(rng.random() * seconds)
            number_of = signal.SIGKILL if way == WAYS[0] else signal.SIGINT
            os.kill(child, number_of)
        code = waited(child)
        if code not in (0, 1, -signal.SIGKILL):
            trial.faults.append(f"{way} ended with {code}: {tail(folder.with_suffix('.log'))}")
        return code != 0

    def look(self, trial: Trial, folder: Path, way: str) -> None:
        """Read every file that the run shows; names that begin with a dot are work in progress."""
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            if any(part.startswith(".") or part.endswith(".part") for part in path.relative_to(folder).parts):
                continue
            try:
                if path.suffix == ".safetensors":
                    load_file(path)
                elif path.suffix == ".json":
                    json.loads(path.read_text(encoding="utf-8"))
                elif path.name == runs.METRICS:
                    [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            except Exception as error:  # anything that a reader would meet
                trial.unreadable += 1
                trial.faults.append(f"after {way}: {path.relative_to(folder)}: {error}")


def die_at_file_operation(number: int) -> Callbacks:
    """SIGKILL this process just before or after its number-th file operation; called in the child."""
    seen = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.replace, os.fsync, os.unlink, os.rmdir = (dying(f) for f in (os.replace, os.fsync, os.unlink, os.rmdir))
    shutil.rmtree = dying(shutil.rmtree)  # type: ignore[assignment]
    checkpoint.save_file = dying(checkpoint.save_file)  # type: ignore[attr-defined]
    return Callbacks()


def fail_at_call(number: int) -> Callbacks:
    """Raise an error before the number-th UNet call of this attempt."""
    seen = [0]

    def check() -> None:
        seen[0] += 1
        if seen[0] == number:
            raise RuntimeError("a fault of the machine")

    return Callbacks(check_interrupt=check)


def difference(whole: Path, parts: Path) -> str:
    """What differs between the results of two runs: LoRA file, last checkpoint and metrics; "" for nothing."""
    found = []
    for name in (f"{checkpoint.newest(whole).folder.name}/*.safetensors", "*.safetensors"):
        mine, theirs = sorted(whole.glob(name)), sorted(parts.glob(name))
        if len(mine) != len(theirs) or not mine:
            found.append(f"{name}: {len(mine)} and {len(theirs)} files")
        for one, other in zip(mine, theirs, strict=False):
            a, b = load_file(one), load_file(other)
            if a.keys() != b.keys() or any(not torch.equal(a[k], b[k]) for k in a):
                found.append(f"{one.name} differs")
    if runs.read_metrics(whole) != runs.read_metrics(parts):
        found.append("metrics.jsonl differs")
    return "; ".join(found)


def waited(child: int) -> int:
    """The child's exit status, negative for a signal; one that hangs is killed, and counts as 99."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 99


def tail(path: Path, lines: int = 3) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "no log"


def totals(found: Sequence[Trial]) -> dict[str, Any]:
    """Sums over trials, as the record's head."""
    ways = {way: sum(t.kills[way] for t in found) for way in WAYS}
    steps: dict[str, int] = {}
    for trial in found:
        for step, count in trial.resumed_at.items():
            steps[step] = steps.get(step, 0) + count
    return {
        "kills": sum(ways.values()),
        "by way": ways,
        "newest whole checkpoint after a kill (step: times; -1 is none)": dict(sorted(steps.items())),
        "runs compared": sum(t.runs for t in found),
        "differences": sum(t.different for t in found),
        "unreadable files": sum(t.unreadable for t in found),
        "faults": [fault for t in found for fault in t.faults][:20],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="kills in all, those of the record included")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--fresh", action="store_true", help="forget the record and begin anew")
    options = parser.parse_args(arguments)
    found = trials()
    if options.record.is_file() and not options.fresh:
        known = json.loads(options.record.read_text(encoding="utf-8"))
        found = [Trial(**entry) for entry in known["trials"]]
    with tempfile.TemporaryDirectory(prefix="chaos-") as work:
        chaos = Chaos(Path(work))
        while totals(found)["kills"] < options.kills:
            trial = min(found, key=lambda t: sum(t.kills.values()))
            chaos.torment(trial, KILLS_A_RUN, random.Random(f"{trial.seed} {trial.runs}"))  # noqa: S311 - no secret
            record = {
                "command": "python tests/recorded/chaos.py --kills " + str(options.kills),
                "date": time.strftime("%Y-%m-%d"),
                **totals(found),
                "versions": versions(),
                "trials": [asdict(t) for t in found],
            }
            write_atomically(options.record, json.dumps(record, indent=1).encode())
            sums = totals(found)
            print(
                f"{sums['kills']} kills, {sums['differences']} differences, {sums['unreadable files']} unreadable",
                flush=True,
            )
    sums = totals(found)
    return int(bool(sums["differences"] or sums["unreadable files"] or sums["faults"]))


if __name__ == "__main__":
    sys.exit(main())
