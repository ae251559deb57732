"""The command line as a person meets it: what it prints and where, its help, its progress line, and how it stops."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from toys import toy_dataset, toy_run

from comfy_scoft.__main__ import VERBS, main, parser
from comfy_scoft.cli import progress
from comfy_scoft.cli import train as train_verb
from comfy_scoft.cli.progress import ProgressLine
from comfy_scoft.common.console import printable_streams
from comfy_scoft.common.fingerprints import pack_version
from comfy_scoft.losses import DiffusionLoss, MemorizationLoss
from comfy_scoft.training import job
from comfy_scoft.training import run_folder as runs

ROOT = Path(__file__).resolve().parent.parent
NAME = "工作 हिन्दी 😀"


def run(*arguments: str, encoding: str = "cp1252", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A program of the checkout, its output redirected and in that encoding."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=600, **options)


def toy_job(folder: Path, steps: int = 2, **changes: Any) -> Path:
    more = {"validation": toy_dataset(folder / "held", (0, 0)), "validate_every": 1, "checkpoint_every": 10**6}
    run = toy_run(folder, [DiffusionLoss(), MemorizationLoss()], steps=steps, **{**more, **changes})
    return job.write_job(run, folder / "jobs" / "toys")


# --- what is printed ---------------------------------------------------------------------------------------------


def test_a_name_that_a_console_cannot_show_is_printed_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, shown in (("ascii", r"caf\xe9 \u5de5"), ("cp1252", "café \\u5de5"), ("utf-8", "café 工")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
        monkeypatch.setattr(sys, "stdout", stream)
        printable_streams()
        print("café 工", "\udc80")
        stream.flush()
        assert stream.buffer.getvalue().decode(encoding) == f"{shown} \\udc80\n"


def test_a_program_without_a_console_prints_nothing_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    printable_streams()
    print("工", flush=True)
    with ProgressLine(2) as line:
        line.say("工")
        line.update(2, "done")
    assert sys.stdout is not None and sys.stderr is not None


@pytest.mark.long
@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_help_can_be_read_in_an_ascii_console(verb: str) -> None:
    done = run("-m", "comfy_scoft", *([verb] if verb else []), "--help", encoding="ascii")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: ") and done.stderr == b"", done.stderr


@pytest.mark.long
def test_a_training_below_a_name_of_any_script_ends_well_in_every_console(tmp_path: Path) -> None:
    path, out = toy_job(tmp_path / NAME), tmp_path / NAME / "out"
    for encoding, shown in (("cp1252", r"\u5de5\u4f5c"), ("ascii", r"\u5de5\u4f5c"), ("utf-8", "工作")):
        done = run("-m", "comfy_scoft", "train", str(path.parent), "--out", str(out), encoding=encoding)
        assert done.returncode == 0, done.stderr.decode()
        lines = done.stdout.decode(encoding).splitlines()
        assert len(lines) == 3 and all(shown in line for line in lines)
        assert "step 2 of 2, loss " in done.stderr.decode(encoding)
    assert len(list(out.glob("*.safetensors"))) == len(list(out.glob("*.md"))) == 3
    short = Path("page") / NAME
    page = run("-m", "comfy_scoft", "benchmark", "--render", "--page", str(short))
    assert page.returncode == 1 and page.stdout == b"" and b"\\u5de5" in page.stderr


def test_every_program_of_the_checkout_prints_to_any_console() -> None:
    """The programs that people start; the scripts of tools/ import checkout, which does it for them."""
    programs = ["comfy_scoft/__main__.py", "run.py", "install.py", "benchmarks/__main__.py", "tools/checkout.py"]
    assert [name for name in programs if not re.search(r"^ *printable_streams\(\)$", source(name), re.MULTILINE)] == []


def source(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- help --------------------------------------------------------------------------------------------------------


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb, and of each part of the survey's."""
    found = {verb: import_module(f"comfy_scoft.cli.{module}").parser() for verb, (module, _) in VERBS.items()}
    kinds = next(action for action in found["survey"]._actions if isinstance(action, argparse._SubParsersAction))
    return {**found, **{f"survey {kind}": command for kind, command in kinds.choices.items()}}


def test_every_option_says_what_holds_without_it() -> None:
    silent = []
    for verb, command in parsers().items():
        for action in command._actions:
            value = action.option_strings and action.nargs != 0 and not action.required
            shown = command._get_formatter()._expand_help(action) if action.help else ""
            if value and not re.search(r"[Dd]efault: \S", shown):
                silent.append(f"{verb} {action.option_strings[0]}: {shown}")
    assert silent == []


def test_the_version_is_that_of_the_pack(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"comfy_scoft {pack_version()}\n"
    assert f'version = "{pack_version()}"' in source("pyproject.toml")


def test_an_unknown_verb_and_a_missing_job_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    for given, sentence in (
        (["trane"], "invalid choice: 'trane'"),
        ([], "required: VERB"),
        (["train"], "the job is missing: give the job.json that Export Training Job wrote"),
        (["train", "--resume"], "the job is missing"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(given)
        assert stop.value.code == 2 and sentence in capsys.readouterr().err
    assert all(verb in parser().format_help() for verb in VERBS)


@pytest.mark.parametrize(
    "given, path, resume",
    [
        ("a/job.json", "a/job.json", "off"),
        ("a/job.json --resume", "a/job.json", "latest"),
        ("--resume a/job.json", "a/job.json", "latest"),
        ("--resume a/job.json --threads 1", "a/job.json", "latest"),
        ("--resume --threads 1 a/job.json", "a/job.json", "latest"),
        ("a/job.json --resume lora-2", "a/job.json", "lora-2"),
        ("--resume lora-2 a/job.json", "a/job.json", "lora-2"),
    ],
)
def test_resume_takes_the_path_before_and_after_it(
    given: str, path: str, resume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(train_verb, "train", lambda options: seen.append(options) or 0)
    assert main(["train", *given.split()]) == 0
    assert (str(seen[0].job), seen[0].resume) == (str(Path(path)), resume)


def test_a_run_may_be_given_as_the_path_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "runs" / "lora-2").mkdir(parents=True)
    own = tmp_path / "runs"
    assert train_verb.run_named(str(own / "lora-2"), own) == train_verb.run_named("lora-2", own) == "lora-2"
    assert train_verb.run_named(str(tmp_path), own) == str(tmp_path), "it is refused by its own sentence"


# --- progress ----------------------------------------------------------------------------------------------------


def on_a_terminal(columns: int, *arguments: str) -> tuple[int, list[str]]:
    """Exit status of a program of the checkout on a terminal of that width, and what it wrote, line by line."""
    import fcntl
    import pty
    import termios

    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    program = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdin=end, stdout=end, stderr=end)
    os.close(end)
    written = b""
    with suppress(OSError):  # when the program has closed its side
        while part := os.read(terminal, 65536):
            written += part
    os.close(terminal)
    status = program.wait(60)
    return status, [line for line in re.split(r"[\r\n]+", written.decode(errors="replace")) if line.strip()]


@pytest.mark.long
@pytest.mark.parametrize("columns", [80, 40])
def test_the_progress_line_fits_its_terminal_and_counts_calls_to_the_end(tmp_path: Path, columns: int) -> None:
    path = toy_job(tmp_path, steps=6)
    status, lines = on_a_terminal(columns, "-m", "comfy_scoft", "train", str(path))
    bars = [line for line in lines if "%|" in line]
    assert status == 0 and bars and max(map(len, bars)) < columns
    assert "100%|" in bars[-1] and bars[-1].startswith("step 6 of 6 ")
    if columns == 80:
        assert re.search(r"\| [\d:]+<00:00, loss \d\.\d{4}, validation \d\.\d{4}$", bars[-1])
    shares = [int(found[1]) for line in bars if (found := re.search(r"(\d+)%\|", line))]
    assert shares == sorted(shares)


def test_in_a_file_the_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressLine(100) as line:
        line.say("100 UNet calls planned.")
        for call in range(1, 101):
            now[0] = call * 1.0
            line.update(call, f"step {call // 2} of 50", "loss 0.5000")
    assert capsys.readouterr().err.splitlines() == [
        "100 UNet calls planned.",
        "step 15 of 50, 70 s left, loss 0.5000",
        "step 30 of 50, 40 s left, loss 0.5000",
        "step 45 of 50, 10 s left, loss 0.5000",
        "step 50 of 50, loss 0.5000",
    ]
    with ProgressLine(2, shown=False) as line:
        line.say("another process")
        line.update(2, "done")
    assert capsys.readouterr().err == ""


@pytest.mark.long
def test_a_reader_that_ends_does_not_end_the_work(tmp_path: Path) -> None:
    """As `head` does."""
    job_file = toy_job(tmp_path)
    ends, starts = os.pipe()
    os.close(ends)
    command = [sys.executable, "-m", "comfy_scoft", "train", str(job_file)]
    done = subprocess.run(command, cwd=ROOT, stdout=starts, stderr=subprocess.PIPE, timeout=600)
    assert done.returncode == 141 and b"Traceback" not in done.stderr and b"step 2 of 2" in done.stderr
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=starts, timeout=600)
    os.close(starts)
    assert done.returncode == 0 and b"toys_00002.safetensors" in done.stdout


# --- stopping ----------------------------------------------------------------------------------------------------


def test_a_training_that_is_stopped_says_at_which_step_and_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, append = toy_job(tmp_path, steps=4, validation=None), runs.train_and_log

    def stop_after(step: int) -> None:
        def stopped(run: Any, callbacks: Any) -> Any:
            def check() -> None:
                if runs.read_metrics(run.folder)[-1:] == [] and step == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                callbacks.check_interrupt()

            def on_step(number: int, row: dict[str, float]) -> None:
                callbacks.on_step(number, row)
                if number == step:
                    os.kill(os.getpid(), signal.SIGINT)

            return append(run, runs.replace(callbacks, check_interrupt=check, on_step=on_step))

        monkeypatch.setattr(runs, "train_and_log", stopped)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for step, more, sentence in (
            (0, [], "Stopped before the first step. Nothing is saved."),
            (2, [], "Stopped at step 2 and saved. Add --resume to go on."),
            (3, ["--resume"], "Stopped at step 3 and saved. Give the same command again to go on."),
        ):
            stop_after(step)
            assert main(["train", str(path), *more]) == 130
            assert capsys.readouterr().err.splitlines()[-1] == sentence
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
