"""Correct while sampling, without training: learn a preference, keep it, and apply it to a MODEL."""

from __future__ import annotations

from typing import Any

from ...corrector.corrector import Correction
from ...corrector.preference import Preference
from ...corrector.preference_file import free_name, load, save
from ...corrector.report import report
from ...corrector.training import PreferenceSettings
from ...reports.plots.preference import preference_chart
from ..compat import io, ui
from ..correction import corrected, learn_preference
from ..preference_files import preference_file, preference_names, saved_folder
from ..sockets import PreferenceSocket
from ..widgets import default, number
from .generate import CATEGORY
from .losses import changed


class LearnPreference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = PreferenceSettings
        return io.Schema(
            node_id="SCoFT_LearnPreference",
            display_name="Learn Preference (SCoFT)",
            category=CATEGORY,
            description="Learns to tell two sets of images apart in the latent space, at every level of noise: how "
            "a community shows itself, and how the model imagines it. RS-Corrector (SCoFT) then leads any sampler "
            "towards the first. The model itself is not trained. The same scenes in both sets teach it best.",
            is_input_list=True,  # images and captions may come as lists; everything else is a list of one
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that will be corrected; its noise schedule is used."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input("preferred", tooltip="Images as they should be, for example the community's."),
                io.Image.Input(
                    "stereotyped",
                    tooltip="Images as the model makes them: its own for the same captions, or the negatives.",
                ),
                number(own, "steps", 1, 100_000, 50, "Training steps; seconds to a minute or two."),
                number(own, "seed", 0, 2**53 - 1, 1, "Decides every random number."),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    optional=True,
                    tooltip="Side of the square that images are cropped to, in pixels; the mini model's is 64.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoder of the same checkpoint. With it and a place, only prompts that ask for "
                    "the place are corrected; without it, all are.",
                ),
                io.String.Input(
                    "place", default="", optional=True, tooltip="The place's name, as the captions write it."
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Prompts that name the place, such as the community's captions: a list, or one a line.",
                ),
                io.String.Input(
                    "other_places",
                    default="",
                    optional=True,
                    tooltip="Other places, separated by commas, whose prompts must not be corrected. Made-up names are "
                    "learned against too; neighbours and places with like names are worth naming.",
                ),
            ],
            outputs=[
                PreferenceSocket.Output(display_name="preference", tooltip="For RS-Corrector and Save Preference."),
                io.Image.Output(display_name="chart", tooltip="How often it is right on images kept back, by noise."),
                io.String.Output(display_name="report", tooltip="The same in words, with what to be careful of."),
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
        resolution: tuple[int, ...] = (512,),
        clip: tuple[Any, ...] = (None,),
        place: tuple[str, ...] = ("",),
        captions: tuple[str, ...] = ("",),
        other_places: tuple[str, ...] = ("",),
    ) -> io.NodeOutput:
        settings = PreferenceSettings(steps=steps[0], seed=seed[0])
        others = [name.strip() for name in other_places[0].split(",") if name.strip()]
        lines = [line.strip() for text in captions for line in text.splitlines() if line.strip()]
        asked = (clip[0], place[0].strip(), lines, others) if clip[0] is not None and place[0].strip() else None
        node = cls.hidden.unique_id if cls.hidden else None
        given = model[0], vae[0], preferred, stereotyped, resolution[0], settings, asked, node
        found, evidence = learn_preference(*given)
        chart = preference_chart(evidence)[None]
        words = report(found)
        return io.NodeOutput(found, chart, words, ui={**ui.PreviewImage(chart, cls=cls).as_dict(), "text": (words,)})


class SavePreference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_SavePreference",
            display_name="Save Preference (SCoFT)",
            category=CATEGORY,
            description="Writes a preference to output/scoft/preferences, where Load Preference lists it.",
            is_output_node=True,
            inputs=[
                PreferenceSocket.Input("preference", tooltip="From Learn Preference."),
                io.String.Input("filename_prefix", default="preference", tooltip="The file's name; a number is added."),
                io.String.Input("title", default="", tooltip="What people call it, and whose images it prefers."),
                io.String.Input("licence", default="", tooltip="Under which license it may be used."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def execute(cls, preference: Preference, filename_prefix: str, title: str, licence: str) -> io.NodeOutput:
        path = free_name(saved_folder(), filename_prefix)
        save(preference, path, title.strip(), licence.strip())
        return io.NodeOutput(str(path), ui=ui.PreviewText(path.name))


class LoadPreference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadPreference",
            display_name="Load Preference (SCoFT)",
            category=CATEGORY,
            description="Reads a preference that Save Preference wrote, yours or another person's.",
            inputs=[
                io.Combo.Input(
                    "preference",
                    options=preference_names(),
                    tooltip="A file of output/scoft/preferences or models/scoft_preferences.",
                )
            ],
            outputs=[
                PreferenceSocket.Output(display_name="preference", tooltip="For RS-Corrector."),
                io.String.Output(display_name="report", tooltip="What it was learned from, and how well it knows."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, preference: str) -> Any:
        return changed(preference_file(preference))

    @classmethod
    def execute(cls, preference: str) -> io.NodeOutput:
        found = load(preference_file(preference))
        return io.NodeOutput(found, report(found))


class RSCorrector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def share(name: str, tooltip: str) -> Any:
            return io.Float.Input(
                f"{name}_percent", default=default(Correction, name), min=0.0, max=1.0, step=0.01, tooltip=tooltip
            )

        return io.Schema(
            node_id="SCoFT_RSCorrector",
            display_name="RS-Corrector (SCoFT)",
            category=CATEGORY,
            description="Leads any sampler towards a preference while it draws: each step's denoised latent is moved "
            "along the preference's gradient, never further than `strength` times what the prompt itself moves it. No "
            "weight is changed, and the model that comes in stays as it is. It can choose among what the model knows; "
            "what the model never learned, only training teaches.",
            inputs=[
                io.Model.Input("model", tooltip="Of the preference's family; LoRAs may be on it."),
                PreferenceSocket.Input("preference", tooltip="From Learn Preference or Load Preference."),
                number(
                    Correction,
                    "strength",
                    0.0,
                    100.0,
                    0.05,
                    "The longest move, as a multiple of the guidance's own. 0 changes nothing; too much harms the "
                    "image. Compare a few.",
                ),
                share("start", "When it begins, as a share of the schedule; 0 is the beginning."),
                share("end", "When it ends; the steps after it tidy up."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The corrected model, for any sampler.")],
        )

    @classmethod
    def execute(
        cls, model: Any, preference: Preference, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        return io.NodeOutput(corrected(model, Correction(preference, strength, start_percent, end_percent)))


NODES = [LearnPreference, SavePreference, LoadPreference, RSCorrector]
