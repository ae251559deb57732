"""A web server on this machine that does whatever a bad one might, byte by byte, and remembers who asked for what."""

from __future__ import annotations

import gzip
import io
import socket
import socketserver
import ssl
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

CERTIFICATE = Path(__file__).with_name("untrusted.pem")
"""Signed by itself, so nobody trusts it; made with `openssl req -x509`, and of no use for anything else."""


def image_bytes(seed: int = 0, kind: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    """An image of coarse colored blocks that its seed decides."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A valid header of that size with hardly anything behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100_000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def answer(body: bytes = b"", status: str = "200 OK", **headers: object) -> bytes:
    """A whole HTTP answer; a header's `_` stands for `-`, and Content_Length=None leaves it out."""
    given = {"Content_Type": "image/jpeg", "Content_Length": len(body)} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", status, Location=location)


class Conversation:
    """What a page is given: the request, and a way to answer that stops when the server does."""

    def __init__(self, server: HostileServer, connection: socket.socket, path: str, headers: dict[str, str]) -> None:
        self.server, self.connection, self.path, self.headers = server, connection, path, headers

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait(self, seconds: float) -> None:
        if self.server.stopped.wait(seconds):
            raise ConnectionAbortedError

    def reset(self) -> None:
        """Break the connection off with a RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


Page = Callable[[Conversation], None]


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: HostileServer = self.server.owner  # type: ignore[attr-defined]
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := self.request.recv(65536)):
                    server.odd.append(head)
                    return
                head += data
                if head[:1] == b"\x16":  # the hello of TLS, on the port that speaks none
                    self.request.sendall(b"HTTP/1.1 400 no TLS here\r\n\r\n")
                    return
            request, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            path = request.split(" ")[1]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            server.hits[path] += 1
            server.requests.append((path, headers))
            server.page(path)(Conversation(server, self.request, path, headers))
        except OSError:
            pass  # the other side has had enough


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    owner: HostileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle of TLS is no news."""


class _TlsListener(_Listener):
    """Speaks TLS with the certificate that nobody trusts, in the thread of the connection."""

    def finish_request(self, request: object, client_address: object) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        super().finish_request(context.wrap_socket(request, server_side=True), client_address)  # type: ignore[call-overload]


class HostileServer:
    """`with HostileServer() as server: server.pages["/x"] = answer(b"…")`; pages are bytes or functions."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Page] = {}
        self.hits: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.odd: list[bytes] = []
        self.stopped = threading.Event()
        self._listeners = [_Listener(("127.0.0.1", 0), _Handler), _TlsListener(("127.0.0.1", 0), _Handler)]
        self.port, self.tls_port = (listener.server_address[1] for listener in self._listeners)

    def __enter__(self) -> HostileServer:
        for listener in self._listeners:
            listener.owner = self
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def url(self, path: str, host: str = "images.test", tls: bool = False) -> str:
        return f"https://{host}:{self.tls_port}{path}" if tls else f"http://{host}:{self.port}{path}"

    def page(self, path: str) -> Page:
        found = self.pages.get(path, answer(b"nothing here", "404 Not Found", Content_Type="text/html"))
        if isinstance(found, bytes):
            return lambda talk: talk.send(found)
        return found


def endless_body(talk: Conversation) -> None:
    """Says it is short, and never ends."""
    talk.send(answer(image_bytes(), Content_Length=None, Transfer_Encoding="chunked")[: -len(image_bytes())])
    for block in _endless(image_bytes()):
        talk.send(b"%x\r\n%s\r\n" % (len(block), block))


def lying_body(talk: Conversation) -> None:
    """No length at all, an image's first bytes, and then noise until somebody hangs up."""
    talk.send(answer(b"", Content_Length=None))
    for block in _endless(image_bytes()):
        talk.send(block)


def endless_page(talk: Conversation) -> None:
    """A web page without end where an image was promised."""
    talk.send(answer(b"", Content_Length=None))
    for block in _endless(b"<html><body>"):
        talk.send(block)


def _endless(first: bytes) -> Iterator[bytes]:
    yield first
    while True:
        yield bytes(65536)


def slow_body(talk: Conversation) -> None:
    """A byte every fifth of a second: never silent for long, never done."""
    body = image_bytes()
    talk.send(answer(body)[: -len(body)])
    for byte in body:
        talk.send(bytes([byte]))
        talk.wait(0.2)


def silent_body(talk: Conversation) -> None:
    body = image_bytes()
    talk.send(answer(body)[:-100])
    talk.wait(60)


def silence(talk: Conversation) -> None:
    talk.wait(60)


def slow_headers(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\n")
    for n in range(10_000):
        talk.send(b"X-%d: 1\r\n" % n)
        talk.wait(0.2)


def endless_headers(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\n")
    for n in range(10_000_000):
        talk.send(b"X-%d: %s\r\n" % (n, b"y" * 1000))


def huge_header(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nX: ")
    for block in _endless(b"y"):
        talk.send(block.replace(b"\0", b"y"))


def half_closed(talk: Conversation) -> None:
    """Promises more than it sends, and closes its side."""
    talk.send(answer(image_bytes())[:-100])
    talk.connection.shutdown(socket.SHUT_WR)
    talk.wait(0.3)


def broken_off(talk: Conversation) -> None:
    talk.send(answer(image_bytes())[:-100])
    talk.wait(0.1)
    talk.reset()


def hangs_up(talk: Conversation) -> None:
    talk.connection.shutdown(socket.SHUT_RDWR)


def not_http(talk: Conversation) -> None:
    talk.send(b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(range(256)))


@cache
def gzip_bomb() -> bytes:
    """200 MB of zeros as 200 kB, said to be an image."""
    return answer(gzip.compress(image_bytes() + bytes(200_000_000), 1), Content_Encoding="gzip")
