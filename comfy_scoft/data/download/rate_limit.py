"""Rate limits per host, back-off and Retry-After."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .limits import Limits


class RateLimiter:
    """Limits concurrent requests, in all and for each host, and keeps a delay between two starts at one host."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.at_once)
        self._slots_of = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(limits.per_host))
        self._next_start = defaultdict[str, float](float)

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Wait for and hold a request slot at a host. Holding one while waiting for another could deadlock."""
        async with self._slots_of[host]:
            loop = asyncio.get_running_loop()
            while (wait := self._next_start[host] - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._next_start[host] = loop.time() + self._limits.delay
            async with self._slots:
                yield

    def hold(self, host: str, seconds: float) -> None:
        """Start no request at a host for so long, after a Retry-After."""
        self._next_start[host] = max(self._next_start[host], asyncio.get_running_loop().time() + seconds)


def backoff_delay(limits: Limits, link: int, attempt: int) -> float:
    """Seconds before try `attempt` + 1: exponential back-off times a jitter in [0.5, 1.5] by seed, link and attempt."""
    jitter = random.Random(f"{limits.seed} {link} {attempt}").uniform(0.5, 1.5)  # noqa: S311  (no secret)
    return limits.backoff * 2.0**attempt * jitter


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait, a number or a date (RFC 9110, 10.2.3); None for neither."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None
