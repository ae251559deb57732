"""ComfyUI's versions: the floor is tested at every run, a newer one has been tried and what was seen is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_registry import COMFY

ROOT = Path(__file__).resolve().parent.parent
RECORD = json.loads((ROOT / "tests" / "recorded" / "records" / "comfyui_versions.json").read_text(encoding="utf-8"))
FILES = ("nodes_training", "end_to_end", "page_editor", "page_run", "native_live", "locales_page")
TESTS = [f"tests/test_{name}.py" for name in FILES]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_the_record_is_of_a_newer_comfyui_than_the_floor_and_without_a_failure() -> None:
    floor = COMFY["requires-comfyui"].removeprefix(">=")
    assert numbers(RECORD["comfyui"]) > numbers(floor) and RECORD["failed"] == 0 < RECORD["passed"]
    assert all(test in RECORD["command"] for test in TESTS)


@pytest.mark.recorded
def test_a_newer_comfyui_passes_what_the_record_says() -> None:
    """Set NEWER_COMFYUI_PATH to a ComfyUI whose requirements are installed: the tests run again with that one."""
    path = os.environ.get("NEWER_COMFYUI_PATH", "")
    assert path, "Set NEWER_COMFYUI_PATH to the folder of a ComfyUI that is newer than the floor."
    command = [sys.executable, "-m", "pytest", *TESTS, "-m", "not recorded", "-p", "no:cacheprovider"]
    environment = {**os.environ, "COMFYUI_PATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-4000:]
