"""The extension that ComfyUI loads, with every node of the pack in the order of a workflow."""

from __future__ import annotations

import logging
from pathlib import Path

from .comfy_scoft.comfyui import mini_model
from .comfy_scoft.comfyui.compat import ComfyExtension, folder_paths, io, registered
from .comfy_scoft.comfyui.nodes import (
    captions,
    collect,
    correct,
    data,
    denoising,
    evaluate,
    generate,
    losses,
    metrics,
    negatives,
    options,
    survey,
    training,
)
from .comfy_scoft.comfyui.runtime import output_folder
from .comfy_scoft.common.torchaudio import without_broken_torchaudio


class Extension(ComfyExtension):
    """The mini model and the nodes."""

    nodes = [
        # Data
        data.LoadDataset,
        data.DatasetFromImages,
        collect.DownloadLinks,
        captions.CaptionGeneric,
        data.DatasetToLists,
        data.AttachNegatives,
        data.PreviewDataset,
        data.SaveDataset,
        # Negatives
        negatives.EstimateDepth,
        negatives.MakeNegatives,
        negatives.FilterNegatives,
        # Losses
        losses.DiffusionLossNode,
        losses.MemorizationLossNode,
        losses.PerceptualLossNode,
        losses.ContrastiveLossNode,
        losses.PriorLossNode,
        losses.LoadFeatures,
        # Training
        options.RolloutOptions,
        options.LoraOptions,
        options.OptimizerOptions,
        training.TrainLora,
        training.SaveLora,
        training.ReadCard,
        training.ExportJob,
        # Generate and compare
        generate.GenerateSet,
        generate.CompareGrid,
        correct.LearnPreference,
        correct.SavePreference,
        correct.LoadPreference,
        correct.RSCorrector,
        # Evaluate
        metrics.KID,
        metrics.ClipScore,
        metrics.Memorization,
        metrics.Diversity,
        denoising.DenoisingGap,
        metrics.BiasOracle,
        evaluate.MergeScores,
        evaluate.ScoreTable,
        # Survey
        survey.BuildSurvey,
        survey.LoadResponses,
        survey.AggregateSurvey,
        survey.PlotSurvey,
    ]

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register the mini model and output/loras as a LoRA folder, and return the nodes. Safe to call again.

        Not in `on_load`, which ComfyUI 0.3.75 declares and never calls.
        """
        without_broken_torchaudio()
        mini_model.register()
        self._warn_of_a_second_copy()
        folder_paths.add_model_folder_path("loras", str(output_folder() / "loras"))
        return list(self.nodes)

    def _warn_of_a_second_copy(self) -> None:
        """ComfyUI keeps the nodes of the copy that it loads last, and pages and menus of both."""
        other = registered(training.TrainLora.GET_SCHEMA().node_id)
        if other is not None and other is not training.TrainLora:
            folders = (str(getattr(other, "RELATIVE_PYTHON_MODULE", "")).rpartition(".")[2], Path(__file__).parent.name)
            logging.warning(
                "comfy_scoft is installed twice, in %s and %s: remove one from custom_nodes and restart ComfyUI.",
                *folders,
            )
