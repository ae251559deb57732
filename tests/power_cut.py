"""A disk whose power is cut at every file operation, and the work of the pack that must survive it.

`cuts` does the work on the real disk and keeps, before each operation and at the end, what may then be left: all of it
(the process was killed), the same with only those bytes in files that were synced (their names came first), and only
the names that were synced too. A system may leave anything in between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from preference_toys import random_preference
from safetensors.torch import load_file
from survey_toys import image_sets
from test_checkpoint import step, world
from toys import toy_dataset, toy_run

from comfy_scoft.common.files import write_atomically
from comfy_scoft.corrector import preference_file
from comfy_scoft.data.captions import CaptionFile
from comfy_scoft.data.dataset import from_images, load_folder, save_dataset
from comfy_scoft.data.download.store import LOG, Store
from comfy_scoft.data.images import open_image, write_png
from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.survey.build import SurveySettings, build
from comfy_scoft.survey.build import save as save_survey
from comfy_scoft.survey.responses import read_key
from comfy_scoft.training import checkpoint, job
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.model_card import CardFields, read_card, save_lora

WEIGHTS = "diffusion_pytorch_model.safetensors"
OPERATIONS = ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir", "fsync")
Tree = dict[str, bytes | None]
"""Relative path -> bytes of a file, None for a folder."""


class Disk:
    """What is on the disk below `root`, by inode: the bytes of files and the names in folders when last synced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.left: dict[str, Tree] = {}
        self._held: dict[int, int] = {}
        self._count = 0
        for path in [root, *root.rglob("*")]:
            self._sync(path)

    def _sync(self, path: Path) -> None:
        if path.is_dir():
            self.names[path.stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.bytes[path.stat().st_ino] = path.read_bytes()

    def synced(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        for path in [self.root, *self.root.rglob("*")]:
            if path.stat().st_ino == inode:
                return self._sync(path)

    def cut(self, label: str) -> None:
        """Keep what a cut leaves now."""
        self._count += 1
        real: Tree = {}
        inodes: dict[str, int] = {}
        folders: set[int] = {self.root.stat().st_ino}
        for path in sorted(self.root.rglob("*")):
            name, inode = path.relative_to(self.root).as_posix(), path.stat().st_ino
            if inode not in self._held:  # its number is then not given to another one
                self._held[inode] = os.open(path, os.O_RDONLY)
            inodes[name] = inode
            real[name] = None if path.is_dir() else path.read_bytes()
            folders |= {inode} if path.is_dir() else set()
        self._folders = folders | getattr(self, "_folders", set())
        trees = {
            "killed": real,
            "bytes lost": {
                name: None if old is None else self.bytes.get(inodes[name], b"") for name, old in real.items()
            },
            "names lost": dict(self._on_disk(self.root.stat().st_ino, "")),
        }
        for kind, tree in trees.items():
            if tree not in self.left.values():
                self.left[f"{self._count}, before {label}: {kind}"] = tree

    def _on_disk(self, folder: int, above: str) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in self.names.get(folder, {}).items():
            if inode in self._folders:
                yield above + name, None
                yield from self._on_disk(inode, f"{above}{name}/")
            else:
                yield above + name, self.bytes.get(inode, b"")

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


def watch(work: Callable[[], Any], cut: Callable[[str], None], synced: Callable[[int], None] = lambda fd: None) -> None:
    """Do the work; `cut` is called before each file operation and at the end, `synced` after each fsync."""

    cutting: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **named: Any) -> Any:
            if cutting:  # what `cut` itself does is not watched
                return real(*args, **named)
            cutting.append(name)
            cut(f"{name} {args}")
            cutting.clear()
            result = real(*args, **named)
            if name == "fsync":
                synced(args[0])
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, watched(name))
        work()
    cut("the end")


def cuts(root: Path, work: Callable[[], Any]) -> dict[str, Tree]:
    """Do the work, all of it below `root`; what each cut leaves, by when it is."""
    disk = Disk(root)
    watch(work, disk.cut, disk.synced)
    disk.close()
    return disk.left


def rebuild(tree: Tree, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, data in sorted(tree.items()):
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)
    return root


@dataclass(frozen=True)
class Work:
    """prepare: what is there before. work: what is cut. check: of a folder that a cut left, whether the old or the new
    is whole: "old", "new", or another word that says which; it fails where neither is. after: what is there in the end.
    """

    prepare: Callable[[Path], Any]
    work: Callable[[Path], Any]
    check: Callable[[Path], str]
    after: str = "new"


def survives(work: Work, folder: Path) -> dict[str, str]:
    """Cut the work everywhere; what was found after each cut. Fails with the cuts that leave neither old nor new."""
    root, found, lost = folder / "disk", {}, []
    root.mkdir()
    work.prepare(root)
    for when, tree in cuts(root, lambda: work.work(root)).items():
        try:
            found[when] = work.check(rebuild(tree, folder / "cut"))
        except Exception as error:
            lost.append(f"{when}: {type(error).__name__}: {error}")
    assert not lost, "\n".join(
        [f"{len(lost)} of {len(lost) + len(found)} cuts leave neither the old nor the new", *lost]
    )
    assert found[[*found][-1]] == work.after
    return found


# --- the work of the pack


def image(seed: int) -> torch.Tensor:
    return torch.rand(8, 9, 3, generator=torch.Generator().manual_seed(seed))


def old_set(root: Path) -> None:
    from_images([image(1), image(2)], ["old 1", "old 2"], None, "", "", root / "set")


def new_set(root: Path, *, overwrite: bool = True) -> None:
    images, captions = [image(n) for n in (3, 4, 5)], ["new 1", "new 2", "new 3"]
    from_images(images, captions, None, "", "", root / "set", overwrite=overwrite)


def which_set(root: Path) -> str:
    records = load_folder(root / "set", strict=True)[0].records
    texts = {record.caption.split()[0] for record in records}
    (text,) = texts
    assert len(records) == {"old": 2, "new": 3}[text]
    for record in records:
        open_image(record.image)
    return text


def saved_set(root: Path) -> None:
    dataset = toy_dataset(root.parent / "toys", (1, 2))
    save_dataset(dataset, root / "set", overwrite=True)


def which_saved_set(root: Path) -> str:
    records = load_folder(root / "set", strict=True)[0].records
    for record in records:
        [open_image(path) for path in record.files()]
    if records[0].caption.startswith("old"):
        return which_set(root)
    assert [len(record.negatives) for record in records] == [1, 2]
    return "new"


def absent_or(name: str, check: Callable[[Path], str]) -> Callable[[Path], str]:
    return lambda root: check(root) if (root / name).exists() else "old"


def write_job(root: Path) -> None:
    job.write_job(
        toy_run(root.parent / "run", [DiffusionLoss()], dataset=toy_dataset(root.parent / "toys")), root / "job"
    )


def read_job(root: Path) -> str:
    read = job.read_job(root / "job")
    weights = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.safetensors") if load_file(path))
    configs = [json.loads(path.read_text()) for path in root.rglob("config.json")]
    assert weights == [f"job/{name}" for name in (job.TENSORS, "unet/" + WEIGHTS, "vae/" + WEIGHTS)]
    assert len(configs) == 2 and read.name == "job"
    return "new"


def lora(root: Path) -> None:
    save_lora(root, "my", {"a.lora_down.weight": torch.ones(2, 2)}, CardFields(authors="all of us"))


def loras(root: Path) -> str:
    """Each LoRA that a menu shows can be loaded and has its card; the first stays."""
    names = sorted(path.name for path in root.glob("[!.]*.safetensors"))
    for name in names:
        assert load_file(root / name)["a.lora_down.weight"].sum() == 4 and "all of us" in read_card(root / name)
        assert (root / name).with_suffix(".md").read_text(encoding="utf-8") == read_card(root / name)
    assert names in (["my_00001.safetensors"], ["my_00001.safetensors", "my_00002.safetensors"])
    return "old" if len(names) == 1 else "new"


def preference(root: Path) -> None:
    preference_file.save_new(random_preference(), root, "kora")


def preferences(root: Path) -> str:
    found = sorted(path.name for path in root.glob("[!.]*.safetensors"))
    for name in found:
        preference_file.load(root / name)
    assert found[0] == "kora_00001.safetensors"
    return "old" if len(found) == 1 else "new"


def checkpoints(root: Path, *, again: bool = False) -> None:
    """Two more checkpoints where one is kept; again: the last one is written once more."""
    state = step(world(), 2)
    checkpoint.save(root / "run", state, {}, {}, keep=1)
    checkpoint.save(root / "run", state if again else step(state), {}, {}, keep=1)


def newest_checkpoint(root: Path) -> str:
    saved = checkpoint.newest(root / "run")
    assert saved is not None and checkpoint.damaged(root / "run") == []
    assert all((path / checkpoint.STATE).is_file() for path in (root / "run").glob("checkpoint-*"))
    checkpoint.restore(saved, world())
    return f"step {saved.step}"


def survey(root: Path) -> None:
    save_survey(*build(image_sets(2), SurveySettings(pages=1, attention_checks=0)), root)


def surveys(root: Path) -> str:
    pages = list(root.glob("*.html"))
    for page in pages:
        assert page.read_bytes().rstrip().endswith(b"</html>") and read_key(page.with_suffix(".survey.json"))
    return "new" if pages else "old"


def collected(root: Path) -> None:
    store = Store(root / "links", 10_000)
    store.open()
    lines = []
    for number in (1, 2):
        write_png(image(number), root.parent / "image.png")
        shutil.copyfile(root.parent / "image.png", store.part(number))
        saved = store.accept(number, f"https://example.org/{number}", "")
        store.log(saved)
        lines.append({"file_name": saved.file, "text": f"image {number}"})
    store.write("metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    store.close()


def collection(root: Path) -> str:
    """A dataset is there only with all of its images, and the next run goes on from the log."""
    folder = root / "links"
    if (folder / LOG).exists():
        store = Store(folder, 10_000)
        store.open()
        assert all((folder / saved.file).is_file() for saved in store.saved.values())
    if not (folder / "metadata.jsonl").exists():
        return "old"
    assert len(load_folder(folder, strict=True)[0]) == 2 and len(store.saved) == 2
    return "new"


def captions(root: Path) -> None:
    CaptionFile.write(root / "captions", Path("a.png"), "0123456789abcdef", "BLIP", ["a cook", "a kitchen"])


def caption_files(root: Path) -> str:
    found = CaptionFile.all_of(root / "captions")
    assert all(file.captions == ("a cook", "a kitchen") and not file.edited for file in found.values())
    return "new" if found else "old"


def train(root: Path) -> None:
    run = toy_run(root.parent / "toys", [DiffusionLoss()], run_folder=root / "run", steps=3, checkpoint_every=1, keep=1)
    runs.train_and_log(run)


def trained(root: Path) -> str:
    """The newest checkpoint is whole, and the journal has the rows of the steps before it."""
    saved = checkpoint.newest(root / "run")
    if saved is None:
        return "old"
    rows = [row["step"] for row in runs.read_metrics(root / "run")]
    assert rows[: saved.step - 1] == [*range(1, saved.step)], rows
    for path in (root / "run").glob("[!.]*.safetensors"):
        load_file(path)
    return "new" if (root / "run" / "run.safetensors").exists() else f"step {saved.step}"


def nothing(root: Path) -> None:
    pass


WORKS = {
    "a file over an old one": Work(
        lambda root: write_atomically(root / "file", b"old"),
        lambda root: write_atomically(root / "file", b"new"),
        lambda root: {b"old": "old", b"new": "new"}[(root / "file").read_bytes()],
    ),
    "a file in new folders": Work(
        nothing,
        lambda root: write_atomically(root / "a" / "b" / "file", b"new"),
        absent_or("a/b/file", lambda root: {b"new": "new"}[(root / "a" / "b" / "file").read_bytes()]),
    ),
    "a dataset over an old one": Work(old_set, saved_set, which_saved_set),
    "images over an old set": Work(old_set, new_set, which_set),
    "a first set of images": Work(nothing, lambda root: new_set(root, overwrite=False), absent_or("set", which_set)),
    "a job": Work(nothing, write_job, absent_or("job", read_job)),
    "a second LoRA": Work(lora, lora, loras),
    "a second preference": Work(preference, preference, preferences),
    "checkpoints": Work(
        lambda root: checkpoint.save(root / "run", step(world()), {}, {}), checkpoints, newest_checkpoint, "step 3"
    ),
    "a checkpoint again": Work(
        lambda root: checkpoint.save(root / "run", step(world()), {}, {}),
        lambda root: checkpoints(root, again=True),
        newest_checkpoint,
        "step 2",
    ),
    "a survey": Work(nothing, survey, surveys),
    "downloads": Work(nothing, collected, collection),
    "captions": Work(nothing, captions, caption_files),
    "a run": Work(nothing, train, trained),
}
