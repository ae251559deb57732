"""A real ComfyUI is started, driven over HTTP, and says in one message what went wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from comfy_server import ComfyServer, link_pack

from comfy_scoft.experiments.comfy_client import ComfyClient, ComfyError

SHIPPED = "community set of nuvia (shipped)"
IMAGE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "picture"}},
}


def test_a_workflow_runs_and_its_picture_comes_back(comfy: ComfyServer) -> None:
    entry = comfy.client.run(IMAGE, timeout=300)
    (image,) = entry["outputs"]["2"]["images"]
    assert comfy.client.view(image) == (comfy.base / "output" / image["filename"]).read_bytes()
    assert comfy.client.running() == []


def test_a_node_whose_result_is_only_passed_on_shows_its_report_too(comfy: ComfyServer) -> None:
    words = {"folder": SHIPPED, "culture": "", "place": "", "categories": "", "split": "train", "limit": 3}
    graph = {
        "1": {"class_type": "SCoFT_LoadDataset", "inputs": words},
        "2": {"class_type": "SCoFT_PreviewDataset", "inputs": {"dataset": ["1", 0], "rows": 1}},
    }
    (report,) = comfy.client.run(graph, timeout=300)["outputs"]["1"]["text"]
    assert report.startswith("3 images loaded, 0 left out\n")


def test_a_refused_workflow_names_the_node_and_the_input(comfy: ComfyServer) -> None:
    wrong = {**IMAGE, "1": {"class_type": "LoadImage", "inputs": {"image": "missing.png"}}}
    with pytest.raises(ComfyError, match=r"LoadImage \(node 1\).*missing\.png"):
        comfy.client.queue(wrong)


def test_a_file_that_is_not_there_is_named(comfy: ComfyServer) -> None:
    with pytest.raises(ComfyError, match="nothing.png"):
        comfy.client.view({"filename": "nothing.png", "type": "output"})


def test_a_server_that_is_not_there_is_said_so() -> None:
    client = ComfyClient("http://127.0.0.1:9")
    assert not client.alive()
    with pytest.raises(ComfyError, match="does not answer"):
        client.queue(IMAGE)
    with pytest.raises(ValueError, match="http://host:port"):
        ComfyClient("127.0.0.1:8188")


def test_a_second_server_on_the_same_port_is_refused(comfy: ComfyServer, tmp_path: Path) -> None:
    with pytest.raises(ComfyError, match="another port"):
        ComfyServer(sys.executable, comfy.comfyui, tmp_path, port=comfy.port).start()


def test_a_comfyui_that_dies_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit('no such luck')")
    with pytest.raises(ComfyError, match=r"exit code 1(.|\n)*no such luck"):
        ComfyServer(sys.executable, tmp_path, tmp_path / "base").start()


@pytest.mark.parametrize(
    "line",
    [
        "Cannot import {pack} module for custom nodes: no module named x",
        "Error while calling comfy_entrypoint in {pack}: no module named x",
        "comfy_entrypoint in {pack} did not return a ComfyExtension, skipping.",
    ],
)
def test_a_pack_that_comfyui_could_not_import_fails_the_start(tmp_path: Path, monkeypatch, line: str) -> None:
    line = line.format(pack=tmp_path / "base" / "custom_nodes" / "comfy_scoft")
    (tmp_path / "main.py").write_text(f"import time; print({line!r}, flush=True); time.sleep(60)")
    server = ComfyServer(sys.executable, tmp_path, tmp_path / "base")
    monkeypatch.setattr(server.client, "alive", lambda: server.log.exists() and line in server.tail())
    with pytest.raises(ComfyError, match="could not import the pack"):
        server.start()
    assert server.process is not None and server.process.poll() is not None


def test_linking_the_pack_again_replaces_the_link_and_never_its_target(tmp_path: Path) -> None:
    packs = [tmp_path / "one", tmp_path / "two"]
    for pack in packs:
        pack.mkdir()
        (pack / "__init__.py").write_text(pack.name)
    for pack in (*packs, packs[1]):
        target = link_pack(pack, tmp_path / "base")
        assert (target / "__init__.py").read_text() == pack.name
    assert all((pack / "__init__.py").is_file() for pack in packs)
