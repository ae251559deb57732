"""The pack's own socket types. Their ids are part of saved workflows and never change."""

from __future__ import annotations

from .compat import io

DatasetSocket = io.Custom("SCOFT_DATASET")
"""records.Dataset, immutable: every node returns a new one."""
FeaturesSocket = io.Custom("SCOFT_FEATURES")
"""features.FeatureNetwork."""
LossesSocket = io.Custom("SCOFT_LOSSES")
"""An ordered tuple of losses.Loss."""
RolloutSocket = io.Custom("SCOFT_OPTIONS_ROLLOUT")
"""rollout.RolloutSettings."""
LoraSocket = io.Custom("SCOFT_OPTIONS_LORA")
"""lora.LoraSettings."""
OptimizerSocket = io.Custom("SCOFT_OPTIONS_OPTIMIZER")
"""settings.OptimizerSettings."""
ImagesSocket = io.Custom("SCOFT_IMAGES")
"""image_set.ImageSet: images with prompt, seed and model label."""
ScoresSocket = io.Custom("SCOFT_SCORES")
"""scores.Scores: named metrics with intervals."""
PreferenceSocket = io.Custom("SCOFT_PREFERENCE")
"""corrector.preference.Preference: what a correction steers towards."""
SurveySocket = io.Custom("SCOFT_SURVEY")
"""survey.spec.Survey: the questions, their key and, once loaded, the answers."""
