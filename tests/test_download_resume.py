"""Collecting by links: what is there is not asked for again, and only what is whole is there."""

from __future__ import annotations

import json
import threading
import time

import hostile_server as bad
import pytest
from collecting import metadata, quick, rows_of, run, write_csv
from hostile_server import HostileServer, answer, image_bytes

from comfy_scoft.data.dataset import load_folder


@pytest.fixture
def server():
    with HostileServer() as found:
        for n in range(12):
            found.pages[f"/{n}.jpg"] = answer(image_bytes(n))
        yield found


def test_a_second_run_asks_for_nothing_and_changes_nothing(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "2.jpg", "gone.jpg"))
    first, _ = run(links, server)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    server.hits.clear()
    again, report = run(links, server)
    assert server.hits == {"/gone.jpg": 1} and again == first
    assert "Fetched now: 0; there before: 2; dead or refused: 1" in report
    files = {path: stamp for path, stamp in before.items() if path.is_file()}
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_only_what_is_new_changed_or_damaged_is_fetched(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "2.jpg", "3.jpg"))
    dataset, _ = run(links, server)
    dataset.records[0].image.unlink()
    cut = dataset.records[1].image
    cut.write_bytes(cut.read_bytes()[:-10])
    server.hits.clear()
    dataset, report = run(write_csv(links, rows_of(server, "1.jpg", "2.jpg", "3.jpg", "4.jpg")), server)
    assert server.hits == {"/1.jpg": 1, "/2.jpg": 1, "/4.jpg": 1} and len(dataset) == 4
    assert "Fetched now: 3; there before: 1" in report
    assert [record.image.read_bytes() for record in dataset.records] == [image_bytes(n) for n in (1, 2, 3, 4)]


def test_words_that_change_in_the_list_change_in_the_dataset_without_a_request(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "2.jpg"))
    run(links, server)
    server.hits.clear()
    rows = [{**row, "caption": "new words", "category": "nature"} for row in rows_of(server, "2.jpg")]
    dataset, _ = run(write_csv(links, rows), server)
    assert [(r.caption, r.category) for r in dataset.records] == [("new words", "nature")] and not server.hits


class Stop(Exception):
    pass


def test_an_interrupt_stops_at_once_and_the_next_run_goes_on_from_there(tmp_path, server):
    names = [f"{n}.jpg" for n in range(12)]
    server.pages["/5.jpg"] = bad.silence
    links = write_csv(tmp_path / "links.csv", rows_of(server, *names))

    def stop(done, total, text):
        if done >= 4:
            raise Stop

    start = time.monotonic()
    with pytest.raises(Stop):
        run(links, server, stop, quick(server, gap=90.0, whole=90.0, at_once=1, delay=0.05))
    assert time.monotonic() - start < 60
    there = metadata(tmp_path)
    assert 4 <= len(there) < 12 and len(load_folder(tmp_path / "set")[0]) == len(there)
    assert not (tmp_path / "set/.parts").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "scoft download"]
    server.pages["/5.jpg"] = answer(image_bytes(5))
    server.hits.clear()
    dataset, _ = run(links, server)
    assert len(dataset) == 12 and sum(server.hits.values()) == 12 - len(there)


def test_a_part_of_a_killed_run_and_a_torn_last_line_are_never_taken_for_pictures(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "2.jpg"))
    dataset, _ = run(links, server)
    log = tmp_path / "set/downloads.jsonl"
    log.write_bytes(log.read_bytes()[:-30])
    (tmp_path / "set/.parts").mkdir()
    (tmp_path / "set/.parts/of link 2").write_bytes(image_bytes(2)[:500])
    server.hits.clear()
    again, _ = run(links, server)
    assert server.hits == {"/2.jpg": 1} or server.hits == {"/1.jpg": 1}
    assert again.records == dataset.records
    server.hits.clear()
    run(links, server)
    assert not server.hits


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../secret.jpg"},
        {"file": "/etc/passwd"},
        {"file": "images/../../secret.jpg"},
        {"file": "images/00001_0123456789ab.jpg"},
        {"sha256": "0" * 64},
        {"bytes": "many"},
    ],
)
def test_a_log_that_somebody_changed_is_not_believed(tmp_path, server, change):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg"))
    run(links, server)
    (tmp_path / "secret.jpg").write_bytes(image_bytes(9))
    log = tmp_path / "set/downloads.jsonl"
    log.write_text(json.dumps(json.loads(log.read_text()) | change) + "\n")
    server.hits.clear()
    dataset, _ = run(links, server)
    assert server.hits == {"/1.jpg": 1} and dataset.records[0].image.read_bytes() == image_bytes(1)


def test_a_folder_that_holds_something_else_is_never_written_to(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/metadata.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="'set' was not made by collecting links and holds other files"):
        run(links, server)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["metadata.jsonl"] and not server.hits


def test_a_folder_whose_parts_lead_elsewhere_is_refused(tmp_path, server):
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg"))
    run(links, server)
    (tmp_path / "elsewhere").mkdir()
    for file in (tmp_path / "set/images").iterdir():
        file.rename(tmp_path / "elsewhere" / file.name)
    (tmp_path / "set/images").rmdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="images in the folder 'set' is a link"):
        run(links, server)


def test_a_full_disk_ends_the_run_in_one_sentence(tmp_path, server, monkeypatch):
    links = write_csv(tmp_path / "links.csv", rows_of(server, *(f"{n}.jpg" for n in range(12))))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ValueError, match=r"could not be written \(No space left on device\): free some space\.$"):
        run(links, server, limits=quick(server, at_once=1, delay=0.05))
    assert sum(server.hits.values()) < 12
