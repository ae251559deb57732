"""Every node of the pack, in the order of a workflow."""

from __future__ import annotations

from .comfy_scoft.comfyui.extension import ScoftExtension
from .comfy_scoft.comfyui.nodes.captions import CaptionGeneric
from .comfy_scoft.comfyui.nodes.collect import DownloadLinks
from .comfy_scoft.comfyui.nodes.correct import LearnPreference, LoadPreference, RSCorrector, SavePreference
from .comfy_scoft.comfyui.nodes.data import (
    AttachNegatives,
    DatasetFromImages,
    DatasetToLists,
    LoadDataset,
    PreviewDataset,
    SaveDataset,
)
from .comfy_scoft.comfyui.nodes.denoising import DenoisingGap
from .comfy_scoft.comfyui.nodes.evaluate import BiasOracle, ScoreTable
from .comfy_scoft.comfyui.nodes.generate import CompareGrid, GenerateSet
from .comfy_scoft.comfyui.nodes.losses import (
    ContrastiveLossNode,
    DiffusionLossNode,
    LoadFeatures,
    MemorizationLossNode,
    PerceptualLossNode,
    PriorLossNode,
)
from .comfy_scoft.comfyui.nodes.metrics import KID, ClipScore, Diversity, Memorization, MergeScores
from .comfy_scoft.comfyui.nodes.negatives import EstimateDepth, FilterNegatives, MakeNegatives
from .comfy_scoft.comfyui.nodes.options import LoraOptions, OptimizerOptions, RolloutOptions
from .comfy_scoft.comfyui.nodes.survey import AggregateSurvey, LoadResponses, PlotSurvey
from .comfy_scoft.comfyui.nodes.survey_build import BuildSurvey
from .comfy_scoft.comfyui.nodes.training import ExportJob, ReadCard, SaveLora, TrainLora


class Extension(ScoftExtension):
    """The extension that ComfyUI loads."""

    nodes = [
        # Data
        LoadDataset,
        DatasetFromImages,
        DownloadLinks,
        CaptionGeneric,
        DatasetToLists,
        AttachNegatives,
        PreviewDataset,
        SaveDataset,
        # Negatives
        EstimateDepth,
        MakeNegatives,
        FilterNegatives,
        # Losses
        DiffusionLossNode,
        MemorizationLossNode,
        PerceptualLossNode,
        ContrastiveLossNode,
        PriorLossNode,
        LoadFeatures,
        # Training
        RolloutOptions,
        LoraOptions,
        OptimizerOptions,
        TrainLora,
        SaveLora,
        ReadCard,
        ExportJob,
        # Generate and compare
        GenerateSet,
        CompareGrid,
        LearnPreference,
        SavePreference,
        LoadPreference,
        RSCorrector,
        # Evaluate
        KID,
        ClipScore,
        Memorization,
        Diversity,
        DenoisingGap,
        BiasOracle,
        MergeScores,
        ScoreTable,
        # Survey
        BuildSurvey,
        LoadResponses,
        AggregateSurvey,
        PlotSurvey,
    ]
