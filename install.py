"""ComfyUI-Manager runs this after requirements.txt: it adds diffusers, accelerate and peft, and changes nothing.

pip (or uv, where there is no pip) first only says what it would install, under constraints that hold every installed
version. Only if nothing that is there is among it, it is installed. Run it by hand with ComfyUI's own Python when a
node says that a package is missing: `python install.py`, or `python install.py NAME` for one of the packages that only
some choices need (see OPTIONAL).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (Windows portable) looks elsewhere only

from comfy_scoft.common.console import printable_streams  # noqa: E402

REQUIRED = {"diffusers": "0.34", "accelerate": "0.26", "peft": "0.15"}  # package -> oldest version that will do
OPTIONAL = {
    "dreamsim": "0.2.1",  # the feature network DreamSim
    "lpips": "0.1.4",  # LPIPS' learned weights
    "bitsandbytes": "0.45",  # AdamW8bit
    "prodigyopt": "1.1",  # Prodigy
    "tensorboard": "2.14",  # the tracker
    "pillow-heif": "0.16",  # HEIC photographs
}
NO_INSTALLER = (
    f"comfy_scoft: this Python has no pip, and no uv was found: run `{sys.executable} -m ensurepip`, then this again."
)
OLD_PIP = (
    f"comfy_scoft: nothing was changed, for this pip is too old to say what it would install: run `{sys.executable} -m "
    "pip install --upgrade pip`, then this again."
)
_INFO = re.compile(r"([^-]+)(-.*)?\.(dist-info|egg-info|egg-link)", re.IGNORECASE)
# https://packaging.python.org/en/latest/specifications/version-specifiers, as far as installed packages have it
_VERSION = re.compile(
    r"(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)


class Failed(Exception):
    """Ends the installation with one sentence; nothing was changed."""


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_on_disk() -> set[str]:
    """Canonical names of everything that looks installed, also where its own files cannot be read."""
    names = [name for place in sys.path if os.path.isdir(place) for name in os.listdir(place)]
    return {canonical(found[1]) for name in names if (found := _INFO.fullmatch(name))}


def installer() -> list[str]:
    """The command that installs into this Python: pip's, or uv's where there is no pip. Raises Failed without both."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if importlib.util.find_spec("uv") is not None:  # ComfyUI-Manager brings it
        return [sys.executable, "-m", "uv", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    raise Failed(NO_INSTALLER)


def constraints(installed: Mapping[str, str]) -> str:
    """Lines that hold every package at its version; a version that no installer can read would stop it.

    Local builds (`2.13.0+cu130`) are held as they are: pip compares the local part too.
    """
    held = {name: version for name, version in installed.items() if _VERSION.fullmatch(version)}
    return "".join(f"{name}=={version}\n" for name, version in sorted(held.items()))


def installed_versions(command: Sequence[str]) -> dict[str, str]:
    """Canonical name -> version, as the installer itself sees them: it has rules for leftovers and duplicates."""
    listed = json.loads(_run([*command, "list", "--format=json"], PIP_USER="0"))  # which may be 1 in pip's settings
    return {canonical(one["name"]): str(one["version"]) for one in listed}


def resolved(command: Sequence[str], wanted: Sequence[str], held: str) -> dict[str, str]:
    """Canonical name -> version of what the installer would install for `wanted` under the constraints `held`."""
    with tempfile.TemporaryDirectory() as folder:
        file, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        file.write_text(held, encoding="utf-8")
        ask = [*command, "install", "--dry-run", "--constraint", str(file)]
        if command[-1] != "pip":
            _run([*ask, "--quiet", "--report", str(report), *wanted])
            listed = json.loads(report.read_text(encoding="utf-8"))["install"]
            return {canonical(one["metadata"]["name"]): one["metadata"]["version"] for one in listed}
        said = _run([*ask, *wanted])  # uv has no report
        return {canonical(name): version for name, version in re.findall(r"^ \+ (\S+)==(\S+)", said, re.MULTILINE)}


def wanted(installed: Mapping[str, str], extras: Sequence[str] = ()) -> list[str]:
    """Requirements of what is missing, in order. extras: names of OPTIONAL to install too."""
    floors = REQUIRED | {name: OPTIONAL[name] for name in extras}
    return [f"{name}>={floor}" for name, floor in floors.items() if name not in installed]


def too_old(installed: Mapping[str, str]) -> list[str]:
    """A sentence for each installed package that is older than needed, which is not ours to move."""
    return [
        f"comfy_scoft: {name} {installed[name]} is installed and was left alone, but {floor} or newer is needed: "
        f"run `{sys.executable} -m pip install --upgrade {name}`, and see whether your other nodes still work."
        for name, floor in REQUIRED.items()
        if name in installed and _release(installed[name]) < _release(floor)
    ]


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def main(arguments: Sequence[str] | None = None) -> int:
    printable_streams()
    extras = [canonical(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    if unknown := [name for name in extras if name not in OPTIONAL]:
        print(f"comfy_scoft: {', '.join(unknown)} is not offered here; choose from {', '.join(OPTIONAL)}.")
        return 2
    try:
        command = installer()
        installed = installed_versions(command)
        if missing := wanted(installed, extras):
            print(f"comfy_scoft: adding {', '.join(missing)} beside {len(installed)} installed packages.", flush=True)
            new = resolved(command, missing, constraints(installed))
            if moved := sorted(new.keys() & (names_on_disk() | installed.keys())):
                raise Failed(
                    f"comfy_scoft: nothing was changed, for {', '.join(moved)} would have been: its installed version "
                    "cannot be read or does not fit, or a setting of pip's hides it (`pip config list`: user, target, "
                    "prefix). Mend this, then run this again."
                )
            try:
                _run([*command, "install", "--no-deps", *(f"{name}=={new[name]}" for name in sorted(new))])
            except Failed:
                if not new.keys() <= names_on_disk():  # pip 24.1 and newer may fail over an odd version when it is done
                    raise
        if old := too_old(installed):
            raise Failed("\n".join(old))
    except Failed as failed:
        print(failed)
        return 1
    return 0


def _run(command: Sequence[str], **more: str) -> str:
    """Run a command and return what it said. more: of its environment. Raises Failed with the end of what it said."""
    environment = {**os.environ, **more, "UV_PYTHON": sys.executable, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if "no such option: --dry-run" in done.stderr:
        raise Failed(OLD_PIP)
    if done.returncode:
        end = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        raise Failed(f"{end}\ncomfy_scoft: that is what pip or uv said: mend what it names, then run this again.")
    return done.stdout if done.stdout.strip() else done.stderr


if __name__ == "__main__":
    raise SystemExit(main())
