"""Train a LoRA inside ComfyUI, save it with its card, read a card, and export a run to be trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...losses import named
from ...training.model_card import CardFields, read_card, save_lora
from ...training.run_folder import LATEST, OFF, run_names
from ...training.settings import TrainSettings
from .. import live_chart, training
from ..compat import comfy, folder_paths, io, ui
from ..lora_files import lora_file, lora_names
from ..runtime import output_folder, training_mode
from ..sockets import DatasetSocket, LoraSocket, LossesSocket, OptimizerSocket, RolloutSocket
from ..widgets import choice, default, number
from .losses import changed

CATEGORY = "SCoFT/4 training"
LoraModel, LossMap = io.Custom("LORA_MODEL"), io.Custom("LOSS_MAP")
STORED = "stored in the job"


def _sockets() -> list[Any]:
    return [
        io.Model.Input("model", tooltip="The base model: Stable Diffusion 1.x, 2.x or XL. It is not changed."),
        io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint. It is not trained."),
        io.Vae.Input("vae", tooltip="The autoencoder of the same checkpoint. It is not trained."),
        DatasetSocket.Input("dataset", tooltip="The images and their words; those of the split “train” are used."),
        LossesSocket.Input("losses", tooltip="The end of a chain of loss nodes."),
    ]


def _settings() -> list[Any]:
    own = TrainSettings
    return [
        number(own, "steps", 1, 1_000_000, 1, "Optimizer steps of the whole run; the paper uses 3000."),
        number(own, "batch_size", 1, 64, 1, "Images a micro-step."),
        number(own, "accumulation", 1, 256, 1, "Micro-steps an optimizer step, their gradients averaged."),
        number(own, "resolution", 64, 2048, 8, "Side of the square that images are cropped to, in pixels."),
        choice(own, "precision", "Arithmetic of the UNet: bf16 needs half the memory, on a graphics card that has it."),
        io.Int.Input(
            "seed",
            default=default(own, "seed"),
            min=0,
            max=2**53 - 1,
            control_after_generate=False,
            tooltip="Decides every random number. On the CPU, the same seed gives the same LoRA.",
        ),
    ]


def _tail() -> list[Any]:
    own = TrainSettings
    flip = "Also train on mirrored images. Switch it off where left and right matter, as in writing or dress."
    buckets = "Crop each image to its own aspect (in steps of 64 pixels) instead of to a square."
    prompt = "What the preview images are of, always from the same noise, so that one sees them move; empty for none."
    return [
        LoraSocket.Input("lora", optional=True, tooltip="From LoRA Options; without it, the paper's."),
        OptimizerSocket.Input("optimizer", optional=True, tooltip="From Optimizer Options; without it, the paper's."),
        RolloutSocket.Input("rollout", optional=True, tooltip="From Rollout Options; without it, the paper's."),
        io.Boolean.Input("flip", default=default(own, "flip"), optional=True, tooltip=flip),
        DatasetSocket.Input(
            "validation",
            optional=True,
            tooltip="Images that are measured and never learned, so that overfitting shows; those of it that are "
            "trained on are left out.",
        ),
        number(own, "validate_every", 0, 1_000_000, 1, "Steps between those measurements; 0 is never.", True),
        number(own, "preview_every", 0, 1_000_000, 1, "Steps between preview images; 0 is never.", True),
        io.String.Input("preview_prompt", default="", optional=True, tooltip=prompt),
        io.Boolean.Input("buckets", default=default(own, "buckets"), optional=True, tooltip=buckets),
        number(
            own, "noise_offset", 0.0, 1.0, 0.01, "Noise that shifts whole channels: learns brightness; 0 is off.", True
        ),
        number(
            own,
            "micro_batch",
            0,
            4096,
            1,
            "Images in one pass, whatever batch_size and accumulation are: fewer need less memory and give the same "
            "LoRA up to rounding. 0 is all at once, and fewer by itself where memory is short.",
            True,
        ),
        choice(own, "checkpointing", "Recompute instead of remember: less memory, about a third slower.", True),
        choice(
            own,
            "decode",
            "How the image of the perceptual and contrastive losses is decoded: full is the paper; crop (its middle) "
            "and TAESD (a small decoder in models/vae_approx) take less memory and change what these losses see.",
            True,
        ),
        number(own, "keep", 1, 1000, 1, "Checkpoints that are kept; older ones are removed.", True),
        choice(own, "tracker", "Also log to TensorBoard, in the run's folder, if it is installed.", True),
    ]


class TrainLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_TrainLora",
            display_name="Train LoRA (SCoFT)",
            category=CATEGORY,
            description="Trains a LoRA with the connected losses. Checkpoints and figures go to output/scoft/runs; "
            "stopping keeps what was learned, and a run is never overwritten.",
            inputs=[
                *_sockets(),
                *_settings(),
                io.String.Input("run_name", default="lora", tooltip="The run's folder; a taken name gets -2, -3, …"),
                io.Combo.Input(
                    "resume",
                    options=[OFF, LATEST, *run_names(_runs())],
                    default=OFF,
                    tooltip="off starts a new run; latest goes on with the newest run of this name; or name a run. Its "
                    "settings must be the same, or it says which differ.",
                ),
                number(TrainSettings, "checkpoint_every", 1, 1_000_000, 1, "Optimizer steps between checkpoints."),
                *_tail(),
            ],
            outputs=[
                LoraModel.Output(display_name="lora", tooltip="The LoRA, for Save LoRA (SCoFT) or stock nodes."),
                io.Model.Output(display_name="model", tooltip="The base model with the LoRA applied at strength 1."),
                LossMap.Output(display_name="loss_map", tooltip="The weighted loss a step, for the stock graph node."),
                io.Image.Output(
                    display_name="chart", tooltip="Each loss, held-out loss, κ, gradient and learning rate."
                ),
                io.Int.Output(display_name="steps", tooltip="Finished optimizer steps."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, dataset: Any, losses: Any, run_name: str, resume: str, **knobs: Any
    ) -> io.NodeOutput:
        name = training.model_name(cls.hidden.prompt, cls.hidden.unique_id)
        with training_mode():
            plan = training.Plan(model, clip, vae, dataset, losses, knobs, name)
            page = cls.hidden.unique_id, live_chart.workflow_id(cls.hidden.extra_pnginfo)
            lora, rows, steps = training.train_in_comfyui(plan, _runs(), run_name, resume, *page)
            chart = training.chart(rows, lora.record["run"])
        patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
        curves = live_chart.of_rows(lora.record["run"], dict(named(losses)), rows, steps)
        seen = {**ui.PreviewImage(chart, cls=cls).as_dict(), live_chart.OUTPUT: [curves]}
        return io.NodeOutput(lora, patched, training.loss_map(rows, losses), chart, steps, ui=seen)


class SaveLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def words(name: str, tooltip: str, multiline: bool = False) -> Any:
            return io.String.Input(name, default="", multiline=multiline, tooltip=tooltip)

        return io.Schema(
            node_id="SCoFT_SaveLora",
            display_name="Save LoRA (SCoFT)",
            category=CATEGORY,
            description="Writes the LoRA to output/loras, where LoRA loaders list it, with a model card beside it that "
            "says whose culture it shows, who agreed, and how it was made.",
            inputs=[
                LoraModel.Input("lora", tooltip="A LoRA from Train LoRA (SCoFT); others say less on their card."),
                io.String.Input("filename_prefix", default="lora", tooltip="Name of the file; a number is added."),
                words("title", "What people call this LoRA."),
                words("trigger_phrase", "Words in a prompt that call up what was learned, such as “in Kora”."),
                words("authors", "Who made it: the people of the community first."),
                words("licence", "Under which license the LoRA may be used, for example CC-BY-NC-4.0."),
                words("consent", "Who agreed, to what, and where the images come from.", multiline=True),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The file that was written.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, lora: Mapping[str, Any], filename_prefix: str, **fields: str) -> io.NodeOutput:
        record = getattr(lora, "record", None)
        path = save_lora(output_folder() / "loras", filename_prefix, lora, CardFields(**fields), record)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"{path.name}\n\n{card}"))


class ReadCard(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_ReadCard",
            display_name="Read LoRA Card (SCoFT)",
            category=CATEGORY,
            description="Says of a LoRA whose culture it shows, who agreed and how it was made, or what is not known.",
            inputs=[io.Combo.Input("lora", options=lora_names(), tooltip="A LoRA file of ComfyUI's lora folders.")],
            outputs=[io.String.Output(display_name="text", tooltip="The model card, in Markdown.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, lora: str) -> Any:
        return changed(lora_file(lora))

    @classmethod
    def execute(cls, lora: str) -> io.NodeOutput:
        text = read_card(lora_file(lora))
        return io.NodeOutput(text, ui=ui.PreviewText(text))


class ExportJob(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [name for name in folder_paths.get_filename_list("checkpoints") if name.endswith(".safetensors")]
        return io.Schema(
            node_id="SCoFT_ExportJob",
            display_name="Export Training Job (SCoFT)",
            category=CATEGORY,
            description="Writes everything Train LoRA takes as a folder under output/scoft/jobs that "
            "`python -m comfy_scoft train` trains outside ComfyUI, on the CPU to the very same LoRA.",
            inputs=[
                *_sockets(),
                *_settings(),
                io.String.Input("job_name", default="lora", tooltip="The job's folder; a taken name gets -2, -3, …"),
                io.Combo.Input(
                    "checkpoint",
                    options=[STORED, *files],
                    default=STORED,
                    tooltip="Store the model's weights in the job, or only name their file (no LoRA applied to it), "
                    "which then must be on the other machine too.",
                ),
                number(TrainSettings, "checkpoint_every", 1, 1_000_000, 1, "Optimizer steps between checkpoints."),
                *_tail(),
            ],
            outputs=[io.String.Output(display_name="job", tooltip="The path of the job's job.json.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, dataset: Any, losses: Any, job_name: str, checkpoint: str, **knobs: Any
    ) -> io.NodeOutput:
        name = training.model_name(cls.hidden.prompt, cls.hidden.unique_id)
        file = None if checkpoint == STORED else Path(folder_paths.get_full_path_or_raise("checkpoints", checkpoint))
        with training_mode():
            plan = training.Plan(model, clip, vae, dataset, losses, knobs, name)
            path = training.export(plan, output_folder() / "scoft" / "jobs", job_name, file)
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))


def _runs() -> Path:
    return output_folder() / "scoft" / "runs"


NODES = [TrainLora, SaveLora, ReadCard, ExportJob]
