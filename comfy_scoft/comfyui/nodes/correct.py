"""RS-Corrector, a correction while sampling: learn a preference, save and load it, and apply it to a MODEL."""

from __future__ import annotations

from typing import Any

from ...corrector.corrector import Correction
from ...corrector.preference import Preference
from ...corrector.preference_file import load, save_new
from ...corrector.report import report
from ...corrector.training import PreferenceSettings
from ...reports.plots.preference import preference_chart
from ..compat import io, ui
from ..correction import corrected, learn_preference
from ..listed_files import changed, preference_file, preference_names, saved_preferences
from ..own_files import LastSaved
from ..resolution import size_input, size_of
from ..sockets import PreferenceSocket
from ..stopped import NOTHING, when_stopped
from ..typed_names import PLACES, typed
from ..widgets import Node, widget, widgets
from .generate import CATEGORY

PREFERENCES = LastSaved()


class LearnPreference(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = PreferenceSettings
        return io.Schema(
            node_id="SCoFT_LearnPreference",
            display_name="Learn Preference (SCoFT)",
            category=CATEGORY,
            description="Trains a small classifier of two sets of images in the latent space, at all noise levels: how "
            "a community shows itself, and how the model imagines it. RS-Corrector (SCoFT) then steers a sampler "
            "towards the first. The model itself is not trained. It works best with the same scenes in both sets.",
            is_input_list=True,  # images and captions may come as lists; everything else is a list of one
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model to correct. Only its noise schedule is used."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input("preferred", tooltip="Preferred images, for example the community's."),
                io.Image.Input(
                    "stereotyped",
                    tooltip="Stereotyped images: the model's own for the same captions, or the negatives.",
                ),
                *widgets(own, "steps", "seed"),
                size_input("resolution", "Resolution in pixels. Images are center-cropped to a square.", optional=True),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's text encoder. With it and a place, only prompts that name the place are "
                    "corrected. Without it: all prompts.",
                ),
                io.String.Input("place", default="", optional=True, tooltip="Name of the place, as in the captions."),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Prompts that name the place, such as the community's captions: a list, or one per line.",
                ),
                io.String.Input(
                    "other_places",
                    default="",
                    optional=True,
                    tooltip="Other places, separated by commas, whose prompts should not be corrected. Name neighbors "
                    "and places with similar names; made-up names are always included.",
                ),
            ],
            outputs=[
                PreferenceSocket.Output(display_name="preference", tooltip="For RS-Corrector and Save Preference."),
                io.Image.Output(display_name="chart", tooltip="Accuracy on held-out images, by noise level."),
                io.String.Output(display_name="report", tooltip="Accuracy in words, with warnings."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: list[Any],
        vae: list[Any],
        preferred: list[Any],
        stereotyped: list[Any],
        steps: list[int],
        seed: list[int],
        resolution: tuple[int, ...] = (0,),
        clip: tuple[Any, ...] = (None,),
        place: tuple[str, ...] = ("",),
        captions: tuple[str, ...] = ("",),
        other_places: tuple[str, ...] = ("",),
    ) -> io.NodeOutput:
        settings = PreferenceSettings(steps=steps[0], seed=seed[0])
        others = [name.strip() for name in other_places[0].split(",") if name.strip()]
        lines = [line.strip() for text in captions for line in text.splitlines() if line.strip()]
        gate = (clip[0], place[0].strip(), lines, others) if clip[0] is not None and place[0].strip() else None
        node = cls.hidden.unique_id if cls.hidden else None
        side = size_of(model[0], "resolution", resolution[0])
        sockets = model[0], vae[0], preferred, stereotyped
        with when_stopped(cls, NOTHING, ""):
            preference, evidence = learn_preference(*sockets, side, settings, gate, node)
        chart = preference_chart(evidence)[None]
        return io.NodeOutput(preference, chart, report(preference), ui=ui.PreviewImage(chart, cls=cls))


class SavePreference(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_SavePreference",
            display_name="Save Preference (SCoFT)",
            category=CATEGORY,
            description="Saves a preference to output/scoft/preferences, where Load Preference lists it.",
            is_output_node=True,
            inputs=[
                PreferenceSocket.Input("preference", tooltip="From Learn Preference."),
                io.String.Input(
                    "filename_prefix", default="preference", tooltip=f"File name. A number is added. {PLACES}"
                ),
                io.String.Input("title", default="", tooltip="Title: whose images it prefers."),
                io.String.Input("licence", default="", tooltip="License of the preference."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Path of the preference file.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Reject a bad name before anything runs. None: it comes from another node."""
        return filename_prefix is None or bool(typed(saved_preferences(), filename_prefix, "file name"))

    @classmethod
    def fingerprint_inputs(cls, filename_prefix: str | None = None, **_: Any) -> int:
        """Changes when the preference that it saved is gone."""
        return PREFERENCES.times_gone(filename_prefix)

    @classmethod
    def execute(cls, preference: Preference, filename_prefix: str, title: str, licence: str) -> io.NodeOutput:
        folder, name = typed(saved_preferences(), filename_prefix, "file name")
        path = save_new(preference, folder, name, title.strip(), licence.strip())
        PREFERENCES.saved(filename_prefix, path)
        return io.NodeOutput(str(path), ui=ui.PreviewText(path.name))


class LoadPreference(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadPreference",
            display_name="Load Preference (SCoFT)",
            category=CATEGORY,
            description="Loads a preference that you or others saved with Save Preference.",
            inputs=[
                io.Combo.Input(
                    "preference",
                    options=preference_names(),
                    tooltip="A file in output/scoft/preferences or models/scoft_preferences.",
                )
            ],
            outputs=[
                PreferenceSocket.Output(display_name="preference", tooltip="For RS-Corrector."),
                io.String.Output(display_name="report", tooltip="What it was trained on, and its accuracy."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, preference: str) -> Any:
        return changed(preference_file(preference))

    @classmethod
    def execute(cls, preference: str) -> io.NodeOutput:
        loaded = load(preference_file(preference))
        return io.NodeOutput(loaded, report(loaded))


class RSCorrector(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_RSCorrector",
            display_name="RS-Corrector (SCoFT)",
            category=CATEGORY,
            description="Steers any sampler towards a preference: each step's denoised latent is moved along the "
            "preference's gradient, by at most `strength` times the guidance's own update. No weight is changed. It "
            "can only choose among what the model already knows; to teach it something new, train a LoRA.",
            inputs=[
                io.Model.Input("model", tooltip="A model of the preference's family, with or without LoRAs."),
                PreferenceSocket.Input("preference", tooltip="From Learn Preference or Load Preference."),
                widget(Correction, "strength"),
                widget(Correction, "start", id="start_percent", rounded=True),
                widget(Correction, "end", id="end_percent", rounded=True),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The corrected model, for any sampler.")],
        )

    @classmethod
    def execute(
        cls, model: Any, preference: Preference, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        return io.NodeOutput(corrected(model, Correction(preference, strength, start_percent, end_percent)))
