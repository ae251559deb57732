"""Installing beside someone's ComfyUI: only what is missing is added, and nothing that is there moves."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = Path(__file__).parent / "environments"
sys.path.append(str(ROOT))

import install  # noqa: E402  (needs the path above)


def frozen(name: str) -> dict[str, str]:
    lines = (ENVIRONMENTS / f"{name}.txt").read_text(encoding="utf-8").split()
    return {install.canonical(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_only_what_is_missing_is_asked_for() -> None:
    complete = dict.fromkeys(install.REQUIRED, "9.0")
    assert install.wanted(complete) == []
    assert install.wanted({name: "9.0" for name in complete if name != "peft"}) == ["peft>=0.15"]
    assert install.wanted(complete, ["lpips"]) == [f"lpips>={install.OPTIONAL['lpips']}"]
    assert install.wanted(complete | {"lpips": "9.0"}, ["lpips"]) == []


def test_a_package_that_is_not_offered_is_refused_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(install.subprocess, "run", lambda *given, **more: pytest.fail("pip was run"))
    assert install.main(["torch"]) == 2
    assert "torch is not offered here; choose from dreamsim, lpips" in capsys.readouterr().out


def test_the_constraints_hold_every_installed_package_but_versions_that_would_stop_the_installer() -> None:
    installed = install.installed_versions(install.installer())
    assert set(install.constraints(installed).split()) == {f"{name}=={version}" for name, version in installed.items()}
    assert {"torch", "huggingface-hub"} <= set(installed)  # under the names that the index compares
    odd = {"a": "2.13.0+cu130", "b": "1!2.0rc1.post2.dev3", "c": "4.8-custom-build", "d": "", "e": "v7", "f": "2024.1"}
    assert install.constraints(odd).split() == ["a==2.13.0+cu130", "b==1!2.0rc1.post2.dev3", "f==2024.1"]
    for version in filter(None, odd.values()):
        valid = True
        try:
            Version(version)
        except InvalidVersion:
            valid = False
        assert bool(install._VERSION.fullmatch(version)) == (valid and not version.startswith("v")), version


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


def lay(site: Path, name: str, version: str, folder: str = "") -> None:
    """Metadata that makes a package look installed; there is nothing else of it."""
    place = site / f"{folder or name.replace('-', '_') + '-' + version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (place / "INSTALLER").write_text("pip\n")
    (place / "RECORD").write_text("")


@dataclass(frozen=True)
class Environment:
    """A Python of its own, where the packages of a frozen list look installed."""

    python: Path
    site: Path
    versions: dict[str, str]

    def run(self, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(self.python), str(ROOT / "install.py"), *arguments]
        environment = {**os.environ, "PATH": path or os.environ["PATH"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)

    def now(self) -> dict[str, str]:
        """Canonical name -> version of what lies there, but for the installers themselves and leftovers."""
        found = importlib.metadata.distributions(path=[str(self.site)])
        named = {install.canonical(one.metadata["Name"]): one.version for one in found}
        return {name: version for name, version in named.items() if name not in OWN}


OWN = ("pip", "setuptools", "six")
"""Of the installers, and the one that tests lay twice."""


def environment(folder: Path, versions: dict[str, str], *, pip: bool = True, newest: bool = False) -> Environment:
    """newest: pip itself as the index has it, else the one that comes with Python."""
    venv.create(folder, with_pip=pip and not newest)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    for name, version in versions.items():
        lay(site, name, version)
    if newest:
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "pip"]
        subprocess.run(command, check=True, timeout=600)
    return Environment(python, site, {name: version for name, version in versions.items() if name not in OWN})


def test_without_pip_and_uv_it_says_what_to_do(tmp_path: Path) -> None:
    done = environment(tmp_path / "venv", {}, pip=False).run(path=os.devnull)
    assert done.returncode == 1 and "-m ensurepip" in done.stdout and "Traceback" not in done.stderr


def test_an_isolated_python_runs_the_installer_and_the_verbs(tmp_path: Path) -> None:
    """As the one of ComfyUI portable, which looks for modules in the folders of its own list only."""
    for words, status, said in (([ROOT / "install.py", "torch"], 2, "not offered"), ([ROOT, "--version"], 0, "scoft")):
        command = [sys.executable, "-I", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (status, "") and said in done.stdout


def test_what_lies_there_counts_as_installed_though_it_cannot_be_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone"), ""])
    for name in ("numpy-1.26.4.dist-info", "Some_Name-4.8-custom build.dist-info", "old.name-1.0-py3.11.egg-info"):
        (tmp_path / name).mkdir()  # nothing in it
    (tmp_path / "linked.egg-link").write_text("/somewhere")
    (tmp_path / "latin-1.0.dist-info").mkdir()
    (tmp_path / "latin-1.0.dist-info" / "METADATA").write_bytes(b"Name: latin\nAuthor: Jos\xe9\n")
    assert install.names_on_disk() == {"numpy", "some-name", "old-name", "linked", "latin"}


def test_a_pip_that_cannot_tell_its_plan_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """22.0, which a virtual environment of Ubuntu 22.04 has."""

    def run(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        if "list" in command:
            return subprocess.CompletedProcess(command, 0, "[]", "")
        return subprocess.CompletedProcess(command, 2, "", "\nUsage: pip install\n\nno such option: --dry-run\n")

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.main([]) == 1
    said = capsys.readouterr().out
    assert "pip is too old" in said and "-m pip install --upgrade pip`" in said


def test_a_package_that_is_too_old_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    there = {"diffusers": "0.27.2", "accelerate": "1.15.0", "peft": "0.15"}
    monkeypatch.setattr(install, "installed_versions", lambda command: there)
    monkeypatch.setattr(install, "_run", lambda command: pytest.fail("something was installed"))
    assert install.main([]) == 1
    said = capsys.readouterr().out
    assert "diffusers 0.27.2 is installed and was left alone, but 0.34 or newer" in said and said.count("\n") == 1


def test_without_pip_the_uv_is_found_that_is_a_package_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI-Manager brings it, and the folder of its program is on no PATH where nobody activated the environment."""
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None if name == "pip" else name)
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    assert install.installer() == [sys.executable, "-m", "uv", "pip"]


def test_a_plan_that_would_change_a_package_is_not_carried_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(install, "installed_versions", lambda command: {"numpy": "2.0.0"})
    monkeypatch.setattr(install, "resolved", lambda *given: {"diffusers": "0.40", "numpy": "2.4"})
    monkeypatch.setattr(install.subprocess, "run", lambda *given, **more: pytest.fail("something was installed"))
    assert install.main([]) == 1
    assert re.search(r"nothing was changed, for (diffusers, )?numpy would have been", capsys.readouterr().out)


@pytest.mark.long
@pytest.mark.parametrize("name", ["old", "new"])
def test_only_what_is_missing_is_added_and_no_installed_version_changes(name: str, tmp_path: Path) -> None:
    """With what broken updates leave behind: a version that no installer reads, and a leftover with an old one."""
    versions = frozen(name) | {"six": "1.16.0", "opencv-contrib": "4.8-custom build"}
    found = environment(tmp_path / "venv", versions, newest=name == "new")
    lay(found.site, "six", "1.15.0", folder="~ix-1.15.0")
    done = found.run()
    assert done.returncode == 0, done.stdout + done.stderr
    after = found.now()
    assert {name: version for name, version in after.items() if name in found.versions} == found.versions
    assert set(install.REQUIRED) <= set(after) - set(found.versions)
    assert (found.site / "six-1.16.0.dist-info").is_dir() and (found.site / "peft" / "__init__.py").is_file()
    assert found.run().stdout == ""  # and a second time there is nothing to do


@pytest.mark.long
def test_with_uv_alone_it_is_the_same(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path / "uv"), "uv"], check=True)
    found = environment(tmp_path / "venv", frozen("new"), pip=False)
    done = found.run(path=f"{tmp_path / 'uv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    after = found.now()
    assert {name: version for name, version in after.items() if name in found.versions} == found.versions
    assert set(install.REQUIRED) <= set(after) - set(found.versions)


@pytest.mark.long
def test_a_package_that_would_change_stops_it_before_anything_is_changed(tmp_path: Path) -> None:
    found = environment(tmp_path / "venv", frozen("new") | {"psutil": "five"}, newest=True)
    done = found.run()
    assert done.returncode == 1 and "psutil" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert found.now() == found.versions


@pytest.mark.long
def test_no_line_of_the_requirements_changes_an_installed_version(tmp_path: Path) -> None:
    """The way ComfyUI-Manager does it: one line at a time, without constraints."""
    versions = frozen("old")
    found = environment(tmp_path / "venv", versions)
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    for line in lines:
        assert not would_change(found, line), line
    assert "huggingface-hub" in would_change(found, "diffusers")  # the control: this is why there is an install.py


def would_change(found: Environment, requirement: str) -> set[str]:
    """Installed packages that pip would install in another version for a requirement alone."""
    report = found.site / "report.json"
    command = [str(found.python), "-m", "pip", "install", "--dry-run", "--quiet", "--report", str(report), requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    listed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {install.canonical(one["metadata"]["name"]) for one in listed} & found.versions.keys()


BROKEN = 'raise RuntimeError("PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0.")'
BESIDE_IT = """
from comfy_scoft.common.torchaudio import without_broken_torchaudio
without_broken_torchaudio()
from diffusers import ControlNetModel, UNet2DConditionModel
from transformers import BlipForConditionalGeneration, CLIPTextModel
try:
    import torchaudio
except RuntimeError as error:
    print(error)
"""


@pytest.mark.long
def test_a_torchaudio_that_does_not_load_is_no_fault_of_ours(tmp_path: Path) -> None:
    """What `pip install torch torchvision torchaudio` gives on Linux while torch is ahead of it; other packages that
    ask for it are still told why it does not load."""
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text(BROKEN)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", BESIDE_IT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "TorchAudio has CUDA version" in done.stdout, done.stderr[-2000:]
