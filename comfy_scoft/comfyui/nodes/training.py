"""Train a LoRA inside ComfyUI, save it with its card, read a card, and export a run to be trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...losses import named
from ...reports.plots import loss_chart
from ...training.model_card import CardFields, read_card, save_lora
from ...training.run_folder import LATEST, OFF, run_names
from ...training.settings import TrainSettings
from .. import live_chart, training
from ..compat import comfy, folder_paths, io, ui
from ..listed_files import changed, lora_file, lora_names
from ..runtime import output_folder, training_mode
from ..sockets import DatasetSocket, LoraSocket, LossesSocket, OptimizerSocket, RolloutSocket
from ..widgets import Node, widget, widgets

CATEGORY = "SCoFT/4 training"
LoraModel, LossMap = io.Custom("LORA_MODEL"), io.Custom("LOSS_MAP")
STORED = "stored in the job"


def _inputs(*own: Any) -> list[Any]:
    """The inputs of the nodes that take a whole run; own: those of the node itself."""
    settings = TrainSettings
    return [
        io.Model.Input("model", tooltip="The base model: Stable Diffusion 1.x, 2.x or XL. It is not changed."),
        io.Clip.Input("clip", tooltip="The checkpoint's text encoder. It is not trained."),
        io.Vae.Input("vae", tooltip="The checkpoint's VAE. It is not trained."),
        DatasetSocket.Input("dataset", tooltip="The dataset. Only its split 'train' is trained on."),
        LossesSocket.Input("losses", tooltip="The losses, from the last node of a chain of loss nodes."),
        *widgets(settings, "steps", "batch_size", "accumulation", "resolution", "precision", "seed"),
        *own,
        widget(settings, "checkpoint_every"),
        LoraSocket.Input("lora", optional=True, tooltip="From LoRA Options. Default: the paper's settings."),
        OptimizerSocket.Input("optimizer", optional=True, tooltip="From Optimizer Options. Default: the paper's."),
        RolloutSocket.Input("rollout", optional=True, tooltip="From Rollout Options. Default: the released code's."),
        widget(settings, "flip", optional=True),
        DatasetSocket.Input(
            "validation",
            optional=True,
            tooltip="Validation images, never trained on: their loss shows overfitting. Images that are also in the "
            "training set are ignored.",
        ),
        *widgets(settings, "validate_every", "preview_every", "preview_prompt", "buckets", optional=True),
        *widgets(settings, "noise_offset", "micro_batch", "checkpointing", "decode", "keep", "tracker", optional=True),
        widget(settings, "long_captions", optional=True),
    ]


class TrainLora(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_TrainLora",
            display_name="Train LoRA (SCoFT)",
            category=CATEGORY,
            description="Trains a LoRA with the connected losses. Checkpoints and metrics are written to "
            "output/scoft/runs. You can stop at any time and resume later; a run is never overwritten.",
            inputs=_inputs(
                io.String.Input(
                    "run_name", default="lora", tooltip="Name of the run's folder. A name in use gets -2, -3, …"
                ),
                io.Combo.Input(
                    "resume",
                    options=[OFF, LATEST, *run_names(_runs())],
                    default=OFF,
                    tooltip="off: start a new run. latest: resume the newest run of this name. Or choose a run. The "
                    "settings must be the same as before.",
                ),
            ),
            outputs=[
                LoraModel.Output(
                    display_name="lora", tooltip="The LoRA, for Save LoRA (SCoFT) or ComfyUI's own nodes."
                ),
                io.Model.Output(display_name="model", tooltip="The base model with the LoRA applied at strength 1."),
                LossMap.Output(
                    display_name="loss_map", tooltip="The loss of each step, for ComfyUI's Plot Loss Graph."
                ),
                io.Image.Output(
                    display_name="chart", tooltip="Chart of the losses, validation loss, κ, gradient and learning rate."
                ),
                io.Int.Output(display_name="steps", tooltip="Number of optimizer steps done."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, dataset: Any, losses: Any, run_name: str, resume: str, **settings: Any
    ) -> io.NodeOutput:
        name = training.model_name(cls.hidden.prompt, cls.hidden.unique_id)
        with training_mode():
            inputs = training.TrainInputs(model, clip, vae, dataset, losses, settings, name)
            page = cls.hidden.unique_id, live_chart.workflow_id(cls.hidden.extra_pnginfo)
            lora, rows, steps = training.train_in_comfyui(inputs, _runs(), run_name, resume, *page)
            chart = loss_chart(rows, lora.record["run"])[None]
        patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
        curves = live_chart.of_rows(lora.record["run"], dict(named(losses)), rows, steps)
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), live_chart.OUTPUT: [curves]}
        return io.NodeOutput(lora, patched, training.loss_map(rows, losses), chart, steps, ui=shown)


class SaveLora(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def text(name: str, tooltip: str, *, multiline: bool = False) -> Any:
            return io.String.Input(name, default="", multiline=multiline, tooltip=tooltip)

        return io.Schema(
            node_id="SCoFT_SaveLora",
            display_name="Save LoRA (SCoFT)",
            category=CATEGORY,
            description="Saves the LoRA to output/loras, where LoRA loaders list it, with a model card that says whose "
            "culture it shows, who consented, and how it was trained.",
            inputs=[
                LoraModel.Input(
                    "lora", tooltip="The LoRA. From Train LoRA (SCoFT), its card also lists how it was trained."
                ),
                io.String.Input("filename_prefix", default="lora", tooltip="File name. A number is added."),
                text("title", "Title of the LoRA."),
                text("trigger_phrase", "Trigger phrase: the words to use in a prompt, such as 'in Kora'."),
                text("authors", "Authors. Name the people of the community first."),
                text("licence", "License of the LoRA, for example CC-BY-NC-4.0."),
                text("consent", "Who consented, to what, and where the images come from.", multiline=True),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Path of the LoRA file.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, lora: Mapping[str, Any], filename_prefix: str, **fields: str) -> io.NodeOutput:
        record = getattr(lora, "record", None)
        path = save_lora(output_folder() / "loras", filename_prefix, lora, CardFields(**fields), record)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"{path.name}\n\n{card}"))


class ReadCard(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_ReadCard",
            display_name="Read LoRA Card (SCoFT)",
            category=CATEGORY,
            description="Shows the model card of a LoRA: whose culture it shows, who consented, how it was trained, "
            "and what is not known.",
            inputs=[io.Combo.Input("lora", options=lora_names(), tooltip="A LoRA file in ComfyUI's LoRA folders.")],
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


class ExportJob(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [name for name in folder_paths.get_filename_list("checkpoints") if name.endswith(".safetensors")]
        return io.Schema(
            node_id="SCoFT_ExportJob",
            display_name="Export Training Job (SCoFT)",
            category=CATEGORY,
            description="Exports the inputs of Train LoRA to a folder in output/scoft/jobs, to train outside ComfyUI "
            "with `python -m comfy_scoft train`. On the CPU, the LoRA is exactly the same.",
            inputs=_inputs(
                io.String.Input(
                    "job_name", default="lora", tooltip="Name of the job's folder. A name in use gets -2, -3, …"
                ),
                io.Combo.Input(
                    "checkpoint",
                    options=[STORED, *files],
                    default=STORED,
                    tooltip="Store the model's weights in the job, or only the name of the checkpoint file. The file "
                    "must then be on the other machine too, and no LoRA may be applied to the model.",
                ),
            ),
            outputs=[io.String.Output(display_name="job", tooltip="Path of the job.json.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, dataset: Any, losses: Any, job_name: str, checkpoint: str, **settings: Any
    ) -> io.NodeOutput:
        name = training.model_name(cls.hidden.prompt, cls.hidden.unique_id)
        file = None if checkpoint == STORED else Path(folder_paths.get_full_path_or_raise("checkpoints", checkpoint))
        with training_mode():
            inputs = training.TrainInputs(model, clip, vae, dataset, losses, settings, name)
            path = training.export(inputs, output_folder() / "scoft" / "jobs", job_name, file)
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))


def _runs() -> Path:
    return output_folder() / "scoft" / "runs"
