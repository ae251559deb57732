"""The demo: runs the shipped workflow in a ComfyUI over HTTP, shows what happens, and fetches images and figures."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .comfy_client import ComfyClient, ComfyError, Prompt

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "api" / "train-cultural-lora-mini.json"
TEXT_EVENT = 3
"""ComfyUI's number of the binary message that carries a node's line of text."""
PAUSE = 10.0
"""Seconds between two progress lines of one node."""
WORTH_SAYING = 1.0
"""Seconds that a node must have taken to be named."""
DONE = ("execution_success", "execution_error", "execution_interrupted")
TIMES = {
    "negatives": ("SCoFT_EstimateDepth", "SCoFT_MakeNegatives"),
    "training": ("SCoFT_TrainLora",),
    "drawing": ("SCoFT_GenerateSet",),
    "measuring": ("SCoFT_BiasOracle",),
}
PICTURES = {
    "before-after.png": ("SaveImage", "Before and after"),
    "training.png": ("SCoFT_TrainLora", ""),
    "figures.png": ("SCoFT_ScoreTable", ""),
    "negatives.png": ("SCoFT_PreviewDataset", ""),
}
"""File -> node (kind, and title where the kind has several) that shows it."""
PLACES = {
    "nuvia": "in nuvia, the place that was learned",
    "borea": "in borea, another place (leakage)",
    "no place": "no place (leakage)",
}
COLUMNS = ("before", "after", "change")
Figures = dict[str, dict[str, dict[str, dict[str, float]]]]
"""place -> figure -> before, after or change -> value, low, high, n."""


def load(workflow: Path, steps: int | None = None, images_per_prompt: int | None = None) -> Prompt:
    """The workflow's API form, with the settings that were given instead of its own."""
    prompt: Prompt = json.loads(workflow.read_bytes())
    for node in prompt.values():
        if steps is not None and node["class_type"] == "SCoFT_TrainLora":
            node["inputs"]["steps"] = steps
        if images_per_prompt is not None and node["class_type"] == "SCoFT_GenerateSet":
            node["inputs"]["images_per_prompt"] = images_per_prompt
    return prompt


@dataclass
class Timeline:
    """Which node works, since when, and how long each took: fed with the server's messages."""

    prompt: Prompt
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    prompt_id: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    _node: str = ""
    _since: float = 0.0
    _said: float = 0.0

    def message(self, kind: str, data: dict[str, Any]) -> bool:
        """Take a JSON message; True when the prompt has ended."""
        if data.get("prompt_id") != self.prompt_id:
            return False
        if kind == "executing" or kind in DONE:
            self._start(str(data.get("node") or "") if kind == "executing" else "")
        return kind in DONE

    def text(self, node: str, text: str) -> None:
        """Take a node's line of text."""
        if node == self._node and self.clock() - self._said >= PAUSE:
            self._said = self.clock()
            self.say(f"{self._name()} · {self._said - self._since:.0f} s · {text}")

    def _start(self, node: str) -> None:
        now = self.clock()
        if node == self._node:
            return
        if self._node:
            self.seconds[self._node] = self.seconds.get(self._node, 0.0) + now - self._since
            if self.seconds[self._node] >= WORTH_SAYING:
                self.say(f"{self._name()} · done in {self.seconds[self._node]:.0f} s")
        self._node, self._since, self._said = node, now, now

    def _name(self) -> str:
        """How many nodes have run, and what the present one is called."""
        count = len(self.seconds.keys() | {self._node})
        return f"[{count}/{len(self.prompt)}] {title(self.prompt[self._node]) if self._node in self.prompt else ''}"


def title(node: dict[str, Any]) -> str:
    return str(node.get("_meta", {}).get("title") or node["class_type"])


async def follow(client: ComfyClient, prompt: Prompt, say: Callable[[str], None], timeout: float) -> Timeline:
    """Queue the prompt and report until it ends. Raises ComfyError when nothing is heard for `timeout` s."""
    import aiohttp  # ComfyUI's own requirement

    timeline = Timeline(prompt, say)
    address = client.url.replace("http", "ws", 1) + f"/ws?clientId={client.client_id}"
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            timeline.prompt_id = await asyncio.to_thread(client.queue, prompt)
            ended = False
            while not ended:
                message = await socket.receive(timeout)
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    ended = timeline.message(str(event.get("type")), event.get("data") or {})
                elif message.type == aiohttp.WSMsgType.BINARY:
                    timeline.text(*node_text(message.data))
                else:
                    raise ComfyError("ComfyUI ended the connection while the workflow was running; look at its log.")
    except aiohttp.ClientError as error:
        raise ComfyError(f"ComfyUI at {client.url} does not answer ({error}); start it and try again.") from error
    except asyncio.TimeoutError as error:
        raise ComfyError(f"ComfyUI has said nothing for {timeout:.0f} seconds; look at its log.") from error
    return timeline


def node_text(data: bytes) -> tuple[str, str]:
    """Node and text of a binary message; two empty strings for one that carries an image."""
    if len(data) < 8 or struct.unpack(">I", data[:4])[0] != TEXT_EVENT:
        return "", ""
    size = struct.unpack(">I", data[4:8])[0]
    return data[8 : 8 + size].decode(errors="replace"), data[8 + size :].decode(errors="replace")


def fetch(client: ComfyClient, prompt: Prompt, run: Timeline, out: Path, base: Path | None) -> dict[str, Any]:
    """Write images, figures.csv and results.json to `out`; returns what results.json holds."""
    outputs = client.wait(run.prompt_id, timeout=60.0)["outputs"]
    out.mkdir(parents=True, exist_ok=True)
    for name, (kind, wanted) in PICTURES.items():
        for number in of_kind(prompt, kind, wanted):
            for image in outputs.get(number, {}).get("images", [])[:1]:
                (out / name).write_bytes(client.view(image))
    text = shown_text(outputs, of_kind(prompt, "SCoFT_ScoreTable"))
    if not text:
        raise ComfyError("The workflow ended without figures: its Score Table has shown none.")
    (out / "figures.csv").write_text(text, encoding="utf-8")
    lora = shown_text(outputs, of_kind(prompt, "SCoFT_SaveLora")).splitlines()[:1]
    folder = base / "output" / "loras" if base else Path("output") / "loras"
    results = {
        "figures": figures(text),
        "seconds": times(prompt, run.seconds),
        "lora": str(folder / lora[0]) if lora else "",
        "settings": {
            title(node): {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}
            for node in prompt.values()  # lists are connections
        },
    }
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def of_kind(prompt: Prompt, kind: str, wanted: str = "") -> list[str]:
    """Ids of the nodes of a kind, of those with a title where one is given."""
    return [n for n, node in prompt.items() if node["class_type"] == kind and wanted in ("", title(node))]


def shown_text(outputs: dict[str, Any], nodes: Iterable[str]) -> str:
    """The text that the first of the nodes shows, or ""."""
    return next((text for node in nodes for text in outputs.get(node, {}).get("text", [])), "")


def figures(text: str) -> Figures:
    """The Score Table's text by place, figure and column; groups are named "<before|after|change> · <place>"."""
    found: Figures = {}
    for row in csv.DictReader(io.StringIO(text)):
        column, place = row["group"].rsplit(" · ", 1)
        numbers = {key: float(row[key]) for key in ("value", "low", "high", "n")}
        found.setdefault(place, {}).setdefault(row["name"], {})[column] = numbers
    return found


def times(prompt: Prompt, seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by kind of work, and all together."""
    found = {
        name: round(sum(seconds.get(node, 0.0) for kind in kinds for node in of_kind(prompt, kind)), 1)
        for name, kinds in TIMES.items()
    }
    return found | {"total": round(sum(seconds.values()), 1)}


def table(results: dict[str, Any]) -> list[str]:
    """The figures as lines: each place with its figures before and after, the change, and 95 % intervals."""
    lines = [f"{'held-out kinds of people':26}" + "".join(f"{column:>22}" for column in COLUMNS)]
    for place, rows in results["figures"].items():
        count = max(int(cell["n"]) for row in rows.values() for cell in row.values())
        lines.append(f"{PLACES.get(place, place)}, {count} images each")
        for name, row in rows.items():
            lines.append(f"  {name:24}" + "".join(f"{_cell(row.get(column), column):>22}" for column in COLUMNS))
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in results["seconds"].items())
    return [*lines, f"LoRA: {results['lora']}", f"times: {spent}"]


def _cell(found: dict[str, float] | None, column: str) -> str:
    if found is None:
        return "–"
    sign = "+" if column == "change" else ""
    return "{value:{0}.2f} [{low:{0}.2f}, {high:{0}.2f}]".format(sign, **found)
