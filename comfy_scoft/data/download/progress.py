"""Asynchronous work in a thread of its own, watched from the thread that asked for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures import TimeoutError as NotYet  # Python 3.10 has two of that name
from typing import Any, TypeVar

T = TypeVar("T")


def run_watched(work: Callable[[], Coroutine[Any, Any, T]], look: Callable[[], None], every: float = 0.1) -> T:
    """Run a coroutine to its end and return its result, calling `look` every so many seconds here, in this thread.

    ComfyUI calls nodes from inside a running event loop, where `asyncio.run` may not be called, and its progress and
    interrupt belong to the calling thread. What `look` raises cancels the work, waits until its clean-up is done (a
    name look-up that hangs in the system is not waited for), and is raised on.
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
            look()
        look()
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
            task.exception(timeout=0)  # so that Python does not complain of an exception nobody asked for
        except (CancelledError, NotYet):
            pass
