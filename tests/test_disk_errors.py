"""What the system refuses is one sentence that says why and what to do about it, wherever a file is written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from every import every
from preference_toys import random_preference
from safetensors import SafetensorError
from survey_toys import image_sets
from toys import toy_dataset, toy_run

from comfy_scoft.common.errors import ADVICE, DiskError, UserError, advice
from comfy_scoft.common.files import disk_errors, file_hash, write_atomically
from comfy_scoft.corrector import preference_file
from comfy_scoft.data.captions import CaptionFile
from comfy_scoft.data.dataset import from_images, load_folder, save_dataset
from comfy_scoft.data.images import open_image, write_png
from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.survey.build import SurveySettings, build
from comfy_scoft.survey.build import save as save_survey
from comfy_scoft.training import job
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.model_card import CardFields, save_lora
from comfy_scoft.training.run_folder import alone

TELLS = {
    "ENOSPC": "free some space",
    "EDQUOT": "quota",
    "EFBIG": "larger files",
    "EROFS": "that you can write to",
    "EACCES": "permission",
    "EPERM": "permission",
    "ENOLCK": "locks",
    "ENAMETOOLONG": "shorter name",
    "EMFILE": "open files",
    "ENFILE": "other programs",
    "EIO": "check the disk",
    "ESTALE": "connect the network drive",
    "EBUSY": "close the program",
    "ENOENT": "check the path",
    "ENOTDIR": "check the path",
}


@every("name", TELLS)
def test_each_refusal_of_the_system_has_its_own_advice(name: str) -> None:
    error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)), "/a/machine's/path/file.txt")
    with pytest.raises(DiskError) as raised, disk_errors("The file file.txt could not be written"):
        raise error
    assert isinstance(raised.value, UserError) and raised.value.errno == error.errno
    assert str(raised.value) == f"The file file.txt could not be written ({error.strerror}): {advice(error)}."
    assert TELLS[name] in advice(error)
    assert ("space" in advice(error)) == (name in ("ENOSPC", "EDQUOT")), "only a full disk is called full"


def test_what_safetensors_says_of_the_system_is_told_apart_too() -> None:
    with pytest.raises(DiskError, match=r"No space left on device.: free some space\.$"), disk_errors("The file"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), disk_errors("The file"):
        raise SafetensorError("a header of another kind")


def text(root: Path) -> None:
    write_atomically(root / "file.txt", b"text")


def images(root: Path) -> None:
    from_images([torch.ones(4, 4, 3)], ["white"], None, "", "", root / "set")


def dataset(root: Path) -> None:
    save_dataset(toy_dataset(root.parent / "toys", (1,)), root / "set")


def exported(root: Path) -> None:
    job.write_job(toy_run(root.parent / "run", [DiffusionLoss()]), root / "job")


def lora(root: Path) -> None:
    save_lora(root, "x", {"a.alpha": torch.ones(())}, CardFields())


def preference(root: Path) -> None:
    preference_file.save_new(random_preference(), root, "kora")


def survey(root: Path) -> None:
    save_survey(*build(image_sets(2), SurveySettings(pages=1, attention_checks=0)), root)


def png(root: Path) -> None:
    write_png(torch.ones(4, 4, 3), root / "negatives" / "0.png")


def caption(root: Path) -> None:
    CaptionFile.write(root, Path("a.png"), "0123456789abcdef", "BLIP", ["a cook"])


WRITERS: list[Callable[[Path], Any]] = [text, images, dataset, exported, lora, preference, survey, png, caption]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_is_one_sentence_for_everything_that_writes(write: Callable, tmp_path: Path, monkeypatch) -> None:
    """The disk takes the names and not the bytes, as a full one does."""
    root = tmp_path / "root"
    root.mkdir()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(root))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"^The (file|folder) .+ could not be written \(No space .+\): free some space\.$"
    ) as e:
        write(root)
    assert str(tmp_path) not in str(e.value)
    assert [path for path in root.rglob("*") if path.is_file()] == [], "a full disk needs the room"


def test_a_network_drive_without_locks_is_not_called_full(tmp_path: Path, monkeypatch) -> None:
    import filelock

    def no_locks(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with (
        pytest.raises(UserError, match=r"could not be written \(No locks available\), so it stopped;") as e,
        alone(tmp_path),
    ):
        pass
    assert "local disk" in str(e.value) and "space" not in str(e.value) and "resume" in str(e.value)


def test_a_run_that_cannot_be_begun_says_why(tmp_path: Path, monkeypatch) -> None:
    def refused(*given: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(
        UserError, match=r"cannot be written below 'runs' \(Read-only .+\): choose a folder that you can"
    ):
        runs.run_folder(tmp_path / "runs", "run")


def test_an_image_that_the_system_does_not_give_is_not_called_damaged(tmp_path: Path, monkeypatch) -> None:
    images(tmp_path)
    (image,) = tmp_path.rglob("*.png")

    def too_many(*given: Any, **named: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(image))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", too_many)
        with pytest.raises(DiskError, match=r"^The image IMAGE_0\.png cannot be read \(Too many open files\): close"):
            open_image(image)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", too_many)
        with pytest.raises(UserError, match=r"Too many open files"):
            load_folder(tmp_path / "set")
        with pytest.raises(DiskError, match=r"^The file IMAGE_0\.png cannot be read \(Too many open files\)"):
            file_hash(image)
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(
        DiskError, match=r"^The file IMAGE_0\.png cannot be read \(No such file .+\): check the path, or put"
    ):
        file_hash(image)


def test_every_advice_is_the_end_of_a_sentence() -> None:
    assert all(text and text[0].islower() and not text.endswith(".") for text in ADVICE.values())
