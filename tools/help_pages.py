"""Writes the inputs and outputs of the help pages, `web/docs/<node id>.md`, from the nodes' schemas.

    python tools/help_pages.py                            starts the ComfyUI that COMFYUI_PATH names, and asks it
    python tools/help_pages.py http://127.0.0.1:8188      asks the ComfyUI that runs there

They are lists between `<!-- inputs -->` and `<!-- /inputs -->` (or outputs), as ComfyUI's help panel is too narrow for
a table; the rest of a page is written by hand. A node without a page gets an outline to fill in.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checkout import ROOT
from comfy_server import ComfyServer
from workflow_form import Input, inputs_of

from comfy_scoft.experiments.comfy_client import ComfyClient

PAGES = ROOT / "web" / "docs"
PREFIX = "SCoFT_"
SECTIONS = ("When to use it", "Inputs", "Outputs", "Mistakes people make", "For the researcher")
OFFERED = {
    "folder": "a folder in ComfyUI's input folder, or what comes with the pack",
    "links": "a file in ComfyUI's input folder",
    "weights": "`automatic`, a folder of this computer, or a download",
    "checkpoint": "what comes with the pack, or a file of ComfyUI's model folders",
    "resume": "`off`, `latest`, or a run",
    "start_from": "`none`, or a file of ComfyUI's LoRA folders",
    "lora": "a file of ComfyUI's LoRA folders",
    "preference": "a file of ComfyUI's folders",
    "sampler": "one of ComfyUI's samplers",
    "sampler_name": "one of ComfyUI's samplers",
    "scheduler": "one of ComfyUI's schedulers",
}
"""Descriptions of menus whose entries depend on the computer or on ComfyUI's version."""


def takes(entry: Input) -> str:
    """The accepted values: a socket's type, or a widget's range or choices."""
    if not entry.widget:
        return f"`{entry.kind}`"
    if entry.kind in ("INT", "FLOAT"):
        noun = "whole number" if entry.kind == "INT" else "number"
        return f"{noun}, {number(entry.options['min'])} to {number(entry.options['max'])}"
    if entry.kind == "COMBO":
        return OFFERED.get(entry.name) or " · ".join(f"`{choice}`" for choice in entry.options["options"])
    return {"BOOLEAN": "on or off", "STRING": "text"}[entry.kind]


def default(entry: Input) -> str:
    """The default, or for a socket whether it must be connected."""
    if not entry.widget:
        return "may stay open" if entry.optional else "connect it"
    if entry.kind == "COMBO":
        first = "" if entry.name in OFFERED else entry.options["options"][0]
        value = entry.options.get("default", first)
        return f"default `{value}`" if value else "the first is taken"
    value = entry.options["default"]
    if entry.kind == "BOOLEAN":
        return "default on" if value else "default off"
    if entry.kind in ("INT", "FLOAT"):
        return f"default {number(value)}"
    lines = str(value).splitlines()
    return "empty" if not lines else f"default `{lines[0]}`" if len(lines) == 1 else f"{len(lines)} lines"


def number(value: float) -> str:
    """A number as text: 0.0001, 100, 1e-8, and 2⁶⁴ − 1 for the largest seeds."""
    for power, digits in ((64, "⁶⁴"), (53, "⁵³"), (48, "⁴⁸")):
        if value == 2**power - 1:
            return f"2{digits} − 1"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}".replace(",", " ")
    return f"{value:g}".replace("e-0", "e-")


def lists(info: Mapping[str, Any]) -> dict[str, str]:
    """The lists of a node's inputs and outputs."""
    columns = (info[f"output{key}"] for key in ("_name", "", "_is_list", "_tooltips"))
    inputs = [(e.name, f"{takes(e)}; {default(e)}", e.options.get("tooltip", "")) for e in inputs_of(info)]
    outputs = [
        (name, f"`{kind}`" + (" list" if many else ""), tooltip)
        for name, kind, many, tooltip in zip(*columns, strict=True)
    ]
    return {"inputs": "\n".join(map(line, inputs)), "outputs": "\n".join(map(line, outputs))}


def line(entry: tuple[str, str, str | None]) -> str:
    """An entry's name, facts and tooltip on one line, with angle brackets escaped."""
    name, facts, tooltip = entry
    description = " ".join((tooltip or "").split()).replace("<", "&lt;")
    return f"- `{name}` ({facts}): {description}"


def filled(page: str, info: Mapping[str, Any]) -> str:
    """The page with both of its lists replaced. Raises SystemExit if the markers of one are missing."""
    for name, text in lists(info).items():
        section = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.DOTALL)
        if len(section.findall(page)) != 1:
            raise SystemExit(f"The page of {info['name']} needs <!-- {name} --> and <!-- /{name} --> once: add them.")
        page = section.sub(lambda _, n=name, t=text: f"<!-- {n} -->\n\n{t}\n\n<!-- /{n} -->", page)
    return page


def outline(info: Mapping[str, Any]) -> str:
    """An empty page for a new node."""
    name = info["name"]
    parts = [info["description"], f"![{info['display_name']}](pictures/{name}.webp)"]
    for section in SECTIONS:
        parts.append(f"## {section}")
        if section in ("Inputs", "Outputs"):
            parts.append(f"<!-- {section.lower()} -->\n<!-- /{section.lower()} -->")
    return "\n\n".join(parts) + "\n"


def write(info: Mapping[str, Any]) -> None:
    """Writes the lists of every page, and an outline for each missing page."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, node in info.items():
        if not name.startswith(PREFIX):
            continue
        path = PAGES / f"{name}.md"
        new = not path.exists()
        before = outline(node) if new else path.read_text(encoding="utf-8")
        after = filled(before, node)
        if new or after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            print(f"{path.name}: {'an outline to fill in' if new else 'inputs and outputs updated'}")


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0].startswith("http"):
        write(ComfyClient(given[0]).object_info())
        return 0
    if given or not os.environ.get("COMFYUI_PATH"):
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as base:
        with ComfyServer(sys.executable, Path(os.environ["COMFYUI_PATH"]), Path(base)) as server:
            write(server.client.object_info())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
