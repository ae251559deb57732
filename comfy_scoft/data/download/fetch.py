"""One link -> one file of bytes that begin like an image. Whatever the host does, either that or one sentence."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from .address import Allowed, CheckedResolver, LinkError, Lookup, check_url
from .limits import Limits
from .rate_limit import Turns, pause, retry_after
from .store import DiskError, ending_of, open_part, write_part

USER_AGENT = "comfy_scoft/0.1 (ComfyUI nodes for SCoFT; fetches images from a community's own list of links)"
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "image/*", "Accept-Encoding": "identity"}
_REDIRECTS = (301, 302, 303, 307, 308)
_LATER = (408, 425, 429, 500, 502, 503, 504)
_STATUS = {
    401: "asks for a password (401): only what everybody may see is fetched",
    403: "does not give it out (403): look whether the link opens in a browser",
    404: "has nothing at this address (404): the image was moved or deleted",
    410: "has taken it away for good (410): remove the link",
    429: "says that it is asked too often (429): try again later",
}
_HEAD = 16


@dataclass
class Budget:
    """Bytes that a run may still receive."""

    left: int

    def spend(self, count: int) -> None:
        self.left -= count
        self.check()

    def check(self) -> None:
        if self.left <= 0:
            raise LinkError("The run has received as much as it may: run it again to go on from here.")


class Fetcher:
    """An HTTP session that keeps nothing: no cookies, no proxy of the environment, no connection used twice."""

    def __init__(self, limits: Limits, allowed: Allowed, lookup: Lookup) -> None:
        self.limits = limits
        self.budget = Budget(limits.max_total)
        self._allowed = allowed
        self._turns = Turns(limits)
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(allowed, lookup), use_dns_cache=False, force_close=True, limit=0
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.gap)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers=_HEADERS,
            timeout=timeout,
        )

    async def close(self) -> None:
        await self._session.close()

    async def fetch(self, number: int, text: str, target: Path) -> str:
        """Write the image behind a link to `target`; returns the address it came from in the end.

        number: the link's, for the jitter of its pauses. Raises LinkError. What stands in `target` then is waste.
        """
        for attempt in range(self.limits.tries):
            try:
                self.budget.check()
                return await self._follow(text, target)
            except LinkError as error:
                if not error.again or attempt + 1 == self.limits.tries:
                    raise
                if error.wait is not None and error.wait > self.limits.longest_wait:
                    raise LinkError(
                        f"{str(error).rsplit(': ', 1)[0]}, and asks to wait {error.wait:,.0f} seconds: try again then."
                    ) from error
                await asyncio.sleep(max(error.wait or 0.0, pause(self.limits, number, attempt)))
        raise AssertionError("the last try returns or raises")

    async def _follow(self, text: str, target: Path) -> str:
        """The link and its redirects. Each address in turn is checked anew and waits for its own host's turn."""
        url = check_url(text, self.limits.ports, self._allowed)
        seen = [url]
        for _ in range(self.limits.redirects + 1):
            location = await self._ask(url, target)
            if location is None:
                return str(url)
            try:
                url = url.join(URL(location))
            except ValueError as error:
                raise LinkError(f"The host {url.host} sends on to what is no web address.") from error
            url = check_url(str(url), self.limits.ports, self._allowed)
            if url in seen:
                raise LinkError(f"The host {url.host} sends round in a circle: the link leads nowhere.")
            seen.append(url)
        raise LinkError(f"The link is sent on more than {self.limits.redirects} times: use the last address itself.")

    async def _ask(self, url: URL, target: Path) -> str | None:
        """One request: the image's bytes into `target`, or the address that the host sends on to."""
        host = str(url.host)
        async with self._turns.turn(host):
            try:
                return await asyncio.wait_for(self._receive(url, target), self.limits.whole)
            except DiskError:
                raise
            except LinkError as error:
                if error.wait is not None:
                    self._turns.hold(host, min(error.wait, self.limits.longest_wait))
                raise
            except Exception as error:  # aiohttp, ssl, yarl and sockets raise nearly every kind for what a host does
                raise _explained(error, host, self.limits) from error

    async def _receive(self, url: URL, target: Path) -> str | None:
        answer = await self._head(url)
        try:
            if answer.status in _REDIRECTS:
                if not (location := answer.headers.get("Location")):
                    raise LinkError(f"The host {url.host} sends on without saying where: the link is dead.")
                return location
            _check_answer(answer.status, answer.headers, str(url.host), self.limits)
            await self._write(answer.content, target, str(url.host))
            return None
        finally:
            answer.close()  # never read on to the end of what somebody sends

    async def _head(self, url: URL) -> aiohttp.ClientResponse:
        """The answer up to its headers. They have less time than a body: older aiohttp takes any number of them."""
        seconds = self.limits.connect + self.limits.gap
        try:
            return await asyncio.wait_for(self._session.get(url, allow_redirects=False), seconds)
        except asyncio.TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise
            raise LinkError(
                f"The host {url.host} gave no answer within {seconds:g} seconds: try again later."
            ) from error

    async def _write(self, content: aiohttp.StreamReader, target: Path, host: str) -> None:
        """The body by chunks, counted as they come: what Content-Length says is not believed."""
        received, head = 0, b""
        with open_part(target) as file:
            async for chunk in content.iter_any():
                received += len(chunk)
                self.budget.spend(len(chunk))
                if received > self.limits.max_bytes:
                    raise _too_large(self.limits)
                write_part(file, chunk)
                if len(head) < _HEAD:
                    head = (head + chunk)[:_HEAD]
                    if len(head) == _HEAD and ending_of(head) is None:
                        raise LinkError(_NO_IMAGE.format(host=host))
        if ending_of(head) is None:
            raise LinkError(_NO_IMAGE.format(host=host) if received else f"The host {host} sent nothing.")


_NO_IMAGE = "The host {host} sent no image: link to the image itself (png, jpg, webp, bmp, gif or avif)."


def _too_large(limits: Limits) -> LinkError:
    return LinkError(f"The image is larger than the allowed {limits.max_bytes / 1e6:g} MB: link to a smaller one.")


def _check_answer(status: int, headers: CIMultiDictProxy[str], host: str, limits: Limits) -> None:
    """Raise LinkError for anything but an open "here it is"."""
    if status != 200:
        wait = retry_after(headers.get("Retry-After")) if status in _LATER else None
        words = _STATUS.get(status, f"answers with the status {status}: look whether the link opens in a browser")
        raise LinkError(f"The host {host} {words}.", again=status in _LATER, wait=wait)
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise LinkError(f"The host {host} sent it compressed though asked not to: what that holds is not opened.")
    if (length := headers.get("Content-Length", "")).isdecimal() and int(length[:20]) > limits.max_bytes:
        raise _too_large(limits)
    robots = {word.strip().lower() for value in headers.getall("X-Robots-Tag", ()) for word in value.split(",")}
    if robots & {"noai", "noimageai"}:
        raise LinkError(
            f"The host {host} asks that its images train no AI (X-Robots-Tag): ask the owner for the image itself."
        )


def _explained(error: Exception, host: str, limits: Limits) -> LinkError:
    """What went wrong below HTTP, as a sentence. Nothing of the host's own words is repeated."""
    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str, bool]] = [
        (
            (aiohttp.ClientConnectorCertificateError, ssl.CertificateError),
            "cannot prove that it is this host (its certificate is not valid): the link is not safe to follow",
            False,
        ),
        (
            (aiohttp.ClientSSLError, ssl.SSLError),
            "does not manage a secure connection: look whether the link opens in a browser",
            False,
        ),
        (aiohttp.ClientConnectorDNSError, "is not known: its site is gone, or the name is misspelt", False),
        (aiohttp.ConnectionTimeoutError, f"did not answer within {limits.connect:g} seconds: try again later", True),
        (aiohttp.SocketTimeoutError, f"sent nothing for {limits.gap:g} seconds: try again later", True),
        (TimeoutError, f"took longer than {limits.whole:g} seconds: try again later", False),
        (asyncio.TimeoutError, f"took longer than {limits.whole:g} seconds: try again later", False),
        (aiohttp.ClientPayloadError, "broke off in the middle: try again later", True),
        (aiohttp.ClientConnectorError, "cannot be reached: try again later", True),
        (
            (aiohttp.ServerConnectionError, aiohttp.ClientOSError, ConnectionError),
            "closed the connection: try again later",
            True,
        ),
    ]
    for kind, words, again in kinds:
        if isinstance(error, kind):
            return LinkError(f"The host {host} {words}.", again=again)
    return LinkError(f"The host {host} answers in a way that is not understood: look whether the link opens.")
