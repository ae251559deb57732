"""A hostile server on this machine: nothing gets through, each attempt ends soon, and each is told in a sentence.

The real policy refuses this machine's own addresses, as it must. Where a test has to connect, it gives `collect`
another one (only 127.0.0.1 may be asked) and names that resolve to it; no node can do that.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
import tracemalloc
from pathlib import Path

import hostile_server as bad
import pytest
from collecting import HERE, all_here, quick
from hostile_server import HostileServer, answer, image_bytes, redirect

from comfy_scoft.data.download import Limits, collect


@pytest.fixture
def server():
    with HostileServer() as found:
        found.pages["/good.jpg"] = answer(image_bytes(99))
        yield found


def gather(folder: Path, server: HostileServer, *urls: str, policy: dict | None = None, **changes: object):
    """(dataset, report, sentence for each bad link) of a list that begins with one good link."""
    rows = [{"url": server.url("/good.jpg"), "caption": "good"}, *({"url": url, "caption": "bad"} for url in urls)]
    (folder / "links.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = {"allowed": lambda address: address == HERE, "lookup": all_here} | (policy or {})
    dataset, report = collect(folder / "links.jsonl", folder / "set", limits=quick(server, **changes), **policy)
    reasons = [line.split(" | ")[2] for line in report.splitlines() if re.match(r"line \d+ \| ", line)]
    for reason in reasons:
        assert reason.endswith(".") and reason.isprintable() and ". " not in reason and 20 < len(reason) < 300, reason
    return dataset, report, reasons


def refused(folder: Path, server: HostileServer, *urls: str, **changes: object) -> list[str]:
    """The reasons, after making sure that the good image alone is there and nothing else was written."""
    dataset, _, reasons = gather(folder, server, *urls, **changes)
    assert [record.caption for record in dataset.records] == ["good"] and len(reasons) == len(urls)
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (image,) = [name for name in kept if name.startswith("set/images/")]
    assert set(kept) - {image} == {
        "links.jsonl",
        "set/downloads.jsonl",
        "set/links_report.csv",
        "set/metadata.jsonl",
    }
    return reasons


def test_the_real_policy_refuses_this_machine_by_literal_by_name_and_in_every_spelling(tmp_path, server):
    server.pages["/secret"] = answer(image_bytes())
    port = server.port
    hosts = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1"]  # noqa: S104
    hosts += ["0177.0.0.1", "127。0。0。1", "user@127.0.0.1", "localhost.", "127.0.0.1.", "[::ffff:7f00:1]"]
    rows = [{"url": f"http://{host}:{port}/secret", "caption": "x"} for host in hosts]
    (tmp_path / "links.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="^No link of links.jsonl gave an image: The host 127.0.0.1 is not on the"):
        collect(tmp_path / "links.jsonl", tmp_path / "set", limits=quick(server))
    table = (tmp_path / "set/links_report.csv").read_text()
    assert table.count("not fetched") == len(hosts) and "cannot be reached" not in table
    assert not server.hits and not server.odd


def test_by_default_only_the_webs_own_ports_are_asked(tmp_path, server):
    (tmp_path / "links.csv").write_text(f"url,caption\n{server.url('/good.jpg')},x\n")
    with pytest.raises(ValueError, match="uses port"):
        collect(tmp_path / "links.csv", tmp_path / "set", lookup=all_here, allowed=lambda address: True)
    assert not server.hits


@pytest.mark.parametrize("secret", ["10.0.0.1", "169.254.169.254", "127.0.0.2", "::1", "192.168.1.1"])
def test_a_name_with_one_private_address_is_never_connected_to(tmp_path, server, secret):
    async def lookup(host, port):
        return ["127.0.0.1", secret] if host == "evil.test" else ["127.0.0.1"]

    (why,) = refused(tmp_path, server, server.url("/secret", "evil.test"), policy={"lookup": lookup})
    assert (
        why == f"The host evil.test is at {secret}, which is not on the public internet: only public hosts are allowed."
    )
    assert server.hits == {"/good.jpg": 1}


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/secret",
        "//192.168.1.1/secret",
        "http://2130706433/secret",
        "http://inside.test/secret",
        "file:///etc/passwd",
        "ftp://127.0.0.1/secret",
        "http://127.0.0.1:22/secret",
        "http://user:word@127.0.0.1/secret",
        "http://[::1/secret",
    ],
)
def test_each_redirect_is_checked_anew(tmp_path, server, target):
    async def lookup(host, port):
        return ["10.0.0.1"] if host == "inside.test" else ["127.0.0.1"]

    server.pages["/bad"] = redirect(target)
    server.pages["/worse"] = redirect("/bad", "307 Temporary Redirect")
    reasons = refused(tmp_path, server, server.url("/bad"), server.url("/worse"), policy={"lookup": lookup})
    assert reasons[0] == reasons[1] and "cannot be reached" not in reasons[0]
    assert set(server.hits) == {"/good.jpg", "/bad", "/worse"}


def test_a_name_that_resolves_elsewhere_after_the_check_is_connected_to_where_it_was_checked(tmp_path, server):
    asked: list[str] = []

    async def turncoat(host, port):
        asked.append(host)
        return ["127.0.0.1"] if asked.count(host) == 1 else ["10.0.0.1"]

    server.pages["/once.jpg"] = answer(image_bytes(1))
    server.pages["/hop"] = redirect("/twice.jpg")
    server.pages["/twice.jpg"] = answer(image_bytes(2))
    urls = server.url("/once.jpg", "once.test"), server.url("/hop", "hop.test")
    dataset, _, reasons = gather(tmp_path, server, *urls, policy={"lookup": turncoat})
    assert [record.source for record in dataset.records] == [server.url("/good.jpg"), urls[0]]
    assert sorted(asked) == ["hop.test", "hop.test", "images.test", "once.test"]
    assert "hop.test is at 10.0.0.1" in reasons[0] and not server.hits["/twice.jpg"]


def test_redirect_loops_and_long_chains_end(tmp_path, server):
    server.pages["/a"], server.pages["/b"] = redirect("/b"), redirect("/a")
    server.pages["/self"] = redirect("/self")
    server.pages["/nowhere"] = answer(b"", "302 Found")
    for n in range(20):
        server.pages[f"/{n}"] = redirect(f"/{n + 1}")
    reasons = refused(tmp_path, server, *(server.url(path) for path in ("/a", "/self", "/0", "/nowhere")))
    assert "redirects in a circle" in reasons[0] and "redirects in a circle" in reasons[1]
    assert reasons[2] == "The link redirects more than 5 times: use the final address."
    assert "without a location" in reasons[3]
    assert server.hits["/5"] == 1 and server.hits["/6"] == 0


def test_five_redirects_are_followed_and_the_last_address_is_kept(tmp_path, server):
    for n in range(5):
        server.pages[f"/{n}"] = redirect(f"/{n + 1}", "301 Moved Permanently")
    server.pages["/5"] = answer(image_bytes(3))
    dataset, _, _ = gather(tmp_path, server, server.url("/0"))
    assert len(dataset) == 2
    line = json.loads((tmp_path / "set/metadata.jsonl").read_text().splitlines()[1])
    assert (line["url"], line["origin"]) == (server.url("/0"), server.url("/5"))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (bad.endless_body, "larger than the allowed 1 MB"),
        (bad.lying_body, "larger than the allowed 1 MB"),
        (answer(image_bytes(), Content_Length=5_000_000_000), "larger than the allowed 1 MB"),
        (answer(image_bytes() + bytes(1_000_000)), "larger than the allowed 1 MB"),
        (bad.endless_page, "sent no image"),
        (bad.endless_headers, "response that cannot be parsed"),
        (bad.huge_header, "response that cannot be parsed"),
        (bad.not_http, "response that cannot be parsed"),
        (bad.half_closed, "stopped in the middle"),
        (bad.broken_off, "stopped in the middle"),
        (bad.hangs_up, "closed the connection"),
        (bad.gzip_bomb(), "sent a compressed response"),
        (answer(image_bytes(), Content_Encoding="deflate, br"), "sent a compressed response"),
        (answer(bad.png_bomb()), "more than the allowed 50 million pixels"),
        (answer(bad.png_bomb(9000, 9000)), "more than the allowed 50 million pixels"),
        (answer(b"<html><script>alert(1)</script></html>"), "sent no image"),
        (answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>", Content_Type="image/svg+xml"), "sent no image"),
        (answer(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "sent no image"),
        (answer(b"MZ" + bytes(5000)), "sent no image"),
        (answer(b"PK\3\4" + bytes(5000)), "sent no image"),
        (answer(b""), "sent nothing"),
        (answer(b"\xff\xd8\xff"), "is not an image"),
        (answer(image_bytes()[:700]), "truncated or damaged"),
        (answer(b"\xff\xd8\xff" + b"<?php system('id'); ?>" * 99), "not an image"),
        (answer(b"BM" + bytes(999)), "link"),
        (answer(b"RIFF\x10\0\0\0WEBPVP8 " + bytes(99)), "link"),
        (answer(image_bytes(), "204 No Content"), "link"),
        (answer(image_bytes(), "206 Partial Content"), "status 206"),
        (answer(image_bytes(), "404 Not Found"), "nothing at this address (404)"),
        (answer(image_bytes(), "410 Gone"), "removed the image for good (410)"),
        (answer(image_bytes(), "403 Forbidden"), "refuses access (403)"),
        (answer(image_bytes(), "401 Unauthorized", WWW_Authenticate="Basic"), "asks for a password (401)"),
        (answer(image_bytes(), "999 \x1b[31mred"), "link"),
        (answer(image_bytes(), X_Robots_Tag="noindex, NoAI"), "asks that its images train no AI"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + image_bytes(), "cannot be parsed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n" + image_bytes(), "cannot be parsed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + bytes(99), "link"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + bytes(99), "link"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_bad_answer_is_refused_soon_and_in_a_sentence(tmp_path, server, page, words):
    server.pages["/bad.jpg"] = page
    start = time.monotonic()
    (why,) = refused(tmp_path, server, server.url("/bad.jpg"), tries=1)
    assert time.monotonic() - start < quick(server).gap
    if words != "link":
        assert words in why


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (bad.slow_body, "took longer than 4 seconds"),
        (bad.silent_body, "sent nothing for 1.5 seconds"),
        (bad.silence, "sent nothing for 1.5 seconds"),
        (bad.slow_headers, "did not answer within 3 seconds"),
    ],
)
def test_a_host_that_keeps_one_waiting_is_left_and_said_to_be_slow(tmp_path, server, page, words):
    server.pages["/bad.jpg"] = page
    start = time.monotonic()
    (why,) = refused(tmp_path, server, server.url("/bad.jpg"), tries=1, connect=1.5, gap=1.5, whole=4.0)
    assert words in why and time.monotonic() - start < 30


def test_what_a_picture_is_called_and_said_to_be_does_not_matter_but_what_it_is(tmp_path, server):
    server.pages["/a.exe"] = answer(image_bytes(1, "PNG"), Content_Type="application/x-msdownload")
    server.pages["/b"] = answer(image_bytes(2, "WEBP"), Content_Type="text/html; charset=x")
    server.pages["/c.png"] = answer(image_bytes(3, "GIF"))
    dataset, _, _ = gather(tmp_path, server, *(server.url(path) for path in ("/a.exe", "/b", "/c.png")))
    assert [record.image.suffix for record in dataset.records] == [".jpg", ".png", ".webp", ".gif"]


def test_no_name_from_the_net_reaches_the_disk(tmp_path, server):
    paths = [
        "/../../../../x.jpg",
        "/..%2f..%2fx.jpg",
        "/a\\..\\..\\x.jpg",
        "/con.jpg",
        "/%00.jpg",
        "/x.jpg;.exe",
        "/é.jpg",
    ]
    wanted = [
        "/x.jpg",
        "/..%2F..%2Fx.jpg",
        "/a%5C..%5C..%5Cx.jpg",
        "/con.jpg",
        "/%00.jpg",
        "/x.jpg;.exe",
        "/%C3%A9.jpg",
    ]
    for n, path in enumerate(wanted):
        tricks = f"attachment; filename=\"../../../evil{n}.sh\"; filename*=UTF-8''..%2Fevil"
        server.pages[path] = answer(image_bytes(n), Content_Disposition=tricks, Content_Location="/etc/passwd")
    dataset, _, _ = gather(tmp_path, server, *(server.url(path) for path in paths))
    assert len(dataset) == 1 + len(paths)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files} - {"links.jsonl", "downloads.jsonl", "metadata.jsonl"}
    assert len(files) == len(dataset) + 3
    assert all(len(name) == 5 + 1 + 12 + 4 and name[:5].isdigit() and name.endswith(".jpg") for name in names)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, server):
    server.pages["/secret"] = answer(image_bytes())
    (why,) = refused(tmp_path, server, server.url("/secret", tls=True))
    assert "has no valid certificate" in why and not server.hits["/secret"]


def test_broken_tls_is_refused(tmp_path, server):
    plain = server.url("/secret").replace("http:", "https:")
    (why,) = refused(tmp_path, server, plain)
    assert "cannot make a secure connection" in why and not server.hits["/secret"]


def test_nothing_is_sent_that_could_tell_who_asks(tmp_path, server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine images.test login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server.pages["/first"] = redirect("/second.jpg").replace(b"\r\n\r\n", b"\r\nSet-Cookie: who=you; Path=/\r\n\r\n")
    server.pages["/second.jpg"] = answer(image_bytes(7), Set_Cookie="id=1; Path=/")
    server.pages["/third.jpg"] = answer(image_bytes(8))
    dataset, _, _ = gather(tmp_path, server, server.url("/first"), server.url("/third.jpg"), per_host=1)
    assert len(dataset) == 3 and len(server.requests) == 4
    for _, headers in server.requests:
        assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert "comfy_scoft" in headers["user-agent"] and headers["accept-encoding"] == "identity"


def test_a_compressed_bomb_and_endless_bodies_cost_little_memory(tmp_path, server):
    server.pages["/gzip"], server.pages["/endless"] = bad.gzip_bomb(), bad.endless_body
    server.pages["/png"] = answer(bad.png_bomb())
    tracemalloc.start()
    try:
        refused(tmp_path, server, *(server.url(path) for path in ("/gzip", "/endless", "/png")))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_all_links_together_receive_no_more_than_the_run_may(tmp_path, server):
    urls = []
    for n in range(20):
        server.pages[f"/{n}.png"] = answer(image_bytes(n, "BMP", (200, 160)))
        urls.append(server.url(f"/{n}.png"))
    changes = {"max_total": 300_000, "at_once": 1, "per_host": 1}
    dataset, _, reasons = gather(tmp_path, server, *urls, **changes)
    assert len(dataset) == 4 and len(reasons) == 17
    assert set(reasons) == {"The run has reached its download limit: run it again to continue."}
    assert len(gather(tmp_path, server, *urls, **changes)[0]) == 7


def test_ports_and_limits_of_the_node_stay_the_webs_own():
    limits = dataclasses.asdict(Limits())
    assert limits["ports"] == (80, 443) and limits["redirects"] == 5 and limits["max_pixels"] == 50_000_000
