"""What the chart on the Train LoRA node is told: few points, the whole run every time, not too often."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_nodes_training import KNOBS, place, sockets  # noqa: F401  (fixtures)

from comfy_scoft.comfyui import live_chart, runtime
from comfy_scoft.comfyui.nodes import training as nodes_training
from comfy_scoft.training import run_folder as runs

PAGE = {"workflow": {"id": "a-graph", "nodes": []}}
Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What a page would get of the pack's own event."""
    found: Told = []
    server = SimpleNamespace(
        send_sync=lambda event, data, sid=None: found.append((event, data)) if isinstance(event, str) else None,
        send_progress_text=lambda text, node_id, sid=None: None,
        client_id=None,
        last_node_id="9",
    )
    monkeypatch.setattr(runtime, "PromptServer", SimpleNamespace(instance=server))
    return found


def train(sockets: dict, page: Any = PAGE, **changes: Any) -> Any:  # noqa: F811
    hidden = SimpleNamespace(unique_id="9", prompt={}, extra_pnginfo=page)
    ready = type("TrainLora", (nodes_training.TrainLora,), {"hidden": hidden})
    with torch.inference_mode():
        return ready.execute(**{**sockets, **KNOBS, "run_name": "run", "resume": "off", **changes})


def events(told: Told) -> list[dict[str, Any]]:
    assert {event for event, _ in told} <= {live_chart.EVENT}
    json.dumps([data for _, data in told], allow_nan=False)
    return [data for _, data in told]


# --- curves ------------------------------------------------------------------------------------------------------


def test_a_long_curve_is_means_over_equal_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_chart, "POINTS", 4)
    curve = live_chart.Curve()
    for step, value in enumerate([1.0, 3.0, 5.0], start=1):
        curve.add(step, value)
    assert curve.series() == ([1, 2, 3], [1, 3, 5])
    curve.add(4, 7.0)  # the fourth is one too many: pairs from now on
    assert curve.series() == ([1.5, 3.5], [2, 6])
    curve.add(5, 10.0)
    assert curve.series() == ([1.5, 3.5, 5], [2, 6, 10])
    curve.add(6, 20.0)
    assert curve.series() == ([1.5, 3.5, 5.5], [2, 6, 15])


@pytest.mark.parametrize("count", [1, live_chart.POINTS - 1, live_chart.POINTS, live_chart.POINTS + 1, 1000, 12_345])
def test_a_curve_keeps_its_mean_and_its_ends_and_stays_short(count: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(count)).tolist()
    curve = live_chart.Curve()
    for step, value in enumerate(values, start=1):
        curve.add(step, value)
    steps, means = curve.series()
    assert len(steps) == len(means) <= live_chart.POINTS and steps == sorted(steps)
    weights = [curve.stretch] * len(curve.points) + ([len(curve.open)] if curve.open else [])
    assert sum(weights) == count
    mean = sum(w * m for w, m in zip(weights, means, strict=True)) / count
    assert mean == pytest.approx(sum(values) / count, rel=1e-4)
    assert steps[0] == pytest.approx((1 + weights[0]) / 2) and steps[-1] == pytest.approx(
        count - (weights[-1] - 1) / 2, rel=1e-4
    )


def test_what_is_no_number_is_left_out_of_a_curve() -> None:
    curve = live_chart.Curve()
    for step, value in enumerate([1.0, float("nan"), float("inf"), 2.0]):
        curve.add(step, value)
    assert curve.series() == ([0, 3], [1, 2])


def test_a_picture_of_a_million_steps_is_small() -> None:
    names = ("diffusion", "memorization", "perceptual", "contrastive")
    rows = ({"step": step, **dict.fromkeys((*names, "validation"), 1 / step)} for step in range(1, 100_001))
    told = live_chart.of_rows("run", names, rows, 1_000_000)
    assert len(json.dumps(told)) < 20_000 and told["step"] == 100_000
    assert [curve["name"] for curve in told["curves"]] == [*names, "validation"]


# --- events ------------------------------------------------------------------------------------------------------


def clocked(monkeypatch: pytest.MonkeyPatch, told: Told) -> tuple[live_chart.LiveChart, Callable[[float], None]]:
    """A run that is followed, and a clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(live_chart.time, "monotonic", lambda: now[0])
    chart = live_chart.LiveChart("run", 1000, ["diffusion"], "9", "a-graph")
    return chart, lambda at: now.__setitem__(0, 100 + at)


def test_events_come_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    run, at = clocked(monkeypatch, told)
    for tenth in range(100):  # ten seconds of ten steps a second, each with five calls of the UNet
        at(tenth / 10)
        run.add({"step": tenth, "diffusion": 1.0})
        for _ in range(5):
            run.beat()
    assert 18 <= len(told) <= 20
    assert told[-1][1]["step"] > 90


def test_a_slow_step_tells_a_new_page_what_was_before_it(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    run, at = clocked(monkeypatch, told)
    run.beat()
    assert not told, "nothing is drawn yet"
    run.add({"step": 1, "diffusion": 1.0})
    for second in range(21):
        at(second)
        run.beat()
    assert len(told) == 5 and all(data == told[0][1] for _, data in told)


def test_a_run_tells_its_page_and_ends_with_what_the_node_keeps(place: Any, sockets: dict, told: Told) -> None:  # noqa: F811
    output = train(sockets, steps=3)
    found = events(told)
    assert {(data["node"], data["workflow"], data["run"]) for data in found} == {("9", "a-graph", "run")}
    assert [data["state"] for data in found] == ["running"] * (len(found) - 1) + ["done"]
    (kept,) = output.ui[live_chart.OUTPUT]
    assert {**found[-1], **kept} == found[-1] and kept["step"] == kept["steps"] == 3
    rows = [row for row in runs.read_metrics(place / "output" / "scoft" / "runs" / "run") if "diffusion" in row]
    assert kept["curves"][0]["values"] == pytest.approx([row["diffusion"] for row in rows], rel=1e-4)
    assert [curve["name"] for curve in kept["curves"]] == ["diffusion", "memorization", "contrastive"]
    assert output.ui["images"], "the chart is there as an image too"


@pytest.mark.long
def test_without_a_page_nothing_is_told_and_all_is_kept(place: Any, sockets: dict, told: Told) -> None:  # noqa: F811
    assert train(sockets, None, steps=1).ui[live_chart.OUTPUT][0]["step"] == 1
    assert not told


def test_a_graph_has_the_identity_that_the_page_gave_it() -> None:
    assert live_chart.workflow_id(PAGE) == "a-graph"
    assert [live_chart.workflow_id(page) for page in (None, {}, {"workflow": {}}, {"workflow": None})] == [None] * 4


@pytest.mark.long
def test_a_run_that_goes_on_shows_the_steps_from_before(place: Any, sockets: dict, told: Told) -> None:  # noqa: F811
    train(sockets)
    before = events(told)[-1]["curves"][0]
    told.clear()
    train(sockets, resume="run", steps=2)  # finished already: what there is comes back
    assert events(told)[-1]["state"] == "done" and events(told)[-1]["curves"][0] == before


@pytest.mark.long
def test_a_run_that_is_stopped_says_so(
    place: Any,  # noqa: F811
    sockets: dict,  # noqa: F811
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(self: Any, step: int, row: dict) -> None:
        observe(self, step, row)
        if step >= 2:
            raise KeyboardInterrupt

    lines: list[str] = []
    monkeypatch.setattr(runtime.Progress, "say", lambda self, text: lines.append(text))
    observe = nodes_training.training.TrainingProgress.on_step
    monkeypatch.setattr(nodes_training.training.TrainingProgress, "on_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(sockets, steps=4)
    assert events(told)[-1]["state"] == "stopped" and events(told)[-1]["step"] == 2
    assert (events(told)[-1]["saved"], events(told)[-1]["resume"]) == (2, "latest"), "the page's own sentence"
    assert all("saved" not in data for data in events(told)[:-1])
    assert lines[-1] == "Stopped at step 2 and saved. Set resume to latest to go on."
    with pytest.raises(KeyboardInterrupt):
        train(sockets, steps=4, resume="run")
    assert lines[-1] == "Stopped at step 3 and saved. Set resume to run to go on.", "latest may be another run by now"
    told.clear()
    monkeypatch.setattr(nodes_training.training.TrainingProgress, "on_step", observe)
    train(sockets, steps=4, resume="run")
    assert all(data["curves"][0]["steps"][:2] == [1, 2] for data in events(told)), "the whole run, from its beginning"
    assert events(told)[-1]["step"] == 4


def test_a_run_that_is_stopped_before_its_first_step_says_that_nothing_is_saved(
    place: Any,  # noqa: F811
    sockets: dict,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    lines: list[str] = []
    monkeypatch.setattr(runtime.Progress, "say", lambda self, text: lines.append(text))
    monkeypatch.setattr(nodes_training.training, "prepare", stop)
    with pytest.raises(KeyboardInterrupt):
        train(sockets)
    assert lines[-1] == "Stopped before the first step. Nothing is saved."
    assert not list((place / "output" / "scoft" / "runs").iterdir())
