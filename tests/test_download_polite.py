"""Collecting by links: how often a host is asked, and how a run is watched."""

from __future__ import annotations

import random
import threading
import time

import pytest
from collecting import quick, rows_of, run, write_csv
from hostile_server import HostileServer, answer, image_bytes

from comfy_scoft.data.download.limits import Limits
from comfy_scoft.data.download.progress import run_watched
from comfy_scoft.data.download.rate_limit import backoff_delay, retry_after


@pytest.fixture
def server():
    with HostileServer() as found:
        for n in range(12):
            found.pages[f"/{n}.jpg"] = answer(image_bytes(n))
        yield found


@pytest.mark.parametrize("most", [1, 2])
def test_few_requests_at_once_to_one_host(tmp_path, server, most):
    now, counts, counting = [], [], threading.Lock()

    def slow(talk):
        with counting:
            now.append(talk.path)
            counts.append(len(now))
        talk.wait(0.1)
        with counting:  # before the answer, for after it the next request may come at any time
            now.remove(talk.path)
        talk.send(answer(image_bytes(int(talk.path.split(".")[0][1:]))))

    for n in range(6):
        server.pages[f"/{n}.jpg"] = slow
    rows = rows_of(server, *(f"{n}.jpg" for n in range(6)))
    run(write_csv(tmp_path / "links.csv", rows), server, limits=quick(server, per_host=most))
    assert len(counts) == 6 and max(counts) <= most


def test_there_is_a_pause_between_the_starts_of_requests_to_one_host(tmp_path, server):
    """By the whole time: when each of them reaches the server depends on how busy this machine is."""
    rows = rows_of(server, *(f"{n}.jpg" for n in range(6)))
    start = time.monotonic()
    run(write_csv(tmp_path / "links.csv", rows), server, limits=quick(server, delay=0.2, per_host=6))
    assert time.monotonic() - start >= 5 * 0.2 and sum(server.hits.values()) == 6


def test_a_host_that_stumbles_is_asked_again_and_one_that_says_no_is_not(tmp_path, server):
    left = {"/busy.jpg": 2, "/cut.jpg": 1}

    def stumbling(talk):
        if left[talk.path]:
            left[talk.path] -= 1
            talk.send(answer(b"", "503 Service Unavailable") if talk.path == "/busy.jpg" else b"HTTP/1.1")
        else:
            talk.send(answer(image_bytes(len(talk.path))))

    server.pages["/busy.jpg"] = server.pages["/cut.jpg"] = stumbling
    server.pages["/no.jpg"] = answer(b"", "403 Forbidden")
    server.pages["/never.jpg"] = answer(b"", "500 Internal Server Error")
    names = ("busy.jpg", "cut.jpg", "no.jpg", "never.jpg")
    dataset, _ = run(write_csv(tmp_path / "links.csv", rows_of(server, *names)), server)
    assert [record.caption for record in dataset.records] == ["image busy.jpg", "image cut.jpg"]
    assert server.hits == {"/busy.jpg": 3, "/cut.jpg": 2, "/no.jpg": 1, "/never.jpg": 3}


def test_retry_after_holds_the_whole_host(tmp_path, server):
    times = []

    def once(talk):
        times.append(time.monotonic())
        busy = len(times) == 1
        talk.send(answer(b"", "429 Too Many", Retry_After="1") if busy else answer(image_bytes(1)))

    server.pages["/a.jpg"] = once
    server.pages["/b.jpg"] = lambda talk: (times.append(time.monotonic()), talk.send(answer(image_bytes(2))))
    links = write_csv(tmp_path / "links.csv", rows_of(server, "a.jpg", "b.jpg"))
    run(links, server, limits=quick(server, per_host=1))
    assert len(times) == 3 and times[1] - times[0] > 0.95


def test_a_retry_after_that_is_too_long_is_told_instead_of_waited_for(tmp_path, server):
    server.pages["/a.jpg"] = answer(b"", "429 Too Many Requests", Retry_After="3600")
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"too many requests \(429\), and asks to wait 3,600 seconds: try again then"):
        run(write_csv(tmp_path / "links.csv", rows_of(server, "a.jpg")), server)
    assert time.monotonic() - start < 60 and server.hits == {"/a.jpg": 1}


def test_retry_after_is_read_as_seconds_or_as_a_date_and_never_fails():
    assert retry_after("120") == 120.0 and retry_after(" 0 ") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert 80_000_000 < (retry_after("Wed, 21 Oct 2099 07:28:00 GMT") or 0)
    rng = random.Random(0)  # noqa: S311
    odd = ["", "soon", "-5", "9" * 5000, "²", "Wed, 99 Xxx 0000 99:99:99 GMT", "Wed, 21 Oct 99999 07:28:00 GMT", None]
    odd += ["".join(chr(rng.randrange(32, 300)) for _ in range(rng.randrange(40))) for _ in range(2000)]
    assert all(value is None or value >= 0 for value in map(retry_after, odd))


def test_pauses_double_and_their_jitter_depends_on_seed_link_and_attempt_alone():
    limits = Limits(backoff=2.0)
    waits = [[backoff_delay(limits, link, attempt) for attempt in range(3)] for link in range(200)]
    for attempt in range(3):
        values = [row[attempt] / 2.0 ** (attempt + 1) for row in waits]
        assert 0.5 <= min(values) < 0.55 and 1.45 < max(values) <= 1.5
    assert waits[7] == [backoff_delay(limits, 7, attempt) for attempt in range(3)]
    assert backoff_delay(Limits(seed=1), 7, 0) != waits[7][0]


def test_progress_is_told_from_the_calling_thread(tmp_path, server):
    seen = []
    links = write_csv(tmp_path / "links.csv", rows_of(server, "1.jpg", "2.jpg", "gone.jpg"))
    run(links, server, lambda *told: seen.append((*told, threading.current_thread())))
    assert {entry[3] for entry in seen} == {threading.current_thread()}
    assert seen[-1][:2] == (3, 3) and seen[-1][2] == "2 fetched, 1 failed, 3 in all"


def test_work_that_fails_fails_in_the_calling_thread():
    async def work():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        run_watched(work, lambda: None, every=0.01)
