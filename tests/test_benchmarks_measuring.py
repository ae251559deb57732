"""The benchmarks: what measures measures, is not done twice, and is told with its spread."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks import cases, full_shape, measure, report
from benchmarks.measure import Parts, Peak, driven, ratio

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parent.parent


# --- measuring ---


def test_driven_loops_take_turns_and_their_faults_come_through() -> None:
    log: list[str] = []
    before = set(threading.enumerate())

    def body(name: str, last: int) -> Any:
        def loop(pause: measure.Pause) -> None:
            for i in range(last):
                log.append(f"{name}{i}")
                pause()
            raise ValueError(f"{name} is done")

        return loop

    with driven([body("a", 2), body("b", 9)], CPU) as (a, b):
        for loop in (a, b, a, b):
            assert loop.block() >= 0
        assert log == ["a0", "b0", "a1", "b1"]
        with pytest.raises(ValueError, match="a is done"):
            a.block()
    assert log == ["a0", "b0", "a1", "b1"], "a loop that is not wanted any more goes no further"
    assert set(threading.enumerate()) <= before


def test_operations_are_counted_for_one_block_in_the_loops_own_thread() -> None:
    weight = torch.ones(3, 5)

    def body(pause: measure.Pause) -> None:
        while True:
            torch.ones(2, 3) @ weight
            pause()

    with driven([body], CPU) as (loop,):
        loop.block()
        assert loop.operations() == loop.operations() == 2 * 2 * 3 * 5
        loop.block()


def test_time_by_part_counts_each_instant_once_for_the_innermost() -> None:
    class Work:
        def outer(self) -> None:
            time.sleep(0.05)
            self.inner()

        def inner(self) -> None:
            time.sleep(0.1)

    work, parts = Work(), Parts(CPU)
    start = time.perf_counter()
    with parts.watching([(work, "outer", "outer"), (work, "inner", lambda: "inner")]):
        work.outer()
        time.sleep(0.02)
    whole = time.perf_counter() - start
    assert set(parts.seconds) == {"outer", "inner", "other"}
    assert parts.seconds["outer"] >= 0.05 and parts.seconds["inner"] >= 0.1 and parts.seconds["other"] >= 0.02
    assert sum(parts.seconds.values()) <= whole
    work.inner()
    assert parts.seconds["inner"] < whole, "what is not watched is not counted"


def test_a_ratio_is_the_median_of_those_of_rounds() -> None:
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])  # 2, 3, 4
    assert (found["median"], found["least"], found["most"]) == (3.0, 2.0, 4.0)
    assert found["least"] <= found["low"] <= found["median"] <= found["high"] <= found["most"]
    assert ratio([1.0] * 5, [2.0] * 5) == dict.fromkeys(("median", "least", "most", "low", "high"), 0.5)


def test_peak_memory_is_that_between_its_ends() -> None:
    held = bytearray(300_000_000)
    del held
    peak = Peak(CPU)
    held = bytearray(100_000_000)
    del held
    assert 95e6 < peak.read() < 200e6


# --- the command ---


def test_what_is_known_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One case after the other, each kept as soon as it is there; other code or other rounds are done anew."""
    asked: list[list[str]] = []

    def child(given: list[str]) -> Any:
        asked.append(list(given))
        if "plain" in given and len(asked) == 2:
            raise SystemExit("failed")
        return 2_000_000 if "--memory" in given else measured()

    monkeypatch.setattr(command_line, "_child", child)
    given = ["--world", "mini", "--short", "--out", str(tmp_path), "--case", "rollout", "--case", "plain"]
    with pytest.raises(SystemExit, match="failed"):
        command_line.main(given)
    assert set(report.load(tmp_path)) == {"mini rollout"}, "the case that was done is kept"
    assert command_line.main(given) == 0 and len(asked) == 3 and asked[2][:2] == ["--case", "plain"]
    assert set(report.load(tmp_path)) == {"mini rollout", "mini plain"}
    assert command_line.main(given) == 0 and len(asked) == 3
    command_line.main([*given, "--rounds", "3"])
    assert len(asked) == 5
    monkeypatch.setattr(report, "code_digest", lambda: "other")
    command_line.main([*given, "--rounds", "3"])
    assert len(asked) == 7
    command_line.main([*given, "--rounds", "3", "--fresh"])
    assert len(asked) == 9
    without = [item for item in given if item != "--short"]
    command_line.main([*without[:-2], "--rounds", "3"])
    assert [item[-2:] for item in asked[10:]] == [["--memory", "one"], ["--memory", "two"]]
    assert report.load(tmp_path)["mini rollout"]["peak memory"] == {"one": 2_000_000, "two": 2_000_000}
    (tmp_path / report.RESULTS).write_text("{half", encoding="utf-8")
    assert report.load(tmp_path) == {}


def measured() -> dict[str, Any]:
    """A case as a child process answers it."""
    one = {"seconds": [1.0, 2.0, 3.0], "once": {"texts": 3.0}, "operations": 4e9, "parts": {"UNet": 0.5, "other": 0.25}}
    one |= {"calls": 27.2, "samples": 27.2, "calls with gradient": 4.0, "samples with gradient": 4.0}
    two = {**one, "seconds": [0.5, 0.5, 1.0], "once": {}, "operations": 2e9, "calls": 9.6, "parts": {"other": 0.1}}
    found = {"one": one, "two": two}
    return {
        "title": "A case",
        "world": "a toy",
        "precision": "fp32",
        "device": "cpu",
        "pictures": 6,
        "steps in a block": 5,
        "rounds": 3,
        "variants": found,
        "comparisons": [cases._compared(cases.Comparison("one", "two", 3.5), found)],
        "machine": report.machine(),
        "command": "python run.py bench",
    }


def test_the_page_tells_ratios_counts_parts_and_the_machine_but_neither_its_name_nor_folders() -> None:
    page = report.page({"mini case": {**measured(), "peak memory": {"one": 2_000_000, "two": 1_500_000}}})
    # ratios of the rounds 2, 4, 3; with a thousandth of a second more for what is done once
    assert "| one / two | **3.00** | 2.00 to 4.00 | 2.00 to 4.00 | 3.00 | 2.00 | 3.5: **missed** |" in page
    assert "| one | 2.0000 | 27.2 | 4.0 | 27.2 | 4.0 | 2 | texts 3.00 |" in page
    assert "| UNet | 500.0 |  |" in page and "| other | 250.0 | 100.0 |" in page
    assert "**None of this was run on a GPU.**" in page and "torch" in page
    assert "run on a GPU" not in report.page({"x": {**measured(), "device": "cuda"}})
    for secret in (str(Path.home()), str(ROOT), platform.node()):
        assert not secret or secret not in page


@pytest.mark.long
def test_operations_at_full_size_are_those_that_the_method_states(tmp_path: Path) -> None:
    """34.4 and 25.6 TFLOP an optimizer step; the design counted other small parts (a ViT, no backward to weights)."""
    found = full_shape.operations()
    sums = {name: sum(parts.values()) / 1e12 for name, parts in found.items()}
    assert sums["released"] == pytest.approx(34.4, rel=0.03)
    assert sums[cases.PAPER] == pytest.approx(25.6, rel=0.03)
    assert sums[cases.PAPER] < sums[cases.SAME] < sums["released"]
    assert command_line.main(["--case", "operations", "--out", str(tmp_path)]) == 0
    assert f"**{sums['released']:.1f}**" in (tmp_path / report.PAGE).read_text(encoding="utf-8")


def test_a_missed_target_is_said_to_be_missed() -> None:
    spread = dict.fromkeys(("median", "least", "most", "low", "high"), 1.4)
    base = {"slow": "a", "fast": "b", "ratio": spread, "ratio with what is done once": 1.3, "ratio of operations": 1.2}
    assert report._verdict({**base, "target": 1.5}) == "1.5: **missed**"
    assert report._verdict({**base, "target": 1.4}) == "1.4: reached"
    assert report._verdict({**base, "target": None}) == ""


@pytest.mark.recorded
def test_cases_of_each_kind_run_from_end_to_end(comfyui_path: Path, tmp_path: Path) -> None:
    """Loops of each kind in processes of their own, at Stable Diffusion 1.5's structure; and the peak of one."""
    kinds = ("rollout", "plain-accumulated", "plain-batch", "operations")
    out = ["--threads", "1", "--out", str(tmp_path), "--world", "sd15-tiny"]
    given = [sys.executable, "-m", "benchmarks", "--short", "--rounds", "1", *out]
    given += [part for kind in kinds for part in ("--case", kind)]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stderr
    results = report.load(tmp_path)
    assert set(results) == {"operations", *(f"sd15-tiny {kind}" for kind in kinds[:3])}
    found = results["sd15-tiny rollout"]["variants"]
    assert found[cases.REBUILT]["parts"]["building VGG16"] > 0 and "building VGG16" not in found[cases.SAME]["parts"]
    del results["operations"]
    for case in results.values():
        assert case["rounds"] == 1
        for one in case["variants"].values():
            assert len(one["seconds"]) == 1 and one["seconds"][0] > 0 and one["operations"] > 1e8
    plain = {key: results[f"sd15-tiny {key}"]["variants"] for key in kinds[1:3]}
    assert [v[cases.CORE]["samples"] for v in plain.values()] == [4.0, 16.0]
    assert [v[cases.ATTENTION]["samples"] for v in plain.values()] == [4.0, 4.0]
    assert (tmp_path / report.PAGE).read_text(encoding="utf-8") in done.stdout
    assert cases.peak_memory("rollout", "sd15-tiny", cases.PAPER, images=6) > 0
