"""Manners: how often one host is asked, and how long to wait before asking again."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .limits import Limits


@dataclass
class _Host:
    places: asyncio.Semaphore
    next_start: float = 0.0


class Turns:
    """Gives out the right to make a request: few at once, fewer with one host, and a pause between two starts there."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._hosts: dict[str, _Host] = {}
        self._places = asyncio.Semaphore(limits.at_once)

    def _host(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host(asyncio.Semaphore(self._limits.per_host)))

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn at a host, and hold it. Never ask for a second one meanwhile: that could wait for ever."""
        entry = self._host(host)
        async with entry.places:
            loop = asyncio.get_running_loop()
            while (pause := entry.next_start - loop.time()) > 0:
                await asyncio.sleep(pause)
            entry.next_start = loop.time() + self._limits.delay
            async with self._places:
                yield

    def hold(self, host: str, seconds: float) -> None:
        """Ask nothing of a host for so long: it has sent a Retry-After."""
        entry = self._host(host)
        entry.next_start = max(entry.next_start, asyncio.get_running_loop().time() + seconds)


def pause(limits: Limits, link: int, attempt: int) -> float:
    """Seconds before try `attempt` + 1: exponential back-off times a jitter of 0.5 to 1.5.

    The jitter is drawn from the seed, the link and the attempt alone, so it is the same whatever finished first.
    """
    jitter = random.Random(f"{limits.seed} {link} {attempt}").uniform(0.5, 1.5)  # noqa: S311  (no secret)
    return limits.backoff * 2.0**attempt * jitter


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number or a date (RFC 9110, 10.2.3); None for neither."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None
