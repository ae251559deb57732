"""Hostile metadata, lists of links, captions and images, made from a seed and read by the real code.

    python tests/recorded/data_fuzz.py --cases 100000 --out tests/recorded/records/data_fuzz.json

goes on where it was stopped, and writes what it found after each batch. What counts as a finding: an exception other
than ValueError; a sentence that is none, or holds control characters; a file opened outside the folder; a record that
points outside it or says nothing; an image that loads and cannot be opened in any other way than with a sentence; a
batch that takes longer than a minute.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_fuzz_inputs import FOLDERS, NAMES, VALUES, bad_image, csv_table, images, json_line, mangled
from PIL import Image

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from comfy_scoft.data.dataset import load_folder  # noqa: E402
from comfy_scoft.data.download.links import read_links  # noqa: E402
from comfy_scoft.data.download.store import LOG, Store  # noqa: E402
from comfy_scoft.data.images import open_image  # noqa: E402

BATCH, SLOWEST = 200, 60.0
watched: list[Path] = []
"""The folder that alone may be opened just now, or nothing."""
strangers: set[str] = set()
"""What was opened outside of it."""
hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not watched or event not in ("open", "os.listdir", "os.scandir") or isinstance(arguments[0], int):
        return
    name = os.fspath(arguments[0] or os.curdir)
    path = os.path.realpath(os.fsdecode(name))
    if not (
        Path(path).is_relative_to(watched[0]) or path.startswith((sys.prefix, sys.base_prefix)) or path.endswith(".py")
    ):
        strangers.add(f"{event} {path}")


def furnished(root: Path) -> Path:
    """A folder with something good in it, and doors that lead out of it to a secret."""
    (root / "set/other").mkdir(parents=True)
    Image.new("RGB", (9, 7), "red").save(root / "set/good.png")
    Image.new("RGB", (9, 7), "blue").save(root / "set/other/deep.png")
    Image.new("RGB", (9, 7), "black").save(root / "secret.png")
    (root / "secret.txt").write_text("SECRET")
    (root / "set/link.png").symlink_to(root / "secret.png")
    (root / "set/door").symlink_to(root)
    return root / "set"


def sentence(text: str) -> None:
    """Findings are raised as AssertionError."""
    assert text.isprintable() and text.endswith(".") and 15 < len(text) < 1500, text
    assert "SECRET" not in text and "Traceback" not in text and "Error:" not in text, text


def load(folder: Path, tally: Counter[str]) -> None:
    try:
        dataset, report = load_folder(folder)
    except ValueError as error:
        sentence(str(error))
        tally["refused whole"] += 1
        return
    for line in report.splitlines():
        if line.startswith("- "):
            sentence(line[2:])
            tally["left out"] += 1
    tally["loaded"] += len(dataset)
    for record in dataset.records:
        assert record.caption.strip() and record.split and "SECRET" not in record.caption, record
        assert all(path.is_relative_to(folder) for path in record.files()), record
        try:
            assert open_image(record.image).mode == "RGB"
        except ValueError as error:
            sentence(str(error))
            tally["refused when opened"] += 1


def json_case(rng: random.Random, folder: Path, tally: Counter[str]) -> None:
    lines = [json_line(rng, {"file_name": "good.png", "text": "a good one"}) for _ in range(BATCH)]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines))
    load(folder, tally)


def csv_case(rng: random.Random, folder: Path, tally: Counter[str]) -> None:
    for _ in range(8):  # one open quote spoils the rest of a table: so several small ones
        (folder / "metadata.csv").write_bytes(csv_table(rng, {"file_name": "good.png", "text": "x"}, BATCH // 8))
        load(folder, tally)


def links_case(rng: random.Random, folder: Path, tally: Counter[str]) -> None:
    good = {"url": "https://example.org/a.jpg", "caption": "a good one"}
    for part in range(8):
        path = folder / ("links.csv" if part % 2 else "links.jsonl")
        lines = b"\n".join(json_line(rng, good) for _ in range(BATCH // 8))
        path.write_bytes(csv_table(rng, good, BATCH // 8) if part % 2 else lines)
        try:
            links, faults = read_links(path)
        except ValueError as error:
            sentence(str(error))
            tally["refused whole"] += 1
            continue
        tally["loaded"] += len(links)
        tally["left out"] += len(faults)
        for fault in faults:
            sentence(fault.sentence)
        assert all(link.url.strip() and all(map(str.strip, link.row.text)) for link in links)


def caption_case(rng: random.Random, folder: Path, tally: Counter[str]) -> None:
    image = (folder / "good.png").read_bytes()
    for number in range(BATCH):
        place = folder / rng.choice(FOLDERS)
        place.mkdir(parents=True, exist_ok=True)
        name = f"{rng.choice(NAMES)}{number if rng.random() < 0.9 else ''}"
        (place / f"{name}{rng.choice(('.png', '.PNG', '.jpg'))}").write_bytes(image)
        words = place / f"{name}{rng.choice(('.txt', '.txt', '.txt', '.caption'))}"
        if rng.random() < 0.05 and not words.exists():
            words.symlink_to(folder.parent / "secret.txt")
        elif rng.random() < 0.9 and not words.is_symlink():
            text = ", ".join(str(rng.choice(VALUES)) for _ in range(rng.randrange(4)))
            words.write_bytes(mangled(rng, text.encode("utf-8", "surrogatepass")))
    load(folder, tally)


def image_case(rng: random.Random, folder: Path, tally: Counter[str]) -> None:
    good = images()
    for number in range(BATCH):
        ending = rng.choice(("png", "jpg", "webp", "gif", "bmp", "avif"))
        (folder / f"{number}.{ending}").write_bytes(bad_image(rng, good))
        (folder / f"{number}.txt").write_text("an image")
    load(folder, tally)


def log_case(rng: random.Random, folder: Path, tally: Counter[str]) -> None:
    """The log of an earlier collecting run, in a folder that somebody changed."""
    keys = ("url", "origin", "file", "sha256", "bytes", "width", "height", "look", "fetched")
    lines = []
    for _ in range(BATCH):
        row = {key: rng.choice([key, key, 5, *VALUES]) for key in keys} | {"file": rng.choice(VALUES)}
        lines.append(mangled(rng, json.dumps(row).encode()).replace(b"\n", b" "))
    (folder / LOG).write_bytes(b"\n".join(lines))
    store = Store(folder, 1000)
    store.open()
    store.close()
    assert not store.saved
    tally["left out"] += BATCH


CASES: list[Callable[[random.Random, Path, Counter[str]], None]] = [
    *(json_case, csv_case, links_case, caption_case, image_case),
    *(json_case, csv_case, links_case, caption_case, image_case, log_case),
]


def run_batch(seed: int, batch: int, tally: Counter[str]) -> list[str]:
    """One batch of `BATCH` inputs of one kind; its findings."""
    case = CASES[batch % len(CASES)]
    home = Path(tempfile.mkdtemp(prefix="fuzz")).resolve()
    strangers.clear()
    findings = []
    start = time.monotonic()
    try:
        folder = furnished(home)
        watched[:] = [folder]
        case(random.Random(f"{seed} {batch}"), folder, tally)  # noqa: S311  (repeatable, no secret)
    except Exception:
        findings.append(traceback.format_exc()[-2000:])
    finally:
        watched.clear()
        shutil.rmtree(home, ignore_errors=True)
    if (seconds := time.monotonic() - start) > SLOWEST:
        findings.append(f"took {seconds:.0f} s")
    findings += [f"outside the folder: {name}" for name in sorted(strangers)]
    tally[f"inputs of {case.__name__.removesuffix('_case')}"] += BATCH
    tally["slowest batch, ms"] = max(tally["slowest batch, ms"], round(1000 * seconds))
    return [f"{case.__name__} batch {batch}: {finding}" for finding in findings]


def watch_the_disk() -> None:
    """See from now on what is opened while a batch runs. Python knows no way to stop, so this is done once."""
    if not hooked:
        sys.addaudithook(_audit)
        hooked.append(True)


def run(cases: int, seed: int, out: Path | None = None) -> dict[str, Any]:
    """Batches until `cases` inputs were read; goes on from `out` when it holds a run of the same seed."""
    command = (
        f"python tests/recorded/data_fuzz.py --cases {cases} --seed {seed} --out tests/recorded/records/data_fuzz.json"
    )
    record: dict[str, Any] = {"command": command, "seed": seed, "cases": 0, "findings": [], "counts": {}}
    if out is not None and out.is_file():
        earlier = json.loads(out.read_text(encoding="utf-8"))
        record = earlier if earlier["seed"] == seed else record
    for kind in CASES:  # what is imported late is imported before anybody watches
        with tempfile.TemporaryDirectory() as home:
            kind(random.Random(0), furnished(Path(home).resolve()), Counter())  # noqa: S311
    watch_the_disk()
    tally = Counter(record["counts"])
    while record["cases"] < cases:
        if __name__ == "__main__":
            faulthandler.dump_traceback_later(10 * SLOWEST, exit=True)  # a hang ends with the line that hangs
        record["findings"] += run_batch(seed, record["cases"] // BATCH, tally)
        record["cases"] += BATCH
        record["counts"] = dict(sorted(tally.items()))
        record["with"] = {"python": platform.python_version(), "pillow": Image.__version__}
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.with_suffix(".part").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            os.replace(out.with_suffix(".part"), out)
    return record


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1024)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    found = run(given.cases, given.seed, given.out)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["findings"] else 0)
