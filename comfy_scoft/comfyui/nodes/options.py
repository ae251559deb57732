"""The settings of rollout, LoRA and optimizer, each a node of its own that Train LoRA takes."""

from __future__ import annotations

from typing import Any

from ...losses.rollout import RolloutSettings
from ...models.lora import LoraSettings
from ...training.settings import OptimizerSettings
from ..compat import io
from ..lora_files import NONE, lora_file, lora_names
from ..sockets import LoraSocket, OptimizerSocket, RolloutSocket
from ..widgets import choice, default, number


def _options(name: str, display: str, description: str, inputs: list[Any], socket: Any) -> io.Schema:
    return io.Schema(
        node_id=f"SCoFT_{name}",
        display_name=f"{display} (SCoFT)",
        category="SCoFT/4 training",
        description=description,
        inputs=inputs,
        outputs=[socket.Output(display_name="options", tooltip="Connect it to Train LoRA (SCoFT).")],
    )


class RolloutOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = RolloutSettings
        return _options(
            "RolloutOptions",
            "Rollout Options",
            "How the image is made that the perceptual and the self-contrastive loss look at, during training.",
            [
                number(own, "every", 1, 1000, 1, "An image is made at each n-th micro-step of the whole run."),
                number(own, "steps", 1, 200, 1, "Sampling steps for it; each is one call of the UNet."),
                number(own, "guidance", 0.0, 30.0, 0.1, "Classifier-free guidance scale, the cfg of a sampler."),
                choice(own, "gradient_step", "Which sampling step learns. The paper found the first to be best."),
                choice(
                    own,
                    "kappa",
                    "plain is the exact gradient, far stronger at noisy timesteps; normalized gives "
                    "every timestep the same weight.",
                ),
                choice(own, "grid", "even spaces the sampling steps evenly; released repeats the authors' code."),
            ],
            RolloutSocket,
        )

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(RolloutSettings(**settings))


class LoraOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = LoraSettings
        return _options(
            "LoraOptions",
            "LoRA Options",
            "Size and place of the LoRA that is trained.",
            [
                number(own, "rank", 1, 1024, 1, "Size of the LoRA. The paper uses 64; 4 to 32 make smaller files."),
                number(own, "alpha", 0.01, 4096.0, 1.0, "The LoRA is scaled by alpha / rank: the paper's are equal."),
                choice(
                    own,
                    "targets",
                    "Which layers of the UNet it is attached to. attention is the paper's choice; cross-attention K + "
                    "V changes only how the prompt is read.",
                ),
                number(own, "dropout", 0.0, 0.95, 0.05, "Share of the LoRA's inputs switched off at random."),
                io.Boolean.Input(
                    "dora",
                    default=default(own, "dora"),
                    optional=True,
                    tooltip="Also train each channel's magnitude (DoRA): learns more like full fine-tuning, costs time "
                    "and memory, and fewer programs read the file.",
                ),
                io.Combo.Input(
                    "start_from",
                    options=[NONE, *lora_names()],
                    default=NONE,
                    optional=True,
                    tooltip="A LoRA of the same kind of base model that training goes on from, not from nothing.",
                ),
            ],
            LoraSocket,
        )

    @classmethod
    def execute(cls, start_from: str = NONE, **settings: Any) -> io.NodeOutput:
        start = "" if start_from == NONE else str(lora_file(start_from) and start_from)
        return io.NodeOutput(LoraSettings(start_from=start, **settings))


class OptimizerOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = OptimizerSettings
        return _options(
            "OptimizerOptions",
            "Optimizer Options",
            "How fast and in what rhythm training goes.",
            [
                choice(
                    own,
                    "optimizer",
                    "AdamW is the paper's. AdamW8bit (needs bitsandbytes) and Adafactor need less memory; Prodigy "
                    "(needs prodigyopt) finds the learning rate itself: set it to 1.",
                ),
                number(own, "learning_rate", 1e-8, 1.0, 1e-5, "The peak learning rate; 0.0001 is the paper's."),
                choice(own, "schedule", "How the learning rate falls over the run's steps: cosine is the paper's."),
                number(own, "warmup", 0, 100_000, 1, "Steps over which the learning rate rises at the start."),
                number(own, "clip", 0.0, 1000.0, 0.1, "Largest norm of the gradient; 0 is no limit."),
                number(own, "weight_decay", 0.0, 1.0, 0.001, "How strongly the LoRA's weights are drawn towards 0."),
                number(
                    own, "ema", 0.0, 0.99999, 0.001, "Decay of a moving average that is saved instead; 0 is off.", True
                ),
            ],
            OptimizerSocket,
        )

    @classmethod
    def execute(cls, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(OptimizerSettings(**settings))


NODES = [RolloutOptions, LoraOptions, OptimizerOptions]
