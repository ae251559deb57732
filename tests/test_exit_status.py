"""How a command ends: one sentence for a person's mistake, a traceback for anything else, and Ctrl-C."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_scoft.__main__ import main
from comfy_scoft.cli.exit_status import answered
from comfy_scoft.common.errors import NonFiniteLoss, OtherProcess, UserError

ROOT = Path(__file__).resolve().parent.parent
VERB = """
import sys, torch
from comfy_scoft import __main__ as program
from comfy_scoft.cli import train as verb
def train(options):
    torch.optim.AdamW([])  # ValueError of torch itself
verb.train = train
sys.exit(program.main(["train", "job.json"]))
"""


def test_a_value_error_of_torch_inside_a_verb_shows_its_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", VERB], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Traceback (most recent call last):") and "in train" in done.stderr
    assert done.stderr.splitlines()[-1] == "ValueError: optimizer got an empty parameter list"


def test_a_bad_option_is_one_sentence_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing")
    files = ["negatives", "--checkpoint", missing, "--controlnet", missing, "--dataset", missing, "--out", missing]
    for option, value, range_ in (
        ("--per-image", "0", "whole number from 1 to 32"),
        ("--cfg", "nan", "number from 0 to 30"),
        ("--resolution", "-8", "whole number from 16 to 4096"),
        ("--threshold", "nan", "number of at least 0"),
        ("--threads", "-1", "whole number of at least 0"),
    ):
        assert main([*files, option, value]) == 1
        name = option[2:].replace("-", "_")
        shown = value if option != "--threshold" else "nan"
        assert capsys.readouterr().err == f"{name} is {shown}, but it must be a {range_}.\n"


@pytest.mark.parametrize("kind", [UserError, NonFiniteLoss, OtherProcess])
def test_errors_of_the_pack_are_their_sentence(kind: type[UserError], capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise kind("Something is wrong: do this.")

    assert answered(fail, "") == 1 and capsys.readouterr().err == "Something is wrong: do this.\n"
    assert kind.__module__ == "comfy_scoft", "ComfyUI shows it; the real name holds the path of the pack"


def test_disk_errors_are_one_sentence_and_other_system_errors_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(number: int) -> int:
        raise OSError(number, os.strerror(number), "lora.safetensors")

    assert answered(lambda: fail(errno.ENOSPC), "") == 1
    sentence = capsys.readouterr().err
    assert (
        "No space left on device" in sentence and sentence.endswith("free some space.\n") and sentence.count("\n") == 1
    )
    with pytest.raises(ConnectionRefusedError):
        answered(lambda: fail(errno.ECONNREFUSED), "")


@pytest.mark.parametrize("fault", [ValueError("torch"), RuntimeError("CUDA"), KeyError("x"), AssertionError()])
def test_any_other_exception_passes_through(fault: Exception) -> None:
    def fail() -> int:
        raise fault

    with pytest.raises(type(fault)) as error:
        answered(fail, "")
    assert error.value is fault


def test_ctrl_c_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> int:
        raise KeyboardInterrupt

    assert answered(stop, "The last checkpoint is saved.") == 130
    assert capsys.readouterr().err == "\nStopped. The last checkpoint is saved.\n"

    def stop_with_a_sentence() -> int:
        raise KeyboardInterrupt("Stopped at step 14 and saved.")

    assert answered(stop_with_a_sentence, "") == 130
    assert capsys.readouterr().err == "\nStopped at step 14 and saved.\n"
