"""A new loss is one new file and its entry in the LOSSES dict: nothing else in the pack changes."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from toys import toy_base, toy_dataset

import comfy_scoft

NEW_FILE = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .context import Loss, LossContext


@dataclass(frozen=True)
class BrightnessLoss(Loss):
    """Squared distance of the generated image's mean brightness from `wanted`."""

    name: ClassVar[str] = "brightness"
    uses_rollout: ClassVar[bool] = True
    weight: float = 1.0
    wanted: float = 0.25

    def __call__(self, context: LossContext) -> Tensor:
        return (context.image.float().flatten(1).mean(1) - self.wanted).square()
'''
WITH_CALLS = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .context import Calls, Loss, LossContext, per_sample_mse


@dataclass(frozen=True)
class TwinsLoss(Loss):
    """Two captions of the same image should be answered alike."""

    name: ClassVar[str] = "twins"
    weight: float = 1.0

    @property
    def calls(self) -> Calls:
        return Calls(own=2)

    def captions(self, record) -> tuple[str, ...]:
        return f"one {record.caption}", f"another {record.caption}"

    def __call__(self, context: LossContext) -> Tensor:
        pairs = zip(*(self.captions(record) for record in context.records), strict=True)
        one, other = (context.predict(captions) for captions in pairs)
        return per_sample_mse(one, other)
'''
IMPORT, ENTRY = "from .brightness import BrightnessLoss\n", '    "brightness": BrightnessLoss,\n'
IMPORT_TWINS, ENTRY_TWINS = "from .twins import TwinsLoss\n", '    "twins": TwinsLoss,\n'


@pytest.fixture
def pack(tmp_path: Path) -> Iterator[Path]:
    """A copy of the pack's core with the new file and its entry, importable as `pack_with_a_new_loss`."""
    copy = tmp_path / "pack_with_a_new_loss"
    source = Path(comfy_scoft.__file__).parent
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "assets", "community", "comfyui"))
    (copy / "losses" / "brightness.py").write_text(NEW_FILE)
    (copy / "losses" / "twins.py").write_text(WITH_CALLS)
    table = copy / "losses" / "__init__.py"
    text = table.read_text(encoding="utf-8")
    head, tail = text.split("from .context", 1)
    start = "LOSSES: dict[str, type[Loss]] = {\n"
    assert tail.count(start) == 1
    tail = tail.replace(start, start + ENTRY + ENTRY_TWINS)
    table.write_text(head + IMPORT + IMPORT_TWINS + "from .context" + tail, encoding="utf-8")
    sys.path.append(str(tmp_path))
    yield copy
    sys.path.remove(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == copy.name]:
        del sys.modules[name]


def part(pack: Path, name: str) -> ModuleType:
    return importlib.import_module(f"{pack.name}.{name}")


def test_a_new_loss_trains_through_the_public_loop(pack: Path, tmp_path: Path) -> None:
    losses, trainer, settings = part(pack, "losses"), part(pack, "training.trainer"), part(pack, "training.settings")
    assert Path(trainer.__file__).is_relative_to(pack) and "brightness" in losses.LOSSES
    made = losses.LOSSES["brightness"](wanted=0.5)
    run = part(pack, "training.run").Run(
        base=toy_base(),
        dataset=toy_dataset(tmp_path / "data"),
        losses=[losses.LOSSES["diffusion"](), made],
        folder=tmp_path / "run",
        settings=settings.TrainSettings(steps=2, accumulation=1, resolution=64),
        lora=part(pack, "models.lora").LoraSettings(rank=2, alpha=2.0),
        rollout=part(pack, "losses.rollout").RolloutSettings(every=1, steps=2),
    )
    result = trainer.train(run)
    assert all(row["brightness"] > 0 and row["diffusion"] > 0 for row in result.metrics) and result.steps == 2
    described = part(pack, "training.checkpoint").newest(run.folder).settings["losses"]
    assert described[1] == {"name": "brightness", "weight": 1.0, "wanted": 0.5}
    ups = [v for k, v in result.lora.items() if k.endswith("lora_up.weight")]
    assert ups and any(v.any() for v in ups)


def test_the_predictions_of_a_new_loss_are_planned_made_and_paid_for_in_memory(pack: Path, tmp_path: Path) -> None:
    losses, settings = part(pack, "losses"), part(pack, "training.settings")
    run_of, memory = part(pack, "training.run"), part(pack, "training.memory_estimate")
    options = part(pack, "training.memory").MemoryOptions()
    needs = {}
    for name, chosen in {"alone": ["diffusion"], "with": ["diffusion", "twins"]}.items():
        run = run_of.Run(
            base=toy_base(),
            dataset=toy_dataset(tmp_path / "data"),
            losses=[losses.LOSSES[one]() for one in chosen],
            folder=tmp_path / name,
            settings=settings.TrainSettings(steps=3, accumulation=2, batch_size=2, micro_batch=3, resolution=64),
            lora=part(pack, "models.lora").LoraSettings(rank=2, alpha=2.0),
        )
        needs[name] = memory.need(run, options).unet
        told: list[int] = []
        part(pack, "training.trainer").train(run, run_of.Callbacks(on_plan=told.append))
        assert told == [run.base.calls] == [3 * 2 * (1 if name == "alone" else 3)]
    assert needs["with"] == pytest.approx(3 * needs["alone"])
    counts = part(pack, "training.step_plan").expected_counts(run.losses, run.settings, run.rollout, 1000)
    assert (counts.frozen, counts.trained) == (0, 3 * 2 * 2 * 3)


def test_every_loss_of_the_table_answers_to_the_protocol() -> None:
    from comfy_scoft.losses import LOSSES, Loss, from_json

    for name, kind in LOSSES.items():
        fields = kind.__dataclass_fields__
        made = kind(**({"features": None} if "features" in fields else {}))
        assert isinstance(made, Loss) and made.name == name and isinstance(made.uses_rollout, bool)
        assert any(dataclasses.astuple(made.calls)) or made.uses_rollout, "a loss without a prediction teaches nothing"
        assert made.as_json()["name"] == name and from_json(LOSSES, made.as_json(), lambda network: network) == made
        with pytest.raises(AttributeError):  # frozen: a loss on a node's socket is shared
            made.weight = 1.0
