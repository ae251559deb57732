"""How much is asked of other people's servers, and how much is taken from them."""

from __future__ import annotations

from dataclasses import dataclass

from ..dataset import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds.

    max_links: longest list; max_bytes: largest image; max_total: what one run receives, failures included;
    max_pixels: width times height. ports: the only ones that are asked.
    at_once: transfers at the same time; per_host: of them with one host; delay: pause between the starts of two
    requests to one host. tries: for a link, when a host stumbles; backoff: the first pause, doubled each time, with
    jitter drawn from `seed` and the link; longest_wait: the longest Retry-After that is honoured, a longer one ends the
    link. redirects: at most so many in a row. connect: until a connection stands; gap: without a byte; whole: for one
    answer, from the request to its last byte.
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
