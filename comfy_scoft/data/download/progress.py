"""Runs a coroutine in its own thread, watched from the calling thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures import TimeoutError as NotDone  # Python 3.10 has two of that name
from typing import Any, TypeVar

T = TypeVar("T")


def run_watched(work: Callable[[], Coroutine[Any, Any, T]], poll: Callable[[], None], every: float = 0.1) -> T:
    """Run a coroutine and return its result, calling `poll` in this thread every `every` seconds.

    ComfyUI calls nodes inside a running event loop, where `asyncio.run` is not allowed, and its progress and interrupt
    belong to the calling thread. An exception of `poll` cancels the work, waits for its cleanup (10 s at most, as a
    name lookup may hang in the system), and is re-raised.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scoft download", daemon=True)
    ended: Future[None] = Future()

    async def guarded() -> T:
        try:
            return await work()
        finally:
            ended.set_result(None)

    thread.start()
    task = asyncio.run_coroutine_threadsafe(guarded(), loop)
    try:
        while not wait([task], timeout=every).done:
            poll()
        poll()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
        wait([ended], timeout=10.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1.0)
        if not thread.is_alive():
            loop.close()
        try:
            task.exception(timeout=0)  # marks the exception as retrieved
        except (CancelledError, NotDone):
            pass
