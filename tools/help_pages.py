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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tools"):
    if str(place) not in sys.path:
        sys.path.append(str(place))

import workflow_form  # noqa: E402  (needs the path above)
from comfy_server import ComfyServer  # noqa: E402

from comfy_scoft.experiments.comfy_client import ComfyClient  # noqa: E402

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


@dataclass(frozen=True)
class Input:
    """An input of a node. kind: its type; options: of the widget, with a menu's entries."""

    name: str
    kind: str
    optional: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def widget(self) -> bool:
        return self.kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") and not self.options.get("forceInput")

    def takes(self) -> str:
        """The accepted values: a socket's type, or a widget's range or choices."""
        if not self.widget:
            return f"`{self.kind}`"
        if self.kind in ("INT", "FLOAT"):
            noun = "whole number" if self.kind == "INT" else "number"
            return f"{noun}, {number(self.options['min'])} to {number(self.options['max'])}"
        if self.kind == "COMBO":
            return OFFERED.get(self.name) or " · ".join(f"`{entry}`" for entry in self.options["options"])
        return {"BOOLEAN": "on or off", "STRING": "text"}[self.kind]

    def default(self) -> str:
        """The default, or for a socket whether it must be connected."""
        if not self.widget:
            return "may stay open" if self.optional else "connect it"
        if self.kind == "COMBO":
            entries = self.options.get("options") or [""]
            value = self.options.get("default", "" if self.name in OFFERED else entries[0])
            return f"default `{value}`" if value else "the first is taken"
        value = self.options["default"]
        if self.kind == "BOOLEAN":
            return "default on" if value else "default off"
        if self.kind in ("INT", "FLOAT"):
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


def inputs_of(info: Mapping[str, Any]) -> list[Input]:
    """The inputs of a node in /object_info, in order, required ones first."""
    return [Input(*entry) for entry in workflow_form.inputs_of(info)]


def inputs_list(info: Mapping[str, Any]) -> str:
    return "\n".join(
        line(entry.name, f"{entry.takes()}; {entry.default()}", entry.options.get("tooltip", ""))
        for entry in inputs_of(info)
    )


def outputs_list(info: Mapping[str, Any]) -> str:
    lists = info.get("output_is_list") or [False] * len(info["output"])
    return "\n".join(
        line(name, f"`{kind}`" + (" list" if many else ""), tooltip or "")
        for name, kind, many, tooltip in zip(
            info["output_name"], info["output"], lists, info["output_tooltips"], strict=True
        )
    )


def line(name: str, facts: str, tooltip: str) -> str:
    """One entry of a list, on one line, with angle brackets escaped."""
    description = " ".join(tooltip.split()).replace("<", "&lt;")
    return f"- `{name}` ({facts}): {description}"


def lists(info: Mapping[str, Any]) -> dict[str, str]:
    return {"inputs": inputs_list(info), "outputs": outputs_list(info)}


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


def ours(info: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((name, node) for name, node in info.items() if name.startswith(PREFIX))


def write(info: Mapping[str, Any]) -> None:
    """Writes the lists of every page, and an outline for each missing page."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, node in ours(info):
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
