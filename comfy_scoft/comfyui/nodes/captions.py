"""The node that captions the images of a dataset with a general captioner."""

from __future__ import annotations

from typing import Any

from ...data.captions import CAPTIONERS, CaptionSettings, attach_captions, edits, load_captioner
from ...data.records import Dataset
from ..compat import io
from ..network_folders import AUTOMATIC, find, weights_input
from ..runtime import check_interrupt, device, output_folder
from ..sockets import DatasetSocket
from ..stopped import when_stopped
from ..widgets import Node, widget, widgets
from .data import CATEGORY


class CaptionGeneric(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = CaptionSettings
        return io.Schema(
            node_id="SCoFT_CaptionGeneric",
            display_name="Caption Generically (SCoFT)",
            category=CATEGORY,
            description="Captions each image several times with a general captioner, as someone who does not know the "
            "place would. Your own captions are not changed. You can edit the generic captions: they are text files in "
            "output/scoft/captions. Save Dataset writes them to metadata.jsonl.",
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset, from Load Dataset."),
                io.Combo.Input(
                    "captioner",
                    options=list(CAPTIONERS),
                    default=next(iter(CAPTIONERS)),
                    tooltip="The captioner. Paper: BLIP.",
                ),
                widget(own, "per_image", id="captions_per_image"),
                widget(own, "overwrite"),
                weights_input("captioners", CAPTIONERS),
                *widgets(own, "seed", "batch_size", optional=True),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The dataset with generic captions."),
                io.String.Output(
                    display_name="report", tooltip="How many images were captioned, and which captions name the place."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Changes when a person edits a caption file, not when the node writes one."""
        return edits(output_folder() / "scoft" / "captions")

    @classmethod
    def execute(
        cls, dataset: Dataset, captioner: str, captions_per_image: int, weights: str = AUTOMATIC, **settings: Any
    ) -> io.NodeOutput:
        chosen = CaptionSettings(captions_per_image, **settings)
        network = load_captioner(captioner, find("captioners", CAPTIONERS, captioner, weights), device())
        folder, observe = output_folder() / "scoft" / "captions", cls.watch("captioned: {done} of {total} images")
        with when_stopped(cls, "Finished captions are kept."):
            return io.NodeOutput(*attach_captions(dataset, network, chosen, folder, observe, check_interrupt))
