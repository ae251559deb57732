"""The node that downloads a community's images from a list of links."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...common.files import file_hash
from ...data.download import Duplicates, Limits, collect
from ...data.records import Dataset
from ..compat import io
from ..dataset_folders import collected_folder, dataset_place, link_file, link_files
from ..runtime import check_interrupt, input_folder
from ..sockets import DatasetSocket
from ..stopped import when_stopped
from ..widgets import Node
from .data import CATEGORY


class DownloadLinks(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_DownloadLinks",
            display_name="Download Links (SCoFT)",
            category=CATEGORY,
            description="Downloads the images of a list of links with captions. Put the list into ComfyUI's input "
            "folder as CSV or JSON lines, with the columns url and caption; optional: category, era, place, culture, "
            "split, generic_captions, collector, license, consent and verified_by. Images are saved in a folder there, "
            "which Load Dataset lists. A stopped download continues in the next run. The report lists dead links.",
            inputs=[
                io.Combo.Input(
                    "links", options=link_files(), tooltip="The list: a .csv, .tsv or .jsonl file in the input folder."
                ),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="Folder for the images, in the input folder. Empty: the list's name and 'images'.",
                ),
                io.String.Input("culture", default="", tooltip="The culture, if the list does not name it."),
                io.String.Input(
                    "place", default="", tooltip="The place the images show, if the list does not name it. Optional."
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=Limits.max_links,
                    tooltip="Download at most this many rows of the list. 0: all.",
                ),
                *_optional_inputs(),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The downloaded images and their captions."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many images were downloaded, which links are dead, and duplicates.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, links: str | None = None, name: str | None = None) -> bool | str:
        """Reject a bad list or name before anything runs. None: the text comes from another node."""
        if links is not None:
            link_file(links)
        if name is not None and name.strip():
            dataset_place(input_folder(), name)
        return True

    @classmethod
    def fingerprint_inputs(cls, links: str | None = None, **_: Any) -> str:
        """Changes when the list does. `attempt` is how a person asks for the same list again."""
        return file_hash(link_file(links)) if links is not None else ""

    @classmethod
    def execute(
        cls, links, name, culture, place, limit, duplicates="", max_megabytes=0.0, pause=0.0, attempt=1
    ) -> io.NodeOutput:
        path, limits = link_file(links), _limits(max_megabytes, pause)
        progress = cls.progress(1)

        def watch(done: int, total: int, text: str) -> None:
            check_interrupt()
            progress.total = max(1, total)
            progress.update(done, text)

        folder, handling = collected_folder(name, path), duplicates or DUPLICATES[0]

        def download() -> tuple[Dataset, str]:
            with when_stopped(cls, "Downloaded images are kept."):
                return collect(path, folder, culture.strip(), place.strip(), limit, handling, limits, watch)

        dataset, report = download()
        return io.NodeOutput(dataclasses.replace(dataset, makers=(download,)), report)


DUPLICATES = list(Duplicates.__args__)  # type: ignore[attr-defined]


def _limits(max_megabytes: float, pause: float) -> Limits:
    """The limits that widgets may change: never which addresses and ports are used."""
    changes: dict[str, Any] = {"max_bytes": int(max_megabytes * 1e6)} if max_megabytes else {}
    changes |= {"delay": max(pause, 0.1)} if pause else {}
    return dataclasses.replace(Limits(), **changes)


def _optional_inputs() -> list:
    return [
        io.Combo.Input(
            "duplicates",
            options=DUPLICATES,
            default=DUPLICATES[0],
            optional=True,
            tooltip="What to do with images that are in the list twice, as the same file or as a copy that looks the "
            "same (for example resized). The report lists them.",
        ),
        io.Float.Input(
            "max_megabytes",
            default=Limits.max_bytes / 1e6,
            min=0.1,
            max=200.0,
            step=0.1,
            optional=True,
            tooltip="Maximum file size in MB. Larger images are left out.",
        ),
        io.Float.Input(
            "pause",
            default=Limits.delay,
            min=0.1,
            max=60.0,
            step=0.1,
            optional=True,
            tooltip="Seconds between two requests to the same site.",
        ),
        io.Int.Input(
            "attempt",
            default=1,
            min=1,
            max=1000,
            optional=True,
            tooltip="Increase it to try failed links again. Downloaded images are kept.",
        ),
    ]
