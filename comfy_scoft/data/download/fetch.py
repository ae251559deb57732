"""Fetches one link into a file whose first bytes are an image's, or raises LinkError, whatever the host does."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from ...common.errors import DiskError
from ...common.files import disk_errors
from ..formats import HEAD, READABLE, format_of
from .address import Allowed, CheckedResolver, LinkError, Lookup, check_url
from .limits import Limits
from .rate_limit import RateLimiter, backoff_delay, retry_after

USER_AGENT = "comfy_scoft/0.1 (ComfyUI nodes for SCoFT; fetches images from a community's own list of links)"
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "image/*", "Accept-Encoding": "identity"}
_REDIRECTS = (301, 302, 303, 307, 308)
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_STATUS = {
    401: "asks for a password (401): only public images are fetched",
    403: "refuses access (403): check whether the link opens in a browser",
    404: "has nothing at this address (404): the image was moved or deleted",
    410: "has removed the image for good (410): remove the link",
    429: "received too many requests (429): try again later",
}


class Fetcher:
    """An HTTP session without cookies, without the environment's proxies and without connection reuse."""

    def __init__(self, limits: Limits, allowed: Allowed, lookup: Lookup) -> None:
        self.limits = limits
        self._bytes_left = limits.max_total
        self._allowed = allowed
        self._rate_limiter = RateLimiter(limits)
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(allowed, lookup), use_dns_cache=False, force_close=True, limit=0
        )
        self.session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.gap),
        )

    async def fetch(self, number: int, text: str, target: Path) -> str:
        """Write the image behind a link to `target`; returns its URL after redirects.

        number: the link's, for the jitter of its back-off. Raises LinkError, and then leaves `target` incomplete.
        """
        for attempt in range(self.limits.tries):
            try:
                self._spend(0)
                return await self._follow(text, target)
            except LinkError as error:
                if not error.retry or attempt + 1 == self.limits.tries:
                    raise
                if error.wait is not None and error.wait > self.limits.longest_wait:
                    raise LinkError(
                        f"{str(error).rsplit(': ', 1)[0]}, and asks to wait {error.wait:,.0f} seconds: try again then."
                    ) from error
                await asyncio.sleep(max(error.wait or 0.0, backoff_delay(self.limits, number, attempt)))
        raise AssertionError("the last try returns or raises")

    def _spend(self, count: int) -> None:
        """Count received bytes. Raises LinkError at the run's limit."""
        self._bytes_left -= count
        if self._bytes_left <= 0:
            raise LinkError("The run has reached its download limit: run it again to continue.")

    async def _follow(self, text: str, target: Path) -> str:
        """Fetch the link and follow its redirects; each URL is checked and waits for a slot at its own host."""
        url = check_url(text, self.limits.ports, self._allowed)
        seen = [url]
        for _ in range(self.limits.redirects + 1):
            location = await self._request(url, target)
            if location is None:
                return str(url)
            try:
                url = url.join(URL(location))
            except ValueError as error:
                raise LinkError(f"The host {url.host} redirects to an invalid address: the link is dead.") from error
            url = check_url(str(url), self.limits.ports, self._allowed)
            if url in seen:
                raise LinkError(f"The host {url.host} redirects in a circle: the link is dead.")
            seen.append(url)
        raise LinkError(f"The link redirects more than {self.limits.redirects} times: use the final address.")

    async def _request(self, url: URL, target: Path) -> str | None:
        """One request: writes the image to `target`, or returns the location of a redirect."""
        host = str(url.host)
        async with self._rate_limiter.slot(host):
            try:
                return await asyncio.wait_for(self._receive(url, target), self.limits.whole)
            except DiskError:
                raise
            except LinkError as error:
                if error.wait is not None:
                    self._rate_limiter.hold(host, min(error.wait, self.limits.longest_wait))
                raise
            except Exception as error:  # aiohttp, ssl, yarl and sockets raise nearly every type for a host's mistakes
                raise _link_error(error, host, self.limits) from error

    async def _receive(self, url: URL, target: Path) -> str | None:
        response = await self._head(url)
        try:
            if response.status in _REDIRECTS:
                if not (location := response.headers.get("Location")):
                    raise LinkError(f"The host {url.host} redirects without a location: the link is dead.")
                return location
            _check_response(response.status, response.headers, str(url.host), self.limits)
            await self._write(response.content, target, str(url.host))
            return None
        finally:
            response.close()  # without reading the rest of the body

    async def _head(self, url: URL) -> aiohttp.ClientResponse:
        """The response up to its headers, with a time limit of their own: older aiohttp accepts endless headers."""
        seconds = self.limits.connect + self.limits.gap
        try:
            return await asyncio.wait_for(self.session.get(url, allow_redirects=False), seconds)
        except asyncio.TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise
            raise LinkError(
                f"The host {url.host} did not answer within {seconds:g} seconds: try again later."
            ) from error

    async def _write(self, content: aiohttp.StreamReader, target: Path, host: str) -> None:
        """Write the body chunk by chunk and count its bytes; Content-Length is not trusted."""
        received, head = 0, b""
        what = f"The folder {target.parent.parent.name!r} cannot be written to"
        with disk_errors(what):
            file = target.open("wb")
        with file:
            async for chunk in content.iter_any():
                received += len(chunk)
                self._spend(len(chunk))
                if received > self.limits.max_bytes:
                    raise _too_large(self.limits)
                with disk_errors(what):
                    file.write(chunk)
                if len(head) < HEAD:
                    head = (head + chunk)[:HEAD]
                    if len(head) == HEAD and format_of(head) is None:
                        raise LinkError(_NO_IMAGE.format(host=host))
        if format_of(head) is None:
            raise LinkError(_NO_IMAGE.format(host=host) if received else f"The host {host} sent nothing.")


_NO_IMAGE = f"The host {{host}} sent no image: link to the image itself, {READABLE}."


def _too_large(limits: Limits) -> LinkError:
    return LinkError(f"The image is larger than the allowed {limits.max_bytes / 1e6:g} MB: link to a smaller one.")


def _check_response(status: int, headers: CIMultiDictProxy[str], host: str, limits: Limits) -> None:
    """Raise LinkError unless the status is 200 and the headers allow the body to be fetched."""
    if status != 200:
        wait = retry_after(headers.get("Retry-After")) if status in _TEMPORARY else None
        problem = _STATUS.get(status, f"answers with the status {status}: check whether the link opens in a browser")
        raise LinkError(f"The host {host} {problem}.", retry=status in _TEMPORARY, wait=wait)
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise LinkError(f"The host {host} sent a compressed response, which is never unpacked: link to another copy.")
    if (length := headers.get("Content-Length", "")).isdecimal() and int(length[:20]) > limits.max_bytes:
        raise _too_large(limits)
    robots = {tag.strip().lower() for value in headers.getall("X-Robots-Tag", ()) for tag in value.split(",")}
    if robots & {"noai", "noimageai"}:
        raise LinkError(
            f"The host {host} asks that its images train no AI (X-Robots-Tag): ask the owner for the image itself."
        )


def _link_error(error: Exception, host: str, limits: Limits) -> LinkError:
    """A LinkError for an error below HTTP. It repeats no text of the host."""
    certificate = (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)
    tls = (aiohttp.ClientSSLError, ssl.SSLError)
    timeout = (TimeoutError, asyncio.TimeoutError)
    closed = (aiohttp.ServerConnectionError, aiohttp.ClientOSError, ConnectionError)
    kinds: list[tuple[Any, str, bool]] = [
        (certificate, "has no valid certificate: the link is not safe to follow", False),
        (tls, "cannot make a secure connection: check whether the link opens in a browser", False),
        (aiohttp.ClientConnectorDNSError, "is not known: its site is gone, or the name is misspelled", False),
        (aiohttp.ConnectionTimeoutError, f"did not answer within {limits.connect:g} seconds: try again later", True),
        (aiohttp.SocketTimeoutError, f"sent nothing for {limits.gap:g} seconds: try again later", True),
        (timeout, f"took longer than {limits.whole:g} seconds: try again later", False),
        (aiohttp.ClientPayloadError, "stopped in the middle of the response: try again later", True),
        (aiohttp.ClientConnectorError, "cannot be reached: try again later", True),
        (closed, "closed the connection: try again later", True),
    ]
    for kind, problem, retry in kinds:
        if isinstance(error, kind):
            return LinkError(f"The host {host} {problem}.", retry=retry)
    return LinkError(f"The host {host} sent a response that cannot be parsed: check whether the link opens.")
