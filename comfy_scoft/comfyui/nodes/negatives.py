"""Nodes that give each image its negatives: the same scene with the base model's own idea of the place."""

from __future__ import annotations

from typing import Any

from ...common.settings import declaration
from ...data.records import Dataset
from ...negatives.depth import DEPTH, attach_depth, attach_depth_images, load_depth
from ...negatives.filter import filter_negatives
from ...negatives.generate import NegativeSettings, make_negatives
from ...reports.plots import filter_page
from ..compat import comfy, io, ui
from ..depth_sampler import DepthSampler, size_multiple
from ..network_folders import AUTOMATIC, find, weights_input
from ..own_files import remade
from ..resolution import size_input, size_of
from ..runtime import device, output_folder
from ..sockets import DatasetSocket, FeaturesSocket
from ..stopped import when_stopped
from ..widgets import Node, widget, widgets
from .data import flat_images

CATEGORY = "SCoFT/2 negatives"
SUGGESTED = -1.0
"""Threshold of Filter Negatives: the one that the distances suggest."""


class EstimateDepth(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_EstimateDepth",
            display_name="Estimate Depth (SCoFT)",
            category=CATEGORY,
            description="Estimates a depth map of every image. Make Negatives needs it to keep the scene of an image. "
            "Depth maps are saved in the output folder and not computed again.",
            is_input_list=True,  # for depth_images, which may be a list; everything else is a list of one
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset, from Load Dataset."),
                io.Combo.Input(
                    "estimator",
                    options=list(DEPTH),
                    default=next(iter(DEPTH)),
                    tooltip="Depth network. For photographs use DPT-hybrid, with which the depth ControlNet of "
                    "Stable Diffusion 1.5 was trained, or Depth Anything V2. MiDaS is the same as DPT-hybrid, where "
                    "controlnet-aux is installed. 'relief (mini)' is for the built-in mini world "
                    "only.",
                ),
                weights_input("depth_estimators", DEPTH, " The mini network needs none."),
                io.Image.Input(
                    "depth_images",
                    optional=True,
                    tooltip="Depth maps from other nodes, used in place of the network: one per image, in the same "
                    "order. Near is bright.",
                ),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The dataset with depth maps.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset, estimator, weights=(AUTOMATIC,), depth_images=None) -> io.NodeOutput:
        folder, (images,), (name,) = output_folder() / "scoft" / "depth", dataset, estimator

        def make() -> Dataset:
            if depth_images is not None:
                return attach_depth_images(images, flat_images(depth_images), folder)
            network = load_depth(name, find("depth_estimators", DEPTH, name, weights[0]), device())
            with when_stopped(cls, "Finished depth maps are kept."):
                return attach_depth(images, network, folder, cls.watch("depth: {done} of {total} images"))

        return io.NodeOutput(remade(make))


class MakeNegatives(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own, sampler = NegativeSettings, comfy.samplers.KSampler
        return io.Schema(
            node_id="SCoFT_MakeNegatives",
            display_name="Make Negatives (SCoFT)",
            category=CATEGORY,
            description="Generates negatives for each image: the same scene with the model's own idea of the place. "
            "The Self-Contrastive Loss then moves the model towards your images and away from these. They are saved in "
            "the output folder, so a stopped run continues where it was. Earlier negatives of the dataset are "
            "replaced.",
            inputs=[
                io.Model.Input("model", tooltip="The base model that you want to train, without your LoRA."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.ControlNet.Input("control_net", tooltip="A depth ControlNet for the base model."),
                DatasetSocket.Input("dataset", tooltip="A dataset with depth maps, from Estimate Depth."),
                *widgets(own, "per_image", "steps", "cfg", "strength", "seed", "prompt_template"),
                widget(own, "sampler", options=sampler.SAMPLERS, optional=True),
                widget(own, "scheduler", options=sampler.SCHEDULERS, optional=True),
                size_input("resolution", declaration(own, "resolution")[1].help, optional=True),
                widget(own, "batch_size", optional=True),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The dataset with negatives.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, clip, vae, control_net, dataset, resolution: int = 0, **chosen: Any) -> io.NodeOutput:
        settings = NegativeSettings(**chosen, resolution=size_of(model, "resolution", resolution, 16))
        folder, multiple = output_folder() / "scoft" / "negatives", size_multiple(model)

        def make() -> Dataset:
            progress = cls.progress(len(dataset) * settings.steps_each())
            sampler = DepthSampler(model, clip, vae, control_net, settings, progress)
            identity, done = sampler.identity(), sampler.record_done
            with when_stopped(cls, "Finished negatives are kept."):
                return make_negatives(dataset, settings, sampler, folder, identity, multiple, done)

        return io.NodeOutput(remade(make))


class FilterNegatives(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_FilterNegatives",
            display_name="Filter Negatives (SCoFT)",
            category=CATEGORY,
            description="Removes negatives that look too much like their own image, since the model should not be "
            "moved away from those. The report says which were removed and why.",
            inputs=[
                DatasetSocket.Input("dataset", tooltip="A dataset with negatives, from Make Negatives."),
                FeaturesSocket.Input(
                    "features", tooltip="The frozen network that compares images, from Load Feature Network."
                ),
                io.Float.Input(
                    "threshold",
                    default=SUGGESTED,
                    min=SUGGESTED,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="Remove negatives closer to their image than this distance. -1: the threshold that the "
                    "distances themselves suggest, since they depend on the network. 0: keep all.",
                ),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The dataset with the remaining negatives."),
                io.String.Output(
                    display_name="report", tooltip="How many negatives were removed, which, and a suggested threshold."
                ),
                io.Image.Output(
                    display_name="image", tooltip="All distances with the threshold, and the negatives near it."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset: Any, features: Any, threshold: float) -> io.NodeOutput:
        chosen = None if threshold < 0 else threshold
        watch = cls.watch("compared: {done} of {total} images")
        result = filter_negatives(dataset, features.to(device()), chosen, watch)
        page = filter_page(result).unsqueeze(0)
        return io.NodeOutput(result.dataset, result.report(), page, ui=ui.PreviewImage(page))
