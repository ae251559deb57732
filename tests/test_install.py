"""Installing beside someone's ComfyUI: only what is missing is added, and nothing that is there moves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = Path(__file__).parent / "environments"
sys.path.append(str(ROOT))

import install  # noqa: E402  (needs the path above)

COMPLETE = {name: "9.0" for name in (*install.REQUIRED, *install.CONTROLNET_AUX_NEEDS)}


def without(*names: str) -> dict[str, str]:
    return {name: version for name, version in COMPLETE.items() if name not in names}


def frozen(name: str) -> dict[str, str]:
    lines = (ENVIRONMENTS / f"{name}.txt").read_text(encoding="utf-8").split()
    return {install.canonical(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_nothing_is_run_when_everything_is_there() -> None:
    assert install.pip_commands(COMPLETE, "c.txt", has_cv2=True) == []


def test_only_missing_packages_are_asked_for_and_always_under_the_constraints() -> None:
    assert install.pip_commands(without("peft"), "c.txt", has_cv2=True) == [
        ["install", "--constraint", "c.txt", "peft>=0.15"]
    ]


def test_opencv_is_not_installed_a_second_time() -> None:
    commands = install.pip_commands(without("controlnet-aux", "scikit-image"), "c.txt", has_cv2=True)
    assert commands == [
        ["install", "--constraint", "c.txt", "scikit-image"],
        ["install", "--constraint", "c.txt", "--no-deps", "controlnet-aux>=0.0.9"],
    ]
    (command,) = install.pip_commands(without("controlnet-aux"), "c.txt", has_cv2=False)
    assert "--no-deps" not in command and command[-1] == "controlnet-aux>=0.0.9"


def test_a_package_that_only_some_choices_need_is_added_when_it_is_asked_for() -> None:
    assert install.pip_commands(COMPLETE, "c.txt", ["lpips"], has_cv2=True) == [
        ["install", "--constraint", "c.txt", f"lpips>={install.OPTIONAL['lpips']}"]
    ]
    assert install.pip_commands(COMPLETE | {"lpips": "9.0"}, "c.txt", ["lpips"], has_cv2=True) == []


def test_a_package_that_is_not_offered_is_refused_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(install.subprocess, "run", lambda *given, **more: pytest.fail("pip was run"))
    assert install.main(["torch"]) == 2
    assert "torch is not offered here; choose from dreamsim, lpips" in capsys.readouterr().out


def test_the_constraints_hold_every_installed_package() -> None:
    installed = install.installed_versions()
    assert set(install.constraints(installed).split()) == {f"{name}=={version}" for name, version in installed.items()}
    assert {"torch", "huggingface-hub"} <= set(installed)  # under the names that the index compares


def test_requirements_name_no_package_that_could_move_and_agree_with_pyproject() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    names = {install.canonical(re.split(r"[><=~!; ]", line)[0]) for line in lines}
    assert not names & {
        "torch",
        "torchvision",
        "torchaudio",
        "numpy",
        "transformers",
        "huggingface-hub",
        *install.REQUIRED,
    }
    assert not [line for line in lines if "==" in line or "<" in line]
    listed = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert listed and re.findall(r'"(.+?)"', listed[1]) == lines


@pytest.fixture(params=["old", "new"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """An interpreter to whose pip the packages of a frozen list look installed (their metadata is all there is)."""
    versions = frozen(request.param)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    for name, version in versions.items():
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "INSTALLER").write_text("pip\n")
    return python, versions


def dry_run(python: Path, arguments: list[str], report: Path) -> dict[str, str]:
    """What pip would install with these arguments: canonical name -> version."""
    command = [sys.executable, "-m", "pip", "--python", str(python), *arguments, "--dry-run", "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {install.canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in found}


def moved(before: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    return {name: f"{before[name]} -> {version}" for name, version in added.items() if name in before}


@pytest.mark.long
def test_installing_moves_no_installed_version(environment: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, versions = environment
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    added: dict[str, str] = {}
    for number, line in enumerate(lines):  # the way ComfyUI-Manager does it: one line at a time
        found = dry_run(python, ["install", line], tmp_path / f"{number}.json")
        assert not moved(versions, found), line
        added |= found
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(install.constraints(versions | added))
    for number, command in enumerate(install.pip_commands(versions, str(constraints), has_cv2=False)):
        found = dry_run(python, command, tmp_path / f"extra-{number}.json")
        assert not moved(versions, found), command
        assert install.REQUIRED.keys() <= found.keys()
    (command,) = install.pip_commands(
        versions | install.REQUIRED, str(constraints), list(install.OPTIONAL), has_cv2=False
    )
    found = dry_run(python, command, tmp_path / "optional.json")
    assert not moved(versions, found) and install.OPTIONAL.keys() <= found.keys()


@pytest.mark.long
@pytest.mark.parametrize("environment", ["old"], indirect=True)
def test_a_bare_diffusers_line_would_have_moved_the_hub(
    environment: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """The control: the dry run does see a package that moves, which is why install.py exists."""
    python, versions = environment
    assert "huggingface-hub" in moved(versions, dry_run(python, ["install", "diffusers"], tmp_path / "report.json"))
