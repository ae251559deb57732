"""The settings of rollout, LoRA and optimizer, each a node of its own that Train LoRA takes."""

from __future__ import annotations

from typing import Any

from ...common.settings import declaration
from ...losses.rollout import RolloutSettings
from ...models.lora import LoraSettings
from ...training.settings import OptimizerSettings
from ..compat import io
from ..listed_files import NONE, lora_file, lora_names
from ..sockets import LoraSocket, OptimizerSocket, RolloutSocket
from ..widgets import Node, widget, widgets


def _options(name: str, display: str, description: str, inputs: list[Any], socket: Any) -> io.Schema:
    return io.Schema(
        node_id=f"SCoFT_{name}",
        display_name=f"{display} (SCoFT)",
        category="SCoFT/4 training",
        description=description,
        inputs=inputs,
        outputs=[socket.Output(display_name="options", tooltip="Options for Train LoRA (SCoFT).")],
    )


class RolloutOptions(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _options(
            "RolloutOptions",
            "Rollout Options",
            "How images are generated during training for the perceptual and self-contrastive losses.",
            [
                *widgets(RolloutSettings, "every", "steps", "guidance", "gradient_step", "kappa", "grid"),
                widget(RolloutSettings, "solver", optional=True),
            ],
            RolloutSocket,
        )

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(RolloutSettings(**settings))


class LoraOptions(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = LoraSettings
        return _options(
            "LoraOptions",
            "LoRA Options",
            "Rank, alpha and target layers of the LoRA.",
            [
                *widgets(own, "rank", "alpha", "targets", "dropout"),
                widget(own, "dora", optional=True),
                io.Combo.Input(
                    "start_from",
                    options=[NONE, *lora_names()],
                    default=NONE,
                    optional=True,
                    tooltip=declaration(own, "start_from")[1].help,
                ),
            ],
            LoraSocket,
        )

    @classmethod
    def execute(cls, start_from: str = NONE, **settings: Any) -> io.NodeOutput:
        start = "" if start_from == NONE else str(lora_file(start_from) and start_from)
        return io.NodeOutput(LoraSettings(start_from=start, **settings))


class OptimizerOptions(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = OptimizerSettings
        return _options(
            "OptimizerOptions",
            "Optimizer Options",
            "Optimizer, learning rate and schedule.",
            [
                *widgets(own, "optimizer", "learning_rate", "schedule", "warmup", "clip", "weight_decay"),
                widget(own, "ema", optional=True),
            ],
            OptimizerSocket,
        )

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(OptimizerSettings(**settings))
