"""What the ComfyUI registry asks of a pack: its entry in pyproject.toml, its images, and what its archive holds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMFY: dict[str, Any] = PROJECT["tool"]["comfy"]
MEGABYTE = 1_000_000
NOT_IN_IT = ("tests/", "tools/", "benchmarks/", ".ci/", ".github/", "run.py", "requirements-dev.txt", ".pre-commit")
IN_IT = (
    "__init__.py",
    "nodes.py",
    "install.py",
    "requirements.txt",
    "pyproject.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
)


def listed(*options: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", *options]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return {name for name in done.stdout.decode("utf-8").split("\0") if name and (ROOT / name).is_file()}


@lru_cache(maxsize=1)
def archive() -> tuple[str, ...]:
    """The files that `comfy node pack` takes: those of the repository but for what .comfyignore names.

    comfy-cli packs the files that git tracks; here those count too that only wait to be added. git reads .comfyignore
    itself, as the patterns are its own.
    """
    assert not COMFY.get("includes"), "these would be packed too: add them here"
    return tuple(sorted(listed("--exclude-standard") - listed("--ignored", f"--exclude-from={ROOT / '.comfyignore'}")))


def shipped(folder: str, pattern: str = "*") -> set[str]:
    """Files under a folder of the checkout, without what Python leaves there."""
    found = {path for path in (ROOT / folder).rglob(pattern) if path.is_file() and path.suffix != ".pyc"}
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_entry_is_complete_and_its_addresses_are_of_one_repository() -> None:
    assert re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", COMFY["PublisherId"])
    assert COMFY["DisplayName"] and COMFY["requires-comfyui"] == ">=0.3.75"
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)", PROJECT["project"]["urls"]["Repository"])
    assert found is not None
    for key in ("Icon", "Banner"):
        head = f"https://raw.githubusercontent.com/{found[1]}/{found[2]}/main/"
        assert COMFY[key].startswith(head) and COMFY[key].removeprefix(head) in archive(), key


def test_its_name_and_version_are_such_as_the_registry_takes() -> None:
    name, version = PROJECT["project"]["name"], PROJECT["project"]["version"]
    assert len(name) < 100 and re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", name)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and PROJECT["project"]["description"]


def test_the_licence_is_named_the_same_everywhere() -> None:
    assert PROJECT["project"]["license"] == {"file": "LICENSE"}
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Apache License, Version 2.0" in notice and "CC-BY 4.0" in notice
    classifiers = PROJECT["project"]["classifiers"]
    assert [line for line in classifiers if line.startswith("License ::")] == [
        "License :: OSI Approved :: Apache Software License"
    ]
    assert "Operating System :: OS Independent" in classifiers


@pytest.mark.parametrize(("name", "most"), [("icon", 400), ("banner", 1600)])
def test_icon_and_banner_have_their_shape_and_are_small(name: str, most: int) -> None:
    path = ROOT / "docs" / f"{name}.png"
    with Image.open(path) as image:
        width, height = image.size
    assert width * (1 if name == "icon" else 9) == height * (1 if name == "icon" else 21)
    assert max(width, height) <= most and path.stat().st_size < 50_000


def test_the_archive_holds_what_a_user_needs() -> None:
    names = set(archive())
    assert not {name for name in IN_IT if name not in names}
    wanted = shipped("web") | shipped("workflows") | shipped("comfy_scoft") | shipped("docs")
    wanted |= shipped("locales", "main.json") | shipped("locales", "nodeDefs.json")
    assert len(wanted) > 150 and not wanted - names


def test_the_archive_holds_no_test_and_no_tool_of_development() -> None:
    assert not [name for name in archive() if name.startswith(NOT_IN_IT) or "/test_" in name or "__pycache__" in name]
    assert "locales/zh/source.json" not in archive()  # read by tools/locales.py alone


def test_leaving_out_goes_by_the_place_and_not_by_the_name_alone(tmp_path: Path) -> None:
    """comfy_scoft/training/run.py would be of the pack; only the checkout's own run.py is not."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=60)
    for name in (
        "run.py",
        "tests/a.py",
        "comfy_scoft/training/run.py",
        "comfy_scoft/tests/a.py",
        "comfy_scoft/tools/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(ROOT / ".comfyignore", tmp_path)
    command = ["git", "-C", str(tmp_path), "ls-files", "--others", "--ignored", "--exclude-from=.comfyignore"]
    left_out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert sorted(left_out) == [".comfyignore", "run.py", "tests/a.py"]


def test_the_archive_stays_under_30_mb_and_each_file_under_20() -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as whole:
        for name in archive():
            whole.write(ROOT / name, name)
    sizes = {name: (ROOT / name).stat().st_size for name in archive()}
    assert len(packed.getvalue()) < 30 * MEGABYTE
    assert not {name: size for name, size in sizes.items() if size >= 20 * MEGABYTE}


def test_what_the_pack_ships_imports_nothing_that_it_leaves_out() -> None:
    """A stray `import toys` or `import comfy_server` would work in a checkout and fail in an installed pack."""
    left_behind = {path.stem for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    left_behind = (left_behind | {"tests", "tools", "benchmarks", "run"}) - {"__init__", "__main__"}
    pattern = re.compile(rf"^\s*(?:from|import) ({'|'.join(sorted(map(re.escape, left_behind)))})\b", re.M)
    for name in archive():
        if name.endswith(".py"):
            found = pattern.search((ROOT / name).read_text(encoding="utf-8"))
            assert found is None, f"{name} imports {found and found[1]}, which is not in the archive"


def test_the_security_rules_of_the_registry_find_nothing() -> None:
    """The registry's scan, as comfy-cli 1.23 runs it: no eval or exec, no two statements on a line."""
    command = [sys.executable, "-m", "ruff", "check", ".", "-q", "--isolated", "--select", "S102,S307,E702"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
