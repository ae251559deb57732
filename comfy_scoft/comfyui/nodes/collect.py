"""The node that fetches a community's images by their links."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from ...common.errors import UserError
from ...data.download import Duplicates, Limits, collect
from ..compat import io
from ..dataset_folders import collected_folder, link_file, link_files, plain_name
from ..runtime import Progress, check_interrupt
from ..sockets import DatasetSocket
from ..widgets import default
from .data import CATEGORY


class DownloadLinks(io.ComfyNode):
    """A list of links with captions -> a folder of images -> dataset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_DownloadLinks",
            display_name="Download Links (SCoFT)",
            category=CATEGORY,
            description="Fetches the images of a list of links that your community has collected, with the captions "
            "you wrote. Put the list into ComfyUI's input folder, as CSV or JSON lines. Its columns: url and caption; "
            "category, era, place, culture, split, generic_captions, collector, license, consent and verified_by if "
            "you like. The images go into a folder beside it, which Load Dataset lists from then on. If you stop, "
            "the next run goes on from there. The report says which links are dead.",
            inputs=[
                io.Combo.Input(
                    "links", options=link_files(), tooltip="The list: a .csv, .tsv or .jsonl file in the input folder."
                ),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="Name of the folder for the images, in the input folder; empty takes the list's own name "
                    "and adds 'images'.",
                ),
                io.String.Input("culture", default="", tooltip="Whose images these are, where the list says nothing."),
                io.String.Input(
                    "place", default="", tooltip="The place they show, where the list says nothing. May be empty."
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=default(Limits, "max_links"),
                    tooltip="Fetch only the first so many rows of the list; 0 fetches all.",
                ),
                *_optional_inputs(),
            ],
            outputs=[
                DatasetSocket.Output(display_name="dataset", tooltip="The images that are there, and their words."),
                io.String.Output(
                    display_name="report", tooltip="How many came, which links are dead, and what is there twice."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, links: str | None = None, name: str | None = None) -> bool | str:
        """Refuse a bad list or name before anything runs; None stands for a text that another node will give."""
        try:
            if links is not None:
                link_file(links)
            if name is not None and name.strip():
                plain_name(name)
        except UserError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, links: str | None = None, **_: Any) -> str:
        """Changes when the list does; `attempt` stands for "the same list once more"."""
        return hashlib.sha256(link_file(links).read_bytes()).hexdigest() if links is not None else ""

    @classmethod
    def execute(
        cls, links, name, culture, place, limit, duplicates="", max_megabytes=0.0, pause=0.0, attempt=1
    ) -> io.NodeOutput:
        listed = link_file(links)
        limits = _limits(max_megabytes, pause)
        progress = Progress(1, getattr(cls.hidden, "unique_id", None))

        def watch(done: int, total: int, text: str) -> None:
            check_interrupt()
            progress.total = max(1, total)
            progress.update(done, text)

        duplicates = duplicates or DUPLICATES[0]
        return io.NodeOutput(
            *collect(
                listed, collected_folder(name, listed), culture.strip(), place.strip(), limit, duplicates, limits, watch
            )
        )


DUPLICATES = list(Duplicates.__args__)  # type: ignore[attr-defined]


def _limits(max_megabytes: float, pause: float) -> Limits:
    """Only what a widget may change: never which addresses and ports are asked."""
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
            tooltip="What to do with an image that the list holds twice: the same file, or one that only looks the "
            "same (saved smaller, for example). The report names them all.",
        ),
        io.Float.Input(
            "max_megabytes",
            default=default(Limits, "max_bytes") / 1e6,
            min=0.1,
            max=200.0,
            step=0.1,
            optional=True,
            tooltip="Images with a larger file than this are left out.",
        ),
        io.Float.Input(
            "pause",
            default=default(Limits, "delay"),
            min=0.1,
            max=60.0,
            step=0.1,
            optional=True,
            tooltip="Seconds between two requests to the same site. Be kind: small museums have small servers.",
        ),
        io.Int.Input(
            "attempt",
            default=1,
            min=1,
            max=1000,
            optional=True,
            tooltip="Raise it to ask once more for the links that failed; images that are there stay.",
        ),
    ]


NODES = [DownloadLinks]
