"""Download Links inside ComfyUI: its menus and names stay in the input folder, and no widget reaches the policy."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path

import pytest
from collecting import HERE, all_here, quick
from hostile_server import HostileServer, answer, image_bytes
from node_datasets import comfy, empty_folders

from comfy_scoft.comfyui import dataset_folders
from comfy_scoft.comfyui.nodes import collect as nodes_collect
from comfy_scoft.comfyui.nodes import data as nodes_data
from comfy_scoft.data.download import collect


@pytest.fixture(autouse=True)
def comfy_folders(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


@pytest.fixture
def server(monkeypatch):
    """The hostile server, with every name leading to it and the policy of the tests in place of the real one."""
    with HostileServer() as found:
        for n in range(3):
            found.pages[f"/{n}.jpg"] = answer(image_bytes(n))

        def here(*given, **named):
            limits = quick(found, delay=given[6].delay, max_bytes=given[6].max_bytes)
            return collect(*given[:6], limits, *given[7:], allowed=lambda address: address == HERE, lookup=all_here)

        monkeypatch.setattr(nodes_collect, "collect", here)
        yield found


def write_list(folder: Path, server: HostileServer, *names: str, file: str = "our links.jsonl") -> str:
    rows = [{"url": server.url(f"/{name}"), "caption": f"image {name}", "category": "nature"} for name in names]
    (folder / "input" / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / "input" / file).write_text("\n".join(map(json.dumps, rows)))
    return file


def run(links: str, name: str = "", culture: str = "Nuvian", place: str = "Nuvia", limit: int = 0, **more: object):
    return nodes_collect.DownloadLinks.execute(links, name, culture, place, limit, **more).args


def test_the_pictures_lie_in_the_input_folder_and_load_dataset_finds_them(comfy_folders, server):
    dataset, report = run(write_list(comfy_folders, server, "0.jpg", "1.jpg", "gone.jpg"))
    assert dataset.root == (comfy_folders / "input/our links images").resolve()
    assert [record.place for record in dataset.records] == ["Nuvia", "Nuvia"] and "404" in report
    assert dataset_folders.dataset_names() == [dataset_folders.SHIPPED, "our links images"]
    again = nodes_data.LoadDataset.execute("our links images", "", "", "", "all", 0)[0]
    assert again.records == dataset.records
    assert dataset_folders.link_files() == ["our links.jsonl"]


def test_it_runs_inside_a_running_event_loop_as_comfyui_has_one(comfy_folders, server):
    async def prompt():
        return run(write_list(comfy_folders, server, "0.jpg"))

    assert len(asyncio.run(prompt())[0]) == 1


def test_the_menu_offers_lists_and_no_datasets_own_tables(comfy_folders, server):
    run(write_list(comfy_folders, server, "0.jpg", "gone.jpg", file="deep/er/list.jsonl"), "here")
    (comfy_folders / "input/notes.txt").write_text("x")
    (comfy_folders / "input/other.CSV").write_text("url,caption\n")
    options = nodes_collect.DownloadLinks.INPUT_TYPES()["required"]["links"][1]["options"]
    assert options == dataset_folders.link_files() == ["deep/er/list.jsonl", "other.CSV"]


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "C:\\secret.csv", "a/../../secret.csv", "no.csv", ""])
def test_a_list_outside_the_input_folder_is_refused_before_and_at_execution(comfy_folders, name):
    (comfy_folders / "secret.csv").write_text("url,caption\nhttp://example.org/a.jpg,x\n")
    assert isinstance(nodes_collect.DownloadLinks.validate_inputs(links=name), str)
    with pytest.raises(ValueError):
        run(name)


@pytest.mark.parametrize("name", ["..", "../b", "a\\..\\..\\b", "/a", "C:a", ".hidden", "a\0", "x" * 300])
def test_a_folder_name_with_a_path_in_it_is_refused_and_nothing_is_fetched(comfy_folders, server, name):
    links = write_list(comfy_folders, server, "0.jpg")
    assert isinstance(nodes_collect.DownloadLinks.validate_inputs(links=links, name=name), str)
    with pytest.raises(ValueError, match="cannot name a file|leads out of"):
        run(links, name)
    assert not server.hits


def test_a_list_with_an_odd_name_gets_a_plain_folder(comfy_folders, server):
    dataset, _ = run(write_list(comfy_folders, server, "0.jpg", file="lïnks, [2026] & more!.jsonl"))
    assert dataset.root.name == "lïnks 2026 more images"


def test_the_interrupt_button_stops_it_and_the_next_run_goes_on(comfy_folders, server):
    def press(talk):
        comfy.model_management.interrupt_current_processing(True)
        talk.wait(30)

    server.pages["/stop.jpg"] = press
    links = write_list(comfy_folders, server, "0.jpg", "stop.jpg")
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(links, pause=0.1)
    server.pages["/stop.jpg"] = answer(image_bytes(5))
    dataset, report = run(links, pause=0.1)
    assert len(dataset) == 2 and server.hits["/0.jpg"] == 1 and "Fetched now: 1; there before: 1" in report


def test_widgets_set_size_pause_and_duplicates_and_nothing_else(comfy_folders, server):
    server.pages["/copy.jpg"] = server.pages["/0.jpg"]
    server.pages["/large.bmp"] = answer(image_bytes(4, "BMP", (300, 200)))
    links = write_list(comfy_folders, server, "0.jpg", "copy.jpg", "large.bmp")
    dataset, report = run(links, max_megabytes=0.1, pause=0.1, duplicates="keep all")
    assert len(dataset) == 2 and "larger than the allowed 0.1 MB" in report
    assert run(links, max_megabytes=1.0, pause=0.1)[0].records[-1].image.suffix == ".bmp"
    schema = nodes_collect.DownloadLinks.GET_SCHEMA()
    names = [entry.id for entry in schema.inputs]
    assert names == [
        *("links", "name", "culture", "place", "limit"),
        *("duplicates", "max_megabytes", "pause", "attempt"),
    ]
    assert set(inspect.signature(nodes_collect.DownloadLinks.execute).parameters) == set(names)
    assert all(entry.tooltip and entry.tooltip.endswith(".") for entry in (*schema.inputs, *schema.outputs))


def test_the_node_asks_no_private_address(comfy_folders):
    with HostileServer() as server:
        for host in ("127.0.0.1", "localhost", "[::1]"):
            rows = json.dumps({"url": f"http://{host}/a.jpg", "caption": "x"})
            (comfy_folders / "input/links.jsonl").write_text(rows)
            with pytest.raises(ValueError, match="is not on the public internet"):
                run("links.jsonl")
        assert not server.hits


def test_the_fingerprint_follows_the_list(comfy_folders, server):
    def now():
        return nodes_collect.DownloadLinks.fingerprint_inputs(links="our links.jsonl", attempt=1)

    write_list(comfy_folders, server, "0.jpg")
    seen = [now()]
    run("our links.jsonl")
    assert now() == seen[0]
    write_list(comfy_folders, server, "0.jpg", "1.jpg")
    assert now() != seen[0] and nodes_collect.DownloadLinks.fingerprint_inputs(links=None) == ""
