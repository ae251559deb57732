"""The training of an arm with the pack's own trainer: its losses from plain JSON, its LoRA and facts as two files."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialize

from ...common import fingerprints
from ...common.files import write_atomically
from ...features import FeatureNetwork
from ...losses import LOSSES, Loss
from ...training.run import Callbacks, Run
from ...training.trainer import train

LossSpec = tuple[str, dict[str, Any]]
"""A loss's name on the menu and its settings; `features` is the name of a feature network."""
LORA, FACTS = "lora.safetensors", "facts.json"


def needs(losses: Sequence[LossSpec], what: str, menu: Mapping[str, type[Loss]] = LOSSES) -> bool:
    """Whether a loss has the class attribute `what`: uses_rollout, needs_generic or needs_negatives."""
    return any(getattr(menu[name], what) for name, _ in losses)


def build_losses(
    losses: Sequence[LossSpec],
    features: Callable[[str], FeatureNetwork | None],
    menu: Mapping[str, type[Loss]] = LOSSES,
) -> list[Loss]:
    """The losses themselves. features: the network of a name."""
    loaded = [{key: features(v) if key == "features" else v for key, v in options.items()} for _, options in losses]
    return [menu[name](**options) for (name, _), options in zip(losses, loaded, strict=True)]


def is_trained(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (LORA, FACTS))


def train_lora(run: Run, folder: Path, settings: Mapping[str, Any], callbacks: Callbacks) -> None:
    """Train and write the LoRA in kohya's form, then what the training took; the run's own folder is removed."""
    cpu, clock = time.process_time(), time.monotonic()
    result = train(run, callbacks)
    facts = {
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.monotonic() - clock, 2),
        "unet_calls": run.base.calls,
        "last": result.metrics[-1] if result.metrics else {},  # a run that was stopped after its last step has none
        "settings": dict(settings),
        "versions": fingerprints.versions(),
    }
    write_atomically(folder / LORA, serialize(result.lora))
    write_atomically(folder / FACTS, (json.dumps(facts, indent=1) + "\n").encode())
    shutil.rmtree(run.folder, ignore_errors=True)
