"""What libraries write into the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_only(library: str) -> Iterator[None]:
    """Keep a library's warnings out of the log: on what it could also do with, they look like faults of a run."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
