"""Train a LoRA inside ComfyUI, save it with its card, read a card, and export a run to be trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...common.files import regular
from ...common.text import printable
from ...losses import named
from ...reports.plots import loss_chart
from ...training.model_card import CardFields, read_card, save_lora
from ...training.run_folder import LATEST, OFF, run_names
from ...training.settings import TrainSettings
from .. import live_chart, training
from ..compat import ExecutionBlocker, comfy, folder_paths, io, ui
from ..listed_files import changed, listed_file, lora_file, lora_names
from ..own_files import LastSaved
from ..runtime import in_output, output_folder, training_mode
from ..sockets import DatasetSocket, LoraSocket, LossesSocket, OptimizerSocket, RolloutSocket
from ..stopped import NOTHING, when_stopped
from ..typed_names import PLACES, placed, typed
from ..widgets import Node, widget, widgets

CATEGORY = "SCoFT/4 training"
LoraModel, LossMap = io.Custom("LORA_MODEL"), io.Custom("LOSS_MAP")
STORED = "stored in the job"
LORAS, JOBS = LastSaved(), LastSaved()


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
        LoraSocket.Input(
            "lora",
            optional=True,
            tooltip="Options of the LoRA to train, from LoRA Options: not a LoRA. Default: rank 64, alpha 64, "
            "attention. To go on from a LoRA, choose it there as start_from.",
        ),
        OptimizerSocket.Input(
            "optimizer",
            optional=True,
            tooltip="From Optimizer Options. Default: AdamW, 0.0001, cosine (released code).",
        ),
        RolloutSocket.Input(
            "rollout", optional=True, tooltip="From Rollout Options. Default: 20 DDIM steps at every 10th pass (paper)."
        ),
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


def _run_inputs() -> list[Any]:
    return [
        io.String.Input(
            "run_name",
            default="lora",
            tooltip=f"Name of the run's folder. {PLACES} A name in use gets -2, -3, …",
        ),
        io.Combo.Input(
            "resume",
            options=[OFF, LATEST, *run_names(_runs())],
            default=OFF,
            tooltip="off: start a new run. latest: resume the newest run of this name. Or choose a run. The "
            "settings must be the same as before.",
        ),
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
            inputs=[
                *_inputs(*_run_inputs()),
                io.Boolean.Input(
                    "export_job",
                    default=False,
                    optional=True,
                    tooltip="Do not train here: export a job named as the run, for another computer or the command "
                    "line, and show the command that trains it. Nodes after this one wait.",
                ),
            ],
            outputs=[
                LoraModel.Output(
                    display_name="lora", tooltip="The trained LoRA, for Save LoRA (SCoFT) or ComfyUI's own nodes."
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
    def validate_inputs(cls, run_name: str | None = None) -> bool | str:
        """Reject a bad name before anything runs. None: it comes from another node."""
        return run_name is None or bool(typed(_runs(), run_name, "run name"))

    @classmethod
    def fingerprint_inputs(cls, run_name: str | None = None, *, export_job: bool = False, **_: Any) -> int:
        """Changes when the job that it exported is gone."""
        return JOBS.times_gone(run_name) if export_job else 0

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        dataset: Any,
        losses: Any,
        run_name: str,
        resume: str,
        *,
        export_job: bool = False,
        **settings: Any,
    ) -> io.NodeOutput:
        name = training.model_name(cls.hidden.prompt, cls.hidden.unique_id)
        inputs = training.TrainInputs(model, clip, vae, dataset, losses, settings, name)
        if export_job:
            shown = _export(cls, inputs, run_name, None)[1]
            return io.NodeOutput(*[ExecutionBlocker(None)] * len(cls.define_schema().outputs), ui=shown)
        folder, run = typed(_runs(), run_name, "run name")
        if resume not in (OFF, LATEST):
            folder, resume = placed(_runs(), resume, "run to go on with")
        with training_mode():
            page = cls.hidden.unique_id, live_chart.workflow_id(cls.hidden.extra_pnginfo)
            lora, rows, steps = training.train_in_comfyui(inputs, folder, run, resume, *page)
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
                io.String.Input("filename_prefix", default="lora", tooltip=f"File name. A number is added. {PLACES}"),
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
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Reject a bad name before anything runs. None: it comes from another node."""
        return filename_prefix is None or bool(typed(_loras(), filename_prefix, "LoRA name"))

    @classmethod
    def fingerprint_inputs(cls, filename_prefix: str | None = None, **_: Any) -> int:
        """Changes when the LoRA that it saved is gone."""
        return LORAS.times_gone(filename_prefix)

    @classmethod
    def execute(cls, lora: Mapping[str, Any], filename_prefix: str, **fields: str) -> io.NodeOutput:
        record = getattr(lora, "record", None)
        path = save_lora(*typed(_loras(), filename_prefix, "LoRA name"), lora, CardFields(**fields), record)
        LORAS.saved(filename_prefix, path)
        card = regular(path.with_suffix(".md")).read_text(encoding="utf-8")
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
            "with `python -m comfy_scoft train`: the node shows the command. On the CPU, the LoRA is exactly the same. "
            "Train LoRA does this too, with export_job.",
            inputs=_inputs(
                io.String.Input(
                    "job_name",
                    default="lora",
                    tooltip=f"Name of the job's folder. {PLACES} A name in use gets -2, -3, …",
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
    def validate_inputs(cls, job_name: str | None = None) -> bool | str:
        """Reject a bad name before anything runs. None: it comes from another node."""
        return job_name is None or bool(typed(_jobs(), job_name, "job name"))

    @classmethod
    def fingerprint_inputs(cls, job_name: str | None = None, **_: Any) -> int:
        """Changes when the job that it wrote is gone."""
        return JOBS.times_gone(job_name)

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, dataset: Any, losses: Any, job_name: str, checkpoint: str, **settings: Any
    ) -> io.NodeOutput:
        missing = f"There is no checkpoint {printable(checkpoint)!r} in the checkpoints folders"
        names = folder_paths.get_filename_list("checkpoints")
        file = None if checkpoint == STORED else listed_file("checkpoints", checkpoint, names, missing)
        name = training.model_name(cls.hidden.prompt, cls.hidden.unique_id)
        inputs = training.TrainInputs(model, clip, vae, dataset, losses, settings, name)
        path, shown = _export(cls, inputs, job_name, file)
        return io.NodeOutput(str(path), ui=shown)


def _export(
    node: type[Node], inputs: training.TrainInputs, job_name: str, checkpoint: Path | None
) -> tuple[Path, ui.PreviewText]:
    """Write a job; returns the path of its job.json, and the text for the node."""
    folder, job = typed(_jobs(), job_name, "job name")
    progress = node.progress(1)

    def watch(done: int, total: int, text: str) -> None:
        progress.total = total
        progress.update(done, text)

    with training_mode(), when_stopped(node, NOTHING, ""):
        path = training.export(inputs, folder, job, checkpoint, watch)
    progress.update(progress.total)
    JOBS.saved(job_name, path)
    text = f"{in_output(path)}\nType this in a terminal to train it:\n\n{training.command(path)}"
    return path, ui.PreviewText(text)


def _runs() -> Path:
    return output_folder() / "scoft" / "runs"


def _jobs() -> Path:
    return output_folder() / "scoft" / "jobs"


def _loras() -> Path:
    return output_folder() / "loras"
