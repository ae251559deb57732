"""ComfyUI workflows as Python: nodes in groups and columns, written out in the UI form and in the API form.

A workflow is built from left to right: groups, in them columns, in them nodes from top to bottom. Positions follow from
that, so a graph can only be read in the direction in which it runs. What inputs and outputs a node has, in which order
and with which defaults, comes from `schemas` (see `compact`), saved from a running ComfyUI. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from workflow_files import OFFERED

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
TITLE, SLOT, WIDGET, TEXT_WIDGET, LONGEST_TEXT, PREVIEW, CHART = 30, 22, 28, 110, 500, 260, 140
"""Heights in the editor (pixels): title bar, a socket, a widget, a text field (least and most), a preview, the live
chart and the sentence above it."""
GAP, MARGIN, BAND = 50, 30, 60
"""Between nodes; between a group's border and its nodes; between groups."""
SCALE, OFFSET = 0.65, (125, 215)
"""Zoom and position at which the editor opens a workflow: text is drawn (from 0.57 on), and the first group is beside
the page's own bars."""
PREVIEWS = ("SaveImage", "PreviewImage", "SCoFT_PreviewDataset", "SCoFT_TrainLora", "SCoFT_ScoreTable")
PREVIEWS += ("SCoFT_FilterNegatives", "SCoFT_PlotSurvey", "SCoFT_Memorization", "PreviewAny")
TEXTS = ("ReadCard", "SaveLora", "ExportJob", "BuildSurvey", "LoadResponses", "AggregateSurvey", "PlotSurvey")
TEXTS += ("LoadDataset", "DownloadLinks", "CaptionGeneric", "FilterNegatives", "LearnPreference", "LoadPreference")
TEXTS += ("SavePreference",)
GROWS = {f"SCoFT_{name}": 240 for name in TEXTS} | {"SCoFT_BiasOracle": 40}
"""Pixels by which a node grows after a run, for its text (web/text.js) or progress; kept free above the next node."""

Schema = dict[str, Any]


class Input(NamedTuple):
    """An input of a node. kind: its type; options: of the widget, with a menu's entries."""

    name: str
    kind: str
    optional: bool
    options: dict[str, Any]

    @property
    def widget(self) -> bool:
        return self.kind in WIDGETS and not self.options.get("forceInput", False)


def compact(info: Mapping[str, Any]) -> Schema:
    """What workflows need of a node's /object_info: inputs in order with type, default and kind, and outputs."""
    inputs: dict[str, Any] = {}
    for entry in inputs_of(info):
        seed = entry.kind == "INT" and entry.name in ("seed", "noise_seed")
        inputs[entry.name] = {
            "type": entry.kind,
            "widget": entry.widget,
            **({"optional": True} if entry.optional else {}),
            **({"default": entry.options["default"]} if "default" in entry.options else {}),
            **({"multiline": True} if entry.options.get("multiline") else {}),
            **({"control": True} if entry.options.get("control_after_generate", seed) else {}),
        }
    lists = info.get("output_is_list") or [False] * len(info["output"])
    outputs = [
        {"name": name, "type": kind if isinstance(kind, str) else "COMBO", **({"list": True} if many else {})}
        for name, kind, many in zip(info["output_name"], info["output"], lists, strict=True)
    ]
    return {"inputs": inputs, "outputs": outputs, "output_node": bool(info.get("output_node"))}


def inputs_of(info: Mapping[str, Any]) -> list[Input]:
    """The inputs of a node in /object_info, in order, required ones first; a menu is a COMBO."""
    inputs = []
    for part in ("required", "optional"):
        for name in info.get("input_order", {}).get(part, info["input"].get(part, {})):
            kind, *rest = info["input"][part][name]
            options = dict(rest[0]) if rest else {}
            menu = {} if isinstance(kind, str) else {"options": kind}
            inputs.append(Input(name, "COMBO" if menu else kind, part == "optional", options | menu))
    return inputs


@dataclass(frozen=True)
class Socket:
    """An output of a node, for the input of another."""

    node: Node
    slot: int

    @property
    def kind(self) -> str:
        return str(self.node.schema["outputs"][self.slot]["type"])


@dataclass
class Node:
    """A node of a graph. given: its inputs by name, values or Sockets; box: x, y, width and height in the editor."""

    number: int
    kind: str
    title: str
    given: dict[str, Any]
    schema: Schema
    box: list[int] = field(default_factory=list)

    def __getitem__(self, output: str) -> Socket:
        names = [entry["name"] for entry in self.schema["outputs"]]
        assert output in names, f"{self.kind} has no output {output!r}, only {names}"
        return Socket(self, names.index(output))

    def value(self, name: str) -> Any:
        """An input's value or Socket: the given one, else the node's own default; None for an unconnected socket."""
        return self.given.get(name, self.schema["inputs"][name].get("default"))

    def height(self) -> int:
        entries = self.schema["inputs"].values()
        widgets = [entry for entry in entries if entry["widget"]]
        rows = max(len(entries) - len(widgets), len(self.schema["outputs"]), 1)
        texts = [str(self.value(name)) for name, entry in self.schema["inputs"].items() if entry.get("multiline")]
        room = sum(min(LONGEST_TEXT, max(TEXT_WIDGET, 18 * len(value.splitlines()))) for value in texts)
        count = len(widgets) - len(texts) + sum(1 for entry in widgets if entry.get("control"))
        preview = PREVIEW if self.kind in PREVIEWS else 0
        chart = CHART if self.kind == "SCoFT_TrainLora" else 0
        return 16 + rows * SLOT + count * WIDGET + room + preview + chart


@dataclass
class Group:
    """A colored frame with a title, a note at its top, and columns of nodes."""

    title: str
    color: str
    note: Node
    columns: list[list[Node]] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    box: list[int] = field(default_factory=list)


class Workflow:
    """A graph. schemas: `compact` of each node that it uses, by node id."""

    def __init__(self, name: str, schemas: Mapping[str, Schema]) -> None:
        self.name, self.schemas = name, schemas
        self.nodes: list[Node] = []
        self.groups: list[Group] = []

    def group(self, title: str, color: str, note: str, width: int = 300) -> None:
        """Begin the next group to the right with its first column. The title gets the group's number."""
        text = self._node("MarkdownNote", title, {"text": note}, {"inputs": {}, "outputs": []})
        self.groups.append(Group(f"{len(self.groups) + 1} · {title}", color, text))
        self.column(width)

    def column(self, width: int = 300) -> None:
        """Begin the next column of the group."""
        self.groups[-1].columns.append([])
        self.groups[-1].widths.append(width)

    def add(self, kind: str, title: str = "", /, **given: Any) -> Node:
        """Add a node below the last one of the column. Other inputs keep the node's own defaults."""
        assert kind in self.schemas, f"the schema of {kind} is missing: save it from a running ComfyUI first"
        schema = self.schemas[kind]
        unknown = given.keys() - schema["inputs"].keys()
        assert not unknown, f"{kind} has no input {sorted(unknown)}, only {list(schema['inputs'])}"
        node = self._node(kind, title, given, schema)
        for name, entry in schema["inputs"].items():
            value = node.value(name)
            if isinstance(value, Socket):
                fits = entry["type"] in (value.kind, "*")
                assert fits, f"{kind}.{name} takes {entry['type']} and was given {value.kind}"
            else:
                assert value is not None or entry.get("optional"), f"{kind}.{name} is neither given nor connected"
        self.groups[-1].columns[-1].append(node)
        return node

    def _node(self, kind: str, title: str, given: dict[str, Any], schema: Schema) -> Node:
        self.nodes.append(Node(len(self.nodes) + 1, kind, title, given, schema))
        return self.nodes[-1]

    def place(self) -> None:
        """Set the box of every node and group. All groups start at one height; the note spans its group's columns."""
        x = 0
        for group in self.groups:
            width = sum(group.widths) + GAP * (len(group.widths) - 1)
            lines = sum(1 + len(line) * 8 // width for line in _visible(group.note.given["text"]).splitlines())
            group.note.box = [x + MARGIN, 2 * TITLE + MARGIN, width, 60 + 22 * lines]
            group.box = [x, 0, width + 2 * MARGIN, 0]
            x += group.box[2] + BAND
        top = max(g.note.box[1] + g.note.box[3] for g in self.groups) + TITLE + GAP
        deepest = top
        for group in self.groups:
            at = group.box[0] + MARGIN
            for column, width in zip(group.columns, group.widths, strict=True):
                y = top
                for node in column:
                    node.box = [at, y, width, node.height()]
                    y += node.box[3] + TITLE + GAP
                    y += 0 if node is column[-1] else GROWS.get(node.kind, 0)
                deepest = max(deepest, y - TITLE - GAP)
                at += width + GAP
        for group in self.groups:
            group.box[3] = deepest + GAP

    def links(self) -> list[tuple[int, Socket, Node, str]]:
        """(link number, from, to, name of the input), in the order of the nodes that receive them."""
        ends = [(node, name, node.given.get(name)) for node in self.nodes for name in slots(node.schema)]
        joined = [(value, node, name) for node, name, value in ends if isinstance(value, Socket)]
        return [(number, *link) for number, link in enumerate(joined, 1)]

    def api(self) -> dict[str, Any]:
        """What POST /prompt takes: nodes by id, their inputs as values or [id, output]."""
        out = {}
        for node in self.nodes:
            if node.kind == "MarkdownNote":
                continue
            inputs: dict[str, Any] = {}
            for name, entry in node.schema["inputs"].items():
                value = node.value(name)
                if isinstance(value, Socket):
                    inputs[name] = [str(value.node.number), value.slot]
                elif entry["widget"] and value is not None:
                    inputs[name] = value
            title = node.title or node.kind
            out[str(node.number)] = {"class_type": node.kind, "inputs": inputs, "_meta": {"title": title}}
        return out

    def ui(self) -> dict[str, Any]:
        """What the editor loads (version 0.4)."""
        self.place()
        links = self.links()
        return {
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [_ui_node(node, order, links) for order, node in enumerate(self.nodes)],
            "links": [
                [n, start.node.number, start.slot, end.number, slots(end.schema).index(name), start.kind]
                for n, start, end, name in links
            ],
            "groups": [
                {"id": i, "title": g.title, "bounding": g.box, "color": g.color, "font_size": 24, "flags": {}}
                for i, g in enumerate(self.groups, 1)
            ],
            "config": {},
            "extra": {"ds": {"scale": SCALE, "offset": list(OFFSET)}},
            "version": 0.4,
        }


def _visible(markdown: str) -> str:
    """A note's visible text: without the addresses of links and the rule under a table's head."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown).replace("|---", "")


def slots(schema: Schema) -> list[str]:
    """Input names in the order of the editor's slots: sockets first, then widgets (which can be connected too)."""
    return sorted(schema["inputs"], key=lambda name: bool(schema["inputs"][name]["widget"]))


def text(form: Mapping[str, Any]) -> str:
    """A form as the text of its file, with one line per node or link, so that a diff is readable."""
    parts = []
    for key, value in form.items():
        if isinstance(value, list) and value:
            body = ",\n".join("    " + json.dumps(entry, ensure_ascii=False) for entry in value)
            parts.append(f"  {json.dumps(key)}: [\n{body}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _ui_node(node: Node, order: int, links: list[tuple[int, Socket, Node, str]]) -> dict[str, Any]:
    entries = node.schema["inputs"]
    incoming = {name: number for number, _, end, name in links if end is node}
    inputs = []
    for name in slots(node.schema):
        slot = {"name": name, "type": entries[name]["type"], "link": incoming.get(name)}
        slot |= {"shape": 7} if entries[name].get("optional") else {}
        inputs.append(slot | ({"widget": {"name": name}} if entries[name]["widget"] else {}))
    outputs = []
    for i, entry in enumerate(node.schema["outputs"]):
        outgoing = [number for number, start, _, _ in links if start.node is node and start.slot == i]
        shape = {"shape": 6} if entry.get("list") else {}
        outputs.append({"name": entry["name"], "type": entry["type"], "links": outgoing, "slot_index": i, **shape})
    form = {"id": node.number, "type": node.kind, "pos": node.box[:2], "size": node.box[2:], "flags": {}}
    form |= {"order": order, "mode": 0, "inputs": inputs, "outputs": outputs}
    form |= {"title": node.title} if node.title else {}
    note = node.kind == "MarkdownNote"
    form["properties"] = {} if note else {"Node name for S&R": node.kind}
    models = [OFFERED[value] for value in node.given.values() if isinstance(value, str) and value in OFFERED]
    form["properties"] |= {"models": models} if models else {}
    form["widgets_values"] = [node.given["text"]] if note else widgets_values(node)
    return form | ({"color": "#432", "bgcolor": "#000"} if note else {})


def widgets_values(node: Node) -> list[Any]:
    """Values in the order of the editor's widgets; a seed is followed by "fixed": it does not change after a run."""
    values: list[Any] = []
    for name, entry in node.schema["inputs"].items():
        if entry["widget"]:
            value = node.value(name)
            values.append("" if isinstance(value, Socket) else value)
            values += ["fixed"] if entry.get("control") else []
    return values
