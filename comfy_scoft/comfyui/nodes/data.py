"""Nodes that bring a community's images and words into the graph, show them, and take them out again."""

from __future__ import annotations

import hashlib
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
from ..dataset_folders import SHIPPED, dataset_folder, dataset_names, files_fingerprint, plain_name, saved_root
from ..runtime import output_folder
from ..sockets import DatasetSocket

CATEGORY = "SCoFT/1 data"


class LoadDataset(io.ComfyNode):
    """A folder of images with captions -> dataset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadDataset",
            display_name="Load Dataset (SCoFT)",
            category=CATEGORY,
            description="Opens a folder of your community's images and captions. Put the folder into ComfyUI's input "
            "folder: each image with a text file of the same name beside it, kohya's numbered folders, or a "
            "metadata.jsonl or metadata.csv that lists them. "
            "Images with a fault are left out, and the report says why.",
            inputs=[
                io.Combo.Input("folder", options=dataset_names(), default=SHIPPED, tooltip="Which images to open."),
                io.String.Input(
                    "culture", default="", tooltip="Whose images these are, where the folder itself does not say."
                ),
                io.String.Input(
                    "place",
                    default="",
                    tooltip="The place they show, where the folder itself does not say. May be empty.",
                ),
                io.String.Input(
                    "categories",
                    default="",
                    tooltip="Keep only these, with commas between them; empty keeps all. Usual ones: "
                    f"{', '.join(CATEGORIES)}.",
                ),
                io.Combo.Input(
                    "split",
                    options=["train", "test", "validation", "all"],
                    default="train",
                    tooltip="Which part to open: 'train' to teach from; 'test' is kept apart to judge the result with.",
                ),
                io.Int.Input(
                    "limit", default=0, min=0, max=100_000, tooltip="Open only the first so many images; 0 opens all."
                ),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The images and their words."),
                io.String.Output(display_name="report", tooltip="How many were opened, and what was left out and why."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Refuse a bad folder before anything runs; None stands for a name that another node will give."""
        try:
            return folder is None or bool(dataset_folder(folder))
        except UserError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: Any) -> str:
        """Changes when any file under the folder does."""
        return files_fingerprint(dataset_folder(folder)) if folder is not None else ""

    @classmethod
    def execute(cls, folder: str, culture: str, place: str, categories: str, split: str, limit: int) -> io.NodeOutput:
        names = [name for name in categories.split(",") if name.strip()]
        found = load_folder(dataset_folder(folder), culture.strip(), place.strip(), names, split, limit)
        return io.NodeOutput(*found)


class DatasetFromImages(io.ComfyNode):
    """Images and captions of any graph -> dataset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_DatasetFromImages",
            display_name="Dataset From Images (SCoFT)",
            category=CATEGORY,
            description="Makes a dataset of images that other nodes load or make, with a caption for each.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The images, as a list or a batch."),
                io.String.Input(
                    "captions", default="", multiline=True, tooltip="A caption for each: a list, or one on each line."
                ),
                io.String.Input(
                    "generic_captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What a stranger would say each image shows, without the place. May be empty. A list may "
                    "hold several wordings of an image on lines of their own.",
                ),
                io.String.Input("culture", default="", tooltip="Whose images these are."),
                io.String.Input("place", default="", tooltip="The place they show. May be empty."),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The images and their words.")],
        )

    @classmethod
    def execute(cls, images, captions, culture, place, generic_captions=None) -> io.NodeOutput:
        pictures = flat_images(images)
        words = texts(captions, len(pictures))
        generic = None if not any(generic_captions or ()) else texts(generic_captions, len(pictures))
        lines = None if generic is None else [[line for line in text.splitlines() if line.strip()] for text in generic]
        facts = repr(([pixel_hash(image[..., :3]) for image in pictures], words, lines, culture[0], place[0]))
        name = hashlib.sha256(facts.encode()).hexdigest()[:32]
        folder = output_folder() / "scoft" / "from images" / name
        if folder.is_dir():
            return io.NodeOutput(load_folder(folder, strict=True)[0])
        return io.NodeOutput(from_images(pictures, words, lines, culture[0].strip(), place[0].strip(), folder))


def flat_images(images: list[Tensor]) -> list[Tensor]:
    """A list of IMAGE batches (B, H, W, C), sizes may differ -> a list of images (H, W, C)."""
    return [image for batch in images for image in (batch if batch.ndim == 4 else batch.unsqueeze(0))]


def texts(given: list[str], count: int) -> list[str]:
    """One text an image: the list as it is, or the lines of its only text when there are as many lines as images."""
    lines = [line for line in given[0].splitlines() if line.strip()] if len(given) == 1 else []
    return lines if count != len(given) and len(lines) == count else list(given)


class DatasetToLists(io.ComfyNode):
    """dataset -> lists that stock nodes take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def words(name: str, tooltip: str) -> Any:
            return io.String.Output(display_name=name, is_output_list=True, tooltip=tooltip)

        return io.Schema(
            node_id="SCoFT_DatasetToLists",
            display_name="Dataset To Lists (SCoFT)",
            category=CATEGORY,
            description="Takes a dataset apart into lists, one entry for each image, so that any other node can work "
            "on them one after another.",
            inputs=[DatasetSocket.Input("dataset", tooltip="The dataset to take apart.")],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="The images, each in its size."),
                words("captions", "The caption of each image."),
                words("generic_captions", "The plain captions of each image, one on each line; empty where none."),
                words("negative_prompts", "What to ask the base model for, to draw a negative of each image."),
                io.Image.Output(
                    display_name="depth",
                    is_output_list=True,
                    tooltip="Depth maps, after Estimate Depth: near is bright.",
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


class AttachNegatives(io.ComfyNode):
    """Images of any graph -> negatives of a dataset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_AttachNegatives",
            display_name="Attach Negatives (SCoFT)",
            category=CATEGORY,
            description="Gives a dataset negatives that you made in a graph of your own: the same number for each "
            "image, in the images' order. Negatives it had before are replaced.",
            is_input_list=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The images that the negatives belong to."),
                io.Image.Input("images", tooltip="The negatives: first all of the first image, then of the second, …"),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The same images, each with its negatives.")],
        )

    @classmethod
    def execute(cls, dataset: list[Dataset], images: list[Tensor]) -> io.NodeOutput:
        folder = output_folder() / "scoft" / "attached"
        return io.NodeOutput(attach_negatives(dataset[0], flat_images(images), folder))


class PreviewDataset(io.ComfyNode):
    """dataset -> a contact sheet and a table of counts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_PreviewDataset",
            display_name="Preview Dataset (SCoFT)",
            category=CATEGORY,
            description="Shows what is in a dataset: images with their depth, negatives and captions, and how many "
            "there are of each category, traditional and modern.",
            is_output_node=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset to look at."),
                io.Int.Input("rows", default=12, min=1, max=100, tooltip="How many images to show, from the first."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The contact sheet."),
                io.Image.Output(display_name="table", tooltip="The table of counts."),
            ],
        )

    @classmethod
    def execute(cls, dataset: Dataset, rows: int) -> io.NodeOutput:
        sheet, table = contact_sheet(dataset, rows).unsqueeze(0), count_table(dataset).unsqueeze(0)
        shown = [result for image in (sheet, table) for result in ui.PreviewImage(image).values]
        return io.NodeOutput(sheet, table, ui={"images": shown})


class SaveDataset(io.ComfyNode):
    """dataset -> a folder in the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_SaveDataset",
            display_name="Save Dataset (SCoFT)",
            category=CATEGORY,
            description="Copies a dataset, with negatives and depth maps, into the output folder under scoft/datasets, "
            "to keep it or to pass it on. Load Dataset lists it from then on.",
            is_output_node=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="The dataset to save."),
                io.String.Input("name", default="my dataset", tooltip="Name of its folder: a plain name, no path."),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a dataset that was saved by this name. Other files are never replaced.",
                ),
            ],
            outputs=[DatasetSocket.Output(display_name="dataset", tooltip="The dataset as it was saved.")],
        )

    @classmethod
    def execute(cls, dataset: Dataset, name: str, overwrite: bool = False) -> io.NodeOutput:
        folder = save_dataset(dataset, saved_root() / plain_name(name), overwrite=overwrite)
        return io.NodeOutput(load_folder(folder, strict=True)[0])


NODES = [
    LoadDataset,
    DatasetFromImages,
    DatasetToLists,
    AttachNegatives,
    PreviewDataset,
    SaveDataset,
]
