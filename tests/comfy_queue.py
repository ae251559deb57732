"""What the ComfyUI that all tests share has still to do: one test must not wait for what another left behind."""

from __future__ import annotations

import time

from comfy_scoft.experiments.comfy_client import ComfyClient

PATIENCE = 300.0
"""Seconds in which a prompt that is stopped must have ended."""


def unfinished(client: ComfyClient) -> int:
    """Prompts that run or wait to be run."""
    queue = client._json("GET", "/queue")
    return len(queue["queue_running"]) + len(queue["queue_pending"])


def empty(client: ComfyClient) -> None:
    """Stops what runs, drops what waits, and returns when nothing is left."""
    end = time.monotonic() + PATIENCE
    while unfinished(client):
        assert time.monotonic() < end, "ComfyUI does not stop what it runs"
        client._request("POST", "/queue", {"clear": True})
        client.interrupt()
        time.sleep(0.2)
