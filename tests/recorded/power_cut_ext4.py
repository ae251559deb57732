"""The power is cut at every file operation of a real ext4 file system. Needs Linux and root: it mounts an image.

    sudo python tests/recorded/power_cut_ext4.py

The work is that of `tests/power_cut.py`. Before each of its operations the image is copied as the disk has it: what the
system still holds in memory is not in it. The copy is mounted, which replays its journal, and what is in it is checked.
All is done twice: as it is, and with a file of another program synced at each operation, which has ext4 write its
journal, so that names are on the disk before the bytes of their files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]  # last: ComfyUI has a nodes.py too

from power_cut import WORKS, Work, watch  # noqa: E402

from comfy_scoft.common.files import write_atomically  # noqa: E402

RECORD = Path(__file__).parent / "records" / "power_cut_ext4.json"
MEGABYTES = 32
FSYNC = os.fsync


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)  # noqa: S603 - no shell


def cut_everywhere(work: Work, folder: Path, *, journal: bool) -> tuple[Counter[str], list[str]]:
    """How often each state was found after a cut, and the cuts that left neither the old nor the new."""
    image, disk, copy, after = (folder / name for name in ("image", "disk", "copy", "after"))
    disk.mkdir(parents=True)
    after.mkdir()
    run("truncate", "-s", f"{MEGABYTES}M", image)
    run("mkfs.ext4", "-q", image)
    run("mount", "-o", "loop,commit=600", image, disk)  # the system itself writes nothing meanwhile
    found: Counter[str] = Counter()
    lost: list[str] = []

    def cut(label: str) -> None:
        if journal:
            with (disk / "of another program").open("ab") as file:
                file.write(b"line\n")
                file.flush()
                FSYNC(file.fileno())
        shutil.copyfile(image, copy)
        run("mount", "-o", "loop", copy, after)
        left = folder / f"left-{time.monotonic_ns()}"
        shutil.copytree(after / "root", left)
        run("umount", after)
        try:
            found[work.check(left)] += 1
        except Exception as error:
            lost.append(f"before {label.replace(str(folder), '')}: {type(error).__name__}: {error}")
        shutil.rmtree(left)

    try:
        (disk / "root").mkdir()
        work.prepare(disk / "root")
        run("sync", "-f", disk)
        watch(lambda: work.work(disk / "root"), cut)
    finally:
        run("umount", disk)
    return found, lost


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--only", default="", help="the work of this name")
    options = parser.parse_args(arguments)
    works: dict[str, Any] = {}
    lost: list[str] = []
    for name, work in WORKS.items():
        for journal in (False, True) if options.only in ("", name) else ():
            with tempfile.TemporaryDirectory(prefix="power-cut-") as folder:
                found, neither = cut_everywhere(work, Path(folder), journal=journal)
            title = f"{name}, {'the journal first' if journal else 'as it is'}"
            works[title] = dict(sorted(found.items()))
            lost += [f"{title}, {cut}" for cut in neither]
            print(f"{title}: {sum(found.values())} cuts survived, {len(neither)} lost", flush=True)
    record = {
        "command": "sudo python tests/recorded/power_cut_ext4.py",
        "date": time.strftime("%Y-%m-%d"),
        "cuts": sum(sum(found.values()) for found in works.values()) + len(lost),
        "lost": lost,
        "found after a cut (state: times)": works,
    }
    if not options.only:
        write_atomically(options.record, (json.dumps(record, indent=1) + "\n").encode())
    print("\n".join(lost))
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
