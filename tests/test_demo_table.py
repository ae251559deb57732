"""The demo's part that needs no server: what it makes of ComfyUI's messages, and the lines it ends with."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from comfy_scoft.cli.demo import main
from comfy_scoft.experiments import demo
from comfy_scoft.metrics.scores import Score, Scores

ROWS = tuple(
    Score(name, f"{column} · {place}", value, value - 0.05, value + 0.05, 108)
    for place, values in {"nuvia": (0.1, 0.9, 0.8), "borea": (0.6, 0.7, 0.1), "no place": (0.5, 0.5, 0.0)}.items()
    for name in ("dark skin", "gold palette")
    for column, value in zip(("before", "after", "change"), values, strict=True)
)


def test_the_table_shows_each_place_before_and_after_with_intervals() -> None:
    results = {
        "figures": demo.figures(Scores(ROWS).csv()),
        "seconds": {"negatives": 41.4, "training": 100.6, "total": 200.0},
        "lora": "output/loras/nuvia.safetensors",
    }
    assert demo.table(results) == [
        "held-out kinds of people                  before                 after                change",
        "in nuvia, the place that was learned, 108 images each",
        "  dark skin                    0.10 [0.05, 0.15]     0.90 [0.85, 0.95]  +0.80 [+0.75, +0.85]",
        "  gold palette                 0.10 [0.05, 0.15]     0.90 [0.85, 0.95]  +0.80 [+0.75, +0.85]",
        "in borea, another place (leakage), 108 images each",
        "  dark skin                    0.60 [0.55, 0.65]     0.70 [0.65, 0.75]  +0.10 [+0.05, +0.15]",
        "  gold palette                 0.60 [0.55, 0.65]     0.70 [0.65, 0.75]  +0.10 [+0.05, +0.15]",
        "no place (leakage), 108 images each",
        "  dark skin                    0.50 [0.45, 0.55]     0.50 [0.45, 0.55]  +0.00 [-0.05, +0.05]",
        "  gold palette                 0.50 [0.45, 0.55]     0.50 [0.45, 0.55]  +0.00 [-0.05, +0.05]",
        "LoRA: output/loras/nuvia.safetensors",
        "times: negatives 41 s, training 101 s, total 200 s",
    ]


def test_nodes_are_named_and_timed_as_the_server_reports_them() -> None:
    now, said = [0.0], []
    prompt = {
        "1": {"class_type": "SCoFT_MakeNegatives", "inputs": {}, "_meta": {"title": "Draw"}},
        "2": {"class_type": "SCoFT_TrainLora", "inputs": {}},
    }
    timeline = demo.Timeline(prompt, said.append, lambda: now[0], "p")
    events = [(0, "1"), (5, "2"), (9, None)]
    for at, node in events:
        now[0] = at
        assert not timeline.message("executing", {"prompt_id": "p", "node": node})
        now[0] = at + 0.5
        assert not timeline.message("executing", {"prompt_id": "another", "node": "1"})
        timeline.text("2", "too soon to say")
    assert timeline.message("execution_success", {"prompt_id": "p"})
    assert timeline.seconds == {"1": 5.0, "2": 4.0}
    assert said == ["[1/2] Draw · done in 5 s", "[2/2] SCoFT_TrainLora · done in 4 s"]
    assert demo.times(prompt, timeline.seconds) == {
        **{"negatives": 5.0, "training": 4.0, "drawing": 0.0, "measuring": 0.0, "total": 9.0}
    }


def test_a_long_node_is_heard_every_ten_seconds() -> None:
    now, said = [0.0], []
    timeline = demo.Timeline({"7": {"class_type": "X", "inputs": {}}}, said.append, lambda: now[0], "p")
    timeline.message("executing", {"prompt_id": "p", "node": "7"})
    for second in range(1, 26):
        now[0] = second
        timeline.text("7", f"step {second}")
        timeline.text("8", "another node")
    assert said == ["[1/1] X · 10 s · step 10", "[1/1] X · 20 s · step 20"]


def test_a_line_of_text_is_told_from_a_preview() -> None:
    body = struct.pack(">II", demo.TEXT_EVENT, 2) + b"12" + "Schritt 3 · gut".encode()
    assert demo.node_text(body) == ("12", "Schritt 3 · gut")
    assert demo.node_text(struct.pack(">II", 1, 1) + b"jpeg") == demo.node_text(b"") == ("", "")


def test_steps_and_pictures_can_be_cut_for_a_quick_look() -> None:
    prompt = demo.load(demo.WORKFLOW, steps=3, images_per_prompt=2)
    by_kind = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert by_kind["SCoFT_TrainLora"]["steps"] == 3 and by_kind["SCoFT_GenerateSet"]["images_per_prompt"] == 2
    own = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))
    assert demo.load(demo.WORKFLOW) == own
    for kind, wanted in demo.PICTURES.values():
        assert len(demo.of_kind(own, kind, wanted)) == 1


@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "localhost:8188"])
def test_without_a_server_it_says_so_in_one_sentence(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--server", server, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("The demo failed: ") and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
