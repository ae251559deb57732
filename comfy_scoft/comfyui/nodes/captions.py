"""The node that has a general captioner describe the images of a dataset."""

from __future__ import annotations

from typing import Any

from ...data.captions import CAPTIONERS, CaptionSettings, attach_captions, edits, load_captioner
from ...data.records import Dataset
from ..compat import io
from ..network_folders import AUTOMATIC, choices, find
from ..runtime import check_interrupt, device, output_folder
from ..sockets import DatasetSocket
from ..widgets import default, number
from .data import CATEGORY
from .negatives import watch


class CaptionGeneric(io.ComfyNode):
    """dataset -> the same with generic captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        kind = CaptionSettings
        return io.Schema(
            node_id="SCoFT_CaptionGeneric",
            display_name="Caption Generically (SCoFT)",
            category=CATEGORY,
            description="Has a general captioner say what each image shows, several times in other words, as "
            "somebody would who does not know the place. Your own captions stay as they are. The captions are text "
            "files in the output folder under scoft/captions, which you may edit; Save Dataset writes them into the "
            "dataset's metadata.jsonl.",
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The images, from Load Dataset."),
                io.Combo.Input(
                    "captioner",
                    options=list(CAPTIONERS),
                    default=next(iter(CAPTIONERS)),
                    tooltip="The network that describes. The paper uses BLIP.",
                ),
                io.Int.Input(
                    "captions_per_image",
                    default=default(kind, "per_image"),
                    min=1,
                    max=20,
                    tooltip="How many captions each image gets.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=default(kind, "overwrite"),
                    tooltip="Off: images that have generic captions keep them. On: theirs are replaced too. Your own "
                    "captions are never touched.",
                ),
                io.Combo.Input(
                    "weights",
                    options=choices("captioners", CAPTIONERS),
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="Where the network's weights are. 'automatic' takes a folder of this computer that fits; "
                    "the entries that begin with 'download' fetch a network from the internet once.",
                ),
                number(kind, "seed", 0, 0xFFFFFFFFFFFFFFFF, 1, "Another number gives other captions.", optional=True),
                io.Int.Input(
                    "batch_size",
                    default=default(kind, "batch_size"),
                    min=1,
                    max=64,
                    optional=True,
                    tooltip="Images described at once. It changes the speed, not the captions.",
                ),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The same images with their generic captions."),
                io.String.Output(
                    display_name="report", tooltip="How many were described, and which captions name the place."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Changes when somebody edits a caption file, and not when the node itself writes one."""
        return edits(output_folder() / "scoft" / "captions")

    @classmethod
    def execute(
        cls, dataset: Dataset, captioner: str, captions_per_image: int, overwrite: bool, weights: str = AUTOMATIC,
        seed: int = 0, batch_size: int = default(CaptionSettings, "batch_size"),
    ) -> io.NodeOutput:  # fmt: skip
        settings = CaptionSettings(captions_per_image, seed, overwrite, batch_size)
        network = load_captioner(captioner, find("captioners", CAPTIONERS, captioner, weights), device())
        seen = watch(cls, len(dataset), "described")
        folder = output_folder() / "scoft" / "captions"
        return io.NodeOutput(*attach_captions(dataset, network, settings, folder, seen, check_interrupt))


NODES = [CaptionGeneric]
