"""Nodes that give each image its negatives: the same scene as the base model imagines the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...data.images import open_image
from ...negatives.depth import DEPTH, attach_depth, attach_depth_images, load_depth
from ...negatives.filter import filter_negatives
from ...negatives.generate import NegativeSettings, make_negatives
from ...reports.plots import filter_page
from ..compat import comfy, io, ui
from ..depth_sampler import DepthSampler, native_resolution, size_multiple
from ..network_folders import AUTOMATIC, choices, find
from ..runtime import Progress, check_interrupt, device, output_folder
from ..sockets import DatasetSocket, FeaturesSocket
from ..widgets import default, number
from .data import flat_images

CATEGORY = "SCoFT/2 negatives"


class EstimateDepth(io.ComfyNode):
    """dataset -> the same with depth maps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_EstimateDepth",
            display_name="Estimate Depth (SCoFT)",
            category=CATEGORY,
            description="Works out what is near and what is far in every image. Make Negatives needs these depth "
            "maps to keep the scene of an image while changing everything else. They are kept in the output folder, "
            "so this takes time only once.",
            is_input_list=True,  # for depth_images, which may be a list; everything else is a list of one
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The images, from Load Dataset."),
                io.Combo.Input(
                    "estimator",
                    options=list(DEPTH),
                    default=next(iter(DEPTH)),
                    tooltip="The network that sees depth. For photographs take MiDaS, with which the depth ControlNet "
                    "of Stable Diffusion 1.5 was trained, or one of the others. 'relief (mini)' knows the small drawn "
                    "images of the built-in mini world and nothing else.",
                ),
                io.Combo.Input(
                    "weights",
                    options=choices("depth_estimators", DEPTH),
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="Where the network's weights are. 'automatic' takes a folder of this computer that fits; "
                    "the entries that begin with 'download' fetch a network from the internet once. The mini one needs "
                    "none.",
                ),
                io.Image.Input(
                    "depth_images",
                    optional=True,
                    tooltip="Depth maps from any other nodes instead, near is bright: one for each image, in their "
                    "order. The network is then not used.",
                ),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The same images, each with a depth map.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset, estimator, weights=(AUTOMATIC,), depth_images=None) -> io.NodeOutput:
        folder, (images,), (name,) = output_folder() / "scoft" / "depth", dataset, estimator
        if depth_images is not None:
            return io.NodeOutput(attach_depth_images(images, flat_images(depth_images), folder))
        network = load_depth(name, find("depth_estimators", DEPTH, name, weights[0]), device())
        return io.NodeOutput(attach_depth(images, network, folder, watch(cls, len(images), "depth")))


class MakeNegatives(io.ComfyNode):
    """dataset with depth -> the same with negatives drawn by ComfyUI's own sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_MakeNegatives",
            display_name="Make Negatives (SCoFT)",
            category=CATEGORY,
            description="For each of your images, draws what the model itself would have shown: the same scene, but "
            "with the model's own idea of the place. Training then pulls the model towards your images and away from "
            "these. Finished ones are kept in the output folder: if you stop, the next run goes on from there. "
            "Negatives that the dataset had before are replaced.",
            inputs=[
                io.Model.Input("model", tooltip="The base model you want to teach, without your LoRA."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.ControlNet.Input("control_net", tooltip="A depth ControlNet that fits the base model."),
                DatasetSocket.Input("dataset", tooltip="Images with depth maps, from Estimate Depth."),
                *_drawing_inputs(),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The same images, each with its negatives.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, clip, vae, control_net, dataset, resolution: int = 0, **chosen: Any) -> io.NodeOutput:
        settings = NegativeSettings(**chosen, resolution=resolution or native_resolution(model))
        progress = Progress(max(1, len(dataset)) * settings.steps_each(), getattr(cls.hidden, "unique_id", None))
        draw = DepthSampler(model, clip, vae, control_net, settings, progress)
        identity = draw.identity()
        folder = output_folder() / "scoft" / "negatives"
        made = make_negatives(dataset, settings, draw, folder, identity, size_multiple(model), draw.record_done)
        return io.NodeOutput(made)


def _drawing_inputs() -> list:
    """The widgets of Make Negatives; their ids are the fields of NegativeSettings."""
    kind, words = NegativeSettings, comfy.samplers.KSampler
    return [
        number(kind, "per_image", 1, 32, 1, "How many negatives each image gets. The paper uses 5."),
        number(kind, "steps", 1, 200, 1, "Sampling steps for each one. 20 is usually enough."),
        number(
            *(kind, "cfg", 0.0, 30.0, 0.1),
            "How closely the model follows the words. 7.5 suits Stable Diffusion, 4 the mini model.",
        ),
        number(
            *(kind, "strength", 0.0, 2.0, 0.05),
            "How firmly the depth map holds the scene in place; 0 lets it go altogether.",
        ),
        number(
            *(kind, "seed", 0, 0xFFFFFFFFFFFFFFFF, 1),
            "Another number gives other negatives. An image's negatives do not depend on the other images.",
        ),
        io.String.Input(
            "prompt_template",
            default=default(kind, "prompt_template"),
            tooltip="What the model is asked for. {generic} is the plain caption, {place} the place, also {caption}, "
            "{culture}, {category}. A field that is empty vanishes together with the word before it.",
        ),
        io.Combo.Input(
            "sampler",
            options=list(words.SAMPLERS),
            default=default(kind, "sampler"),
            optional=True,
            tooltip="ComfyUI's sampling method.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(words.SCHEDULERS),
            default=default(kind, "scheduler"),
            optional=True,
            tooltip="How the sampler's steps are spaced.",
        ),
        io.Int.Input(
            "resolution",
            default=0,
            min=0,
            max=2048,
            step=8,
            optional=True,
            tooltip="Size at which negatives are drawn, in pixels of a square's side; each has its image's shape. "
            "0 takes the size the model was made for.",
        ),
        io.Int.Input(
            "batch_size",
            default=default(kind, "batch_size"),
            min=0,
            max=32,
            optional=True,
            tooltip="How many negatives of an image are drawn at once. 0 draws all of them together, which is "
            "fastest; lower it where memory runs out.",
        ),
    ]


class FilterNegatives(io.ComfyNode):
    """dataset -> the same without negatives that came out like their image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_FilterNegatives",
            display_name="Filter Negatives (SCoFT)",
            category=CATEGORY,
            description="Some negatives come out right by luck and look like your own image. Pushing the model away "
            "from those would be wrong, so this leaves them out and says which and why.",
            inputs=[
                DatasetSocket.Input("dataset", tooltip="Images with negatives, from Make Negatives."),
                FeaturesSocket.Input(
                    "features", tooltip="The network that compares images, from Load Feature Network."
                ),
                io.Float.Input(
                    "threshold",
                    default=0.1,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="Negatives closer to their image than this are left out: 0 keeps all. Each network has "
                    "distances of its own; the image shows them, and the report suggests a threshold.",
                ),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The same images with the negatives that stay."),
                io.String.Output(display_name="report", tooltip="How many were left out, and which."),
                io.Image.Output(
                    display_name="image",
                    tooltip="All distances with the threshold, and the images that were left out or nearly so.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset: Any, features: Any, threshold: float) -> io.NodeOutput:
        found = filter_negatives(dataset, features.to(device()), threshold, watch(cls, len(dataset), "compared"))
        page = filter_page(found).unsqueeze(0)
        return io.NodeOutput(found.dataset, found.report(), page, ui=ui.PreviewImage(page))


def watch(node: Any, total: int, what: str) -> Callable[[int, int, Path], None]:
    """An observer of one record after another that shows progress and obeys the interrupt."""
    progress = Progress(max(1, total), getattr(node.hidden, "unique_id", None))

    def observe(done: int, count: int, newest: Path) -> None:
        check_interrupt()
        progress.update(done, f"{what}: {done} of {count} images", open_image(newest))

    return observe


NODES = [EstimateDepth, MakeNegatives, FilterNegatives]
