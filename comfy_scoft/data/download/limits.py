"""Limits on requests to other people's servers, and on what is accepted from them."""

from __future__ import annotations

from dataclasses import dataclass

from ..images import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds.

    max_links: longest list. max_bytes: largest image. max_total: received in one run, failed downloads included.
    max_pixels: width × height. ports: the only ports connected to.
    at_once: concurrent transfers. per_host: of these with one host. delay: between two requests' starts at a host.
    tries: attempts for each link after temporary errors. backoff: the first pause, doubled each time, with jitter by
    `seed` and link. longest_wait: the longest Retry-After that is waited for; after a longer one the link fails.
    redirects: at most, for each link. connect: until a connection is made. gap: without a byte. whole: for one
    response, from the request to its last byte.
    """

    max_links: int = 10_000
    max_bytes: int = 25_000_000
    max_total: int = 10_000_000_000
    max_pixels: int = MAX_PIXELS
    ports: tuple[int, ...] = (80, 443)
    at_once: int = 8
    per_host: int = 2
    delay: float = 0.5
    tries: int = 3
    backoff: float = 2.0
    longest_wait: float = 120.0
    seed: int = 0
    redirects: int = 5
    connect: float = 15.0
    gap: float = 20.0
    whole: float = 120.0
