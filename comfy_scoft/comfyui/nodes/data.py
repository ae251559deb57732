"""Nodes that load a community's images and captions, show them, and save them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.errors import UserError
from ...data.dataset import from_images, load_folder, save_dataset
from ...data.images import open_image
from ...data.prompts import TEMPLATE, record_prompts
from ...data.records import CATEGORIES, Dataset
from ...negatives.generate import attach_negatives, pixel_hash
from ...reports.plots import contact_sheet, count_table
from ..compat import ExecutionBlocker, io, ui
from ..dataset_folders import SHIPPED, FolderNode, dataset_folder, dataset_names, dataset_place, saved_root
from ..own_files import LastSaved, remade
from ..runtime import output_folder
from ..sockets import DatasetSocket
from ..typed_names import PLACES
from ..widgets import Node

CATEGORY = "SCoFT/1 data"
DATASETS = LastSaved()


class LoadDataset(FolderNode):
    find = staticmethod(dataset_folder)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadDataset",
            display_name="Load Dataset (SCoFT)",
            category=CATEGORY,
            description="Loads a folder of images and captions from ComfyUI's input folder: each image with a text "
            "file of the same name, kohya's numbered folders, or a metadata.jsonl or metadata.csv. Unusable images are "
            "left out, and the report says why.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=dataset_names(),
                    default=SHIPPED,
                    tooltip="The dataset folder, with all folders below it. Links out of the input folder are not "
                    "followed: start ComfyUI with --input-directory instead.",
                ),
                io.String.Input("culture", default="", tooltip="The culture, if the folder does not name it."),
                io.String.Input(
                    "place", default="", tooltip="The place the images show, if the folder does not name it. Optional."
                ),
                io.String.Input(
                    "categories",
                    default="",
                    tooltip="Load only these categories, separated by commas. Empty: all. Usual ones: "
                    f"{', '.join(CATEGORIES)}.",
                ),
                io.Combo.Input(
                    "split",
                    options=["train", "test", "validation", "all"],
                    default="train",
                    tooltip="The split to load: train for training, test for evaluation.",
                ),
                io.Int.Input("limit", default=0, min=0, max=100_000, tooltip="Load at most this many images. 0: all."),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The images and their captions."),
                io.String.Output(
                    display_name="report", tooltip="How many images were loaded, and what was left out and why."
                ),
            ],
        )

    @classmethod
    def execute(cls, folder: str, culture: str, place: str, categories: str, split: str, limit: int) -> io.NodeOutput:
        names = [name for name in categories.split(",") if name.strip()]
        return io.NodeOutput(*load_folder(dataset_folder(folder), culture.strip(), place.strip(), names, split, limit))


class DatasetFromImages(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_DatasetFromImages",
            display_name="Dataset From Images (SCoFT)",
            category=CATEGORY,
            description="Makes a dataset from the images of other nodes, with a caption for each.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The images, as a list or a batch."),
                io.String.Input("captions", default="", multiline=True, tooltip="Captions: a list, or one per line."),
                io.String.Input(
                    "generic_captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Generic captions that do not name the place. Optional. In a list, an image can have "
                    "several, one per line.",
                ),
                io.String.Input("culture", default="", tooltip="The culture."),
                io.String.Input("place", default="", tooltip="The place the images show. Optional."),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The images and their captions.")],
        )

    @classmethod
    def execute(cls, images, captions, culture, place, generic_captions=None) -> io.NodeOutput:
        flat = flat_images(images)
        own = texts(captions, len(flat))
        generic = None if not any(generic_captions or ()) else texts(generic_captions, len(flat))
        lines = None if generic is None else [[line for line in text.splitlines() if line.strip()] for text in generic]
        facts = repr(([pixel_hash(image) for image in flat], own, lines, culture[0], place[0]))
        name = hashlib.sha256(facts.encode()).hexdigest()[:32]
        folder = output_folder() / "scoft" / "from images" / name

        def make() -> Dataset:
            with suppress(UserError):  # it, or a part of it, is not there
                return load_folder(folder, strict=True)[0]
            return from_images(flat, own, lines, culture[0].strip(), place[0].strip(), folder, overwrite=True)

        return io.NodeOutput(remade(make))


def flat_images(images: list[Tensor]) -> list[Tensor]:
    """A list of IMAGE batches (B, H, W, C), sizes may differ -> a list of images (H, W, C), transparency as white."""
    flat = [image for batch in images for image in (batch if batch.ndim == 4 else batch.unsqueeze(0))]
    return [1 - i[..., 3:] * (1 - i[..., :3]) if i.ndim == 3 and i.shape[-1] == 4 else i for i in flat]


def texts(values: list[str], count: int) -> list[str]:
    """One text per image: the list unchanged, or the lines of its only text if there are as many lines as images."""
    lines = [line for line in values[0].splitlines() if line.strip()] if len(values) == 1 else []
    return lines if count != len(values) and len(lines) == count else list(values)


class DatasetToLists(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def text(name: str, tooltip: str) -> Any:
            return io.String.Output(display_name=name, is_output_list=True, tooltip=tooltip)

        return io.Schema(
            node_id="SCoFT_DatasetToLists",
            display_name="Dataset To Lists (SCoFT)",
            category=CATEGORY,
            description="Splits a dataset into lists with one entry per image, for use with any other nodes.",
            inputs=[DatasetSocket.Input("dataset", tooltip="The dataset.")],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="The images, in their own sizes."),
                text("captions", "The caption of each image; the first one if it has several."),
                text("generic_captions", "The generic captions of each image, one per line. Empty if it has none."),
                text("negative_prompts", "The prompt to generate a negative of each image with the base model."),
                io.Image.Output(
                    display_name="depth",
                    is_output_list=True,
                    tooltip="Depth maps, if Estimate Depth came before. Near is bright.",
                ),
            ],
        )

    @classmethod
    def execute(cls, dataset: Dataset) -> io.NodeOutput:
        records = dataset.records
        depth: Any = ExecutionBlocker("The dataset has no depth maps: connect Estimate Depth before Dataset To Lists.")
        known = [record.depth for record in records if record.depth is not None]
        if len(known) == len(records):
            depth = [as_image(path) for path in known]
        return io.NodeOutput(
            [as_image(record.image) for record in records],
            [record.caption for record in records],
            ["\n".join(" ".join(text.split()) for text in record.generic_captions) for record in records],
            [record_prompts(record, TEMPLATE, 1)[0] for record in records],
            depth,
        )


def as_image(path: Path) -> Tensor:
    """An image file as an IMAGE, (1, H, W, 3) in [0, 1]."""
    image = open_image(path)
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(1, image.height, image.width, 3).float().div(255.0)


class AttachNegatives(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_AttachNegatives",
            display_name="Attach Negatives (SCoFT)",
            category=CATEGORY,
            description="Adds negatives that you generated with other nodes: the same number for each image, in the "
            "images' order. Earlier negatives are replaced.",
            is_input_list=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset that the negatives belong to."),
                io.Image.Input("images", tooltip="The negatives: all of the first image, then all of the second, …"),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The dataset with negatives.")],
        )

    @classmethod
    def execute(cls, dataset: list[Dataset], images: list[Tensor]) -> io.NodeOutput:
        folder, flat = output_folder() / "scoft" / "attached", flat_images(images)
        return io.NodeOutput(remade(lambda: attach_negatives(dataset[0], flat, folder)))


class PreviewDataset(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_PreviewDataset",
            display_name="Preview Dataset (SCoFT)",
            category=CATEGORY,
            description="Shows a contact sheet (images with depth maps, negatives and captions) and a table of counts "
            "by category, traditional and modern.",
            is_output_node=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset."),
                io.Int.Input("rows", default=12, min=1, max=100, tooltip="Number of images to show, from the first."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The contact sheet."),
                io.Image.Output(display_name="table", tooltip="The table of counts."),
            ],
        )

    @classmethod
    def execute(cls, dataset: Dataset, rows: int) -> io.NodeOutput:
        unreadable: list[str] = []
        sheet = contact_sheet(dataset, rows, unreadable=unreadable).unsqueeze(0)
        table = count_table(dataset).unsqueeze(0)
        shown: dict[str, Any] = {"images": [r for image in (sheet, table) for r in ui.PreviewImage(image).values]}
        if unreadable:
            shown["text"] = ("\n".join(unreadable),)
        return io.NodeOutput(sheet, table, ui=shown)


class SaveDataset(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_SaveDataset",
            display_name="Save Dataset (SCoFT)",
            category=CATEGORY,
            description="Saves a dataset with its negatives and depth maps to output/scoft/datasets. Load Dataset then "
            "lists it.",
            is_output_node=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset to save."),
                io.String.Input("name", default="my dataset", tooltip=f"Folder name. {PLACES}"),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a saved dataset of this name. Other files are never replaced.",
                ),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The saved dataset.")],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Reject a bad name before anything runs. None: it comes from another node."""
        return name is None or bool(dataset_place(saved_root(), name))

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: Any) -> int:
        """Changes when what it saved is gone."""
        return DATASETS.times_gone(name)

    @classmethod
    def execute(cls, dataset: Dataset, name: str, *, overwrite: bool = False) -> io.NodeOutput:
        folder = save_dataset(dataset, dataset_place(saved_root(), name), overwrite=overwrite)
        saved = load_folder(folder, strict=True)[0]
        DATASETS.saved(name, *(path for record in saved.records for path in record.files()))
        return io.NodeOutput(saved)
