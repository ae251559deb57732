"""ComfyUI-Manager runs this after requirements.txt: it adds diffusers, peft and controlnet-aux, nothing else.

Every installed version goes into a constraints file first, so pip can only add packages. Run it by hand with
ComfyUI's own Python when a node says that a package is missing: `python install.py`, or `python install.py NAME` for
one of the packages that only some choices need (see OPTIONAL).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfy_scoft.common.console import printable_streams

REQUIRED = {"diffusers": "0.34", "accelerate": "0.26", "peft": "0.15", "controlnet-aux": "0.0.9"}  # package -> floor
OPTIONAL = {
    "dreamsim": "0.2.1",  # the feature network DreamSim
    "lpips": "0.1.4",  # LPIPS' learned weights
    "bitsandbytes": "0.45",  # AdamW8bit
    "prodigyopt": "1.1",  # Prodigy
    "tensorboard": "2.14",  # the tracker
    "pillow-heif": "0.16",  # HEIC photographs
}
# controlnet-aux asks for opencv-python-headless; it shares its folder with the other builds of cv2, so where any of
# them is installed the package goes in without its dependencies, and these are the ones it then still needs.
CONTROLNET_AUX_NEEDS = ("scikit-image", "importlib-metadata", "scipy", "einops", "timm", "filelock")


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions() -> dict[str, str]:
    """Canonical name -> version of every distribution that this Python sees (the first one found counts)."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and distribution.version:
            versions.setdefault(canonical(name), distribution.version)
    return versions


def constraints(installed: Mapping[str, str]) -> str:
    """A pip constraints file that holds every installed package at its version.

    Local builds (`2.13.0+cu130`) are held as they are: pip compares the local part too.
    """
    return "".join(f"{name}=={version}\n" for name, version in sorted(installed.items()))


def pip_commands(
    installed: Mapping[str, str], constraints_file: str, extras: Sequence[str] = (), *, has_cv2: bool
) -> list[list[str]]:
    """The pip arguments still to be run, in order; none when everything is installed. A pure function of its inputs.

    installed: canonical name -> version; extras: names of OPTIONAL to install too; has_cv2: whether `import cv2` works
    already, from whichever package.
    """
    floors = REQUIRED | {name: OPTIONAL[name] for name in extras}
    missing = [name for name in floors if name not in installed]
    base = ["install", "--constraint", constraints_file]
    apart = has_cv2 and "controlnet-aux" in missing
    together = [f"{name}>={floors[name]}" for name in missing if not (apart and name == "controlnet-aux")]
    if apart:
        together += [name for name in CONTROLNET_AUX_NEEDS if name not in installed]
    commands = [[*base, *together]] if together else []
    if apart:
        commands.append([*base, "--no-deps", f"controlnet-aux>={REQUIRED['controlnet-aux']}"])
    return commands


def main(arguments: Sequence[str] | None = None) -> int:
    printable_streams()
    extras = [canonical(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    if unknown := [name for name in extras if name not in OPTIONAL]:
        print(f"comfy_scoft: {', '.join(unknown)} is not offered here; choose from {', '.join(OPTIONAL)}.")
        return 2
    installed = installed_versions()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text(constraints(installed), encoding="utf-8")
        has_cv2 = importlib.util.find_spec("cv2") is not None
        commands = pip_commands(installed, str(file), extras, has_cv2=has_cv2)
        for command in commands:
            code = subprocess.run([sys.executable, "-m", "pip", *command]).returncode
            if code:
                packages = " ".join(part for part in command[3:] if not part.startswith("-"))
                print(f"comfy_scoft: pip could not add {packages} beside what is installed; see its message above.")
                return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
