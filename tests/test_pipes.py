"""A pipe, a socket or a device among files: no menu and no loader opens it, so nothing waits for its other end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bad_data import noise
from node_datasets import empty_folders, folder_paths, one_sentence
from test_nodes_schema import NODES

from comfy_scoft.comfyui.nodes.captions import CaptionGeneric
from comfy_scoft.comfyui.nodes.collect import DownloadLinks
from comfy_scoft.comfyui.nodes.data import LoadDataset
from comfy_scoft.comfyui.nodes.survey import LoadResponses, answer_folders
from comfy_scoft.comfyui.nodes.training import ReadCard
from comfy_scoft.comfyui.small_vae import small_vae
from comfy_scoft.common.errors import UserError
from comfy_scoft.common.files import append_line, file_hash, regular
from comfy_scoft.corrector import preference_file
from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.dataset.rows import read_lines
from comfy_scoft.data.download.links import read_links
from comfy_scoft.data.images import check_image, image_size, open_image
from comfy_scoft.features import load_features
from comfy_scoft.models.lora import load_lora
from comfy_scoft.models.single_file import load_base
from comfy_scoft.negatives.controlnet_pipeline import load_controlnet
from comfy_scoft.negatives.depth import load_depth
from comfy_scoft.survey import responses
from comfy_scoft.survey.answer_file import AnswerError, read_limited
from comfy_scoft.training import checkpoint, job
from comfy_scoft.training.model_card import read_card
from comfy_scoft.training.run_folder import read_metrics, run_names

SECONDS = 60
"""More than any of this takes on a busy machine; an open pipe takes for ever."""


@contextmanager
def no_waiting() -> Iterator[None]:
    def waited(*_: object) -> None:
        pytest.fail("it waits for the other end of a pipe")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folders with a pipe in the place of each file that a menu of ours looks at."""
    root = empty_folders(tmp_path, monkeypatch)
    kinds = ("loras", "checkpoints", "clip_vision", "vae_approx", "controlnet")
    monkeypatch.setattr(folder_paths, "models_dir", str(root / "models"))
    listed = {kind: ([str(root / "models" / kind)], folder_paths.supported_pt_extensions) for kind in kinds}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folder_paths.folder_names_and_paths | listed)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name in (
        *("input/a.json", "input/set/metadata.jsonl", "input/set/a.txt", "input/set/metadata.csv", "input/links.csv"),
        *("input/answers/a.json", "input/answers/b.survey.json", "input/pictures/a.png", "input/pictures/a.txt"),
        *(f"models/{kind}/pipe.safetensors" for kind in kinds),
        *("models/vae_approx/taesd_encoder.safetensors", "models/vae_approx/taesd_decoder.safetensors"),
        *("models/captioners/one/config.json", "models/depth_estimators/one/config.json"),
        *("models/scoft_preferences/pipe.safetensors", "output/scoft/preferences/pipe.safetensors"),
        *("output/scoft/captions/a-0123456789abcdef.txt", "output/scoft/datasets/saved/train/metadata.jsonl"),
        *("output/scoft/runs/run/checkpoint-00000001/state.json", "output/scoft/runs/run/metrics.jsonl"),
        *("output/scoft/surveys/a.survey.json", "output/scoft/jobs/job/job.json"),
    ):
        pipe(root / name)
    for kind in ("captioners", "depth_estimators"):
        (root / "models" / kind / "one" / "model.safetensors").write_bytes(b"")
    return root


def test_no_menu_waits_for_a_pipe(folders: Path) -> None:
    with no_waiting():
        schemas = [node.define_schema() for node in NODES]
        assert len(schemas) == len(NODES) > 30
        assert "answers" not in answer_folders()


def test_a_check_and_a_fingerprint_do_not_wait_for_one(folders: Path) -> None:
    with no_waiting():
        assert "links.csv" in str(DownloadLinks.validate_inputs(links="links.csv", name=""))
        LoadDataset.fingerprint_inputs(folder="set")
        LoadResponses.fingerprint_inputs(folder="answers")
        assert CaptionGeneric.fingerprint_inputs() == ""
        assert run_names(folders / "output/scoft/runs") == ["run"]


LOADERS: dict[str, Callable[[Path], Any]] = {
    "the card of a listed LoRA": lambda p: ReadCard.execute("pipe.safetensors"),
    "a card": read_card,
    "a LoRA": load_lora,
    "a base model": load_base,
    "a ControlNet": lambda p: load_controlnet(p, None),  # type: ignore[arg-type]
    "features": lambda p: load_features("CLIP ViT-B/32", p),
    "a preference": preference_file.load,
    "a depth estimator": lambda p: load_depth("DPT-hybrid (transformers)", p.parents[1] / "depth_estimators" / "one"),
    "a job": job.read_job,
    "a job's folder": lambda p: job.read_job(p.parents[2] / "output/scoft/jobs/job"),
    "an image": open_image,
    "an image's check": check_image,
    "an image's size": image_size,
    "a dataset": lambda p: load_folder(p.parents[2] / "input/set"),
    "images with captions": lambda p: load_folder(p.parents[2] / "input/pictures"),
    "a saved dataset": lambda p: LoadDataset.execute("saved (saved)", "", "", "", "all", 0),
    "links": lambda p: read_links(p.parents[2] / "input/links.csv"),
    "answers": lambda p: LoadResponses.execute("answers"),
    "a survey's key": lambda p: responses.read_key(p.parents[2] / "input/answers/b.survey.json"),
    "a hash": file_hash,
}


@pytest.mark.parametrize("name", LOADERS)
def test_no_loader_waits_for_a_pipe_and_each_says_one_sentence(name: str, folders: Path) -> None:
    with no_waiting(), pytest.raises(UserError) as error:
        LOADERS[name](folders / "models/loras/pipe.safetensors")
    assert one_sentence(error)


def test_what_is_only_looked_for_is_not_there(folders: Path) -> None:
    with no_waiting():
        run = folders / "output/scoft/runs/run"
        assert checkpoint.newest(run) is None and read_metrics(run) == []
        with pytest.raises(AnswerError, match="not a regular file"):
            read_limited(folders / "input/a.json")

        class Base:
            family = "sd1"

        assert small_vae(Base()) is None  # type: ignore[arg-type]


def test_nothing_is_written_into_a_pipe(tmp_path: Path) -> None:
    with no_waiting(), pytest.raises(OSError, match="not a regular file"):
        append_line(pipe(tmp_path / "metrics.jsonl"), b"{}")


def test_links_to_pipes_sockets_and_devices_are_refused_and_a_link_to_a_file_is_not(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "to file").symlink_to("file")
    (tmp_path / "to pipe").symlink_to(pipe(tmp_path / "pipe"))
    with socket.socket(socket.AF_UNIX) as own:
        monkeypatch.chdir(tmp_path)  # the address of a socket is short
        own.bind("socket")
        for name in ("pipe", "to pipe", "socket", "/dev/zero", "."):
            with no_waiting(), pytest.raises(OSError, match="not a regular file"):
                next(read_lines(tmp_path / name, name))
    assert regular(tmp_path / "file") and regular(tmp_path / "to file")
    assert list(read_lines(tmp_path / "to file", "to file")) == [("to file line 1", "a")]
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "nothing")


def test_a_caption_file_of_a_terabyte_is_refused_at_its_beginning(tmp_path: Path) -> None:
    """What a broken copy leaves: a name, a size and no bytes."""
    (tmp_path / "a.txt").touch()
    os.truncate(tmp_path / "a.txt", 1 << 40)
    noise(tmp_path / "a.png")
    with no_waiting(), pytest.raises(UserError, match=r"a\.txt line 1 is longer than 1,000,000 characters"):
        load_folder(tmp_path)
