"""Drives a running ComfyUI over its HTTP interface. Standard library only; imports nothing of ComfyUI."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..common.errors import UserError

Prompt = dict[str, dict[str, Any]]


class ComfyError(RuntimeError):
    """ComfyUI does not answer, refuses a prompt, or a node failed; the message is the node's own where there is one."""


class ComfyInterrupted(ComfyError):
    """The prompt was stopped by an interrupt."""


class ComfyClient:
    """One ComfyUI server. url: `http://host:port`; timeout: seconds for one HTTP answer (not for a whole prompt)."""

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise UserError(f"The server address {url!r} is not of the form http://host:port; give it in that form.")
        self.url = url.rstrip("/")
        self.host, self.port = parts.hostname, parts.port or 80
        self.timeout = timeout
        self.client_id = uuid.uuid4().hex

    def alive(self) -> bool:
        """Whether the server answers now (it does once its nodes are loaded)."""
        try:
            return self._request("GET", "/system_stats", timeout=5.0)[0] == 200
        except ComfyError:
            return False

    def object_info(self, node: str = "") -> dict[str, Any]:
        """What the server knows of its nodes (of one node, `{}` when it has no such node)."""
        return self._json("GET", "/object_info" + (f"/{node}" if node else ""))

    def queue(self, prompt: Prompt) -> str:
        """Queues a workflow in API form and returns its prompt id; ComfyError lists what the server refused in it."""
        status, body = self._request("POST", "/prompt", {"prompt": prompt, "client_id": self.client_id})
        answer = _decoded(body)
        if status != 200 or answer.get("node_errors"):  # 200 with errors: only the valid part of it would run
            raise ComfyError(_refusal(answer) or f"ComfyUI refused the workflow with HTTP status {status}.")
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 600.0) -> dict[str, Any]:
        """Waits for a prompt and returns its history entry (`outputs` by node id, `status`).

        Raises ComfyInterrupted when it was interrupted, ComfyError with the node's message when a node failed or when
        it is not done within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self._json("GET", f"/history/{prompt_id}").get(prompt_id)
            if entry is not None and entry.get("status"):
                _raise_failure(entry["status"])
                return dict(entry)
            time.sleep(0.2)
        raise ComfyError(f"The workflow was not done after {timeout:.0f} seconds; give it more time or see its log.")

    def run(self, prompt: Prompt, timeout: float = 600.0) -> dict[str, Any]:
        """`queue` and `wait` in one."""
        return self.wait(self.queue(prompt), timeout)

    def running(self) -> list[str]:
        """Ids of the prompts that are being executed now (at most one)."""
        return [str(item[1]) for item in self._json("GET", "/queue")["queue_running"]]

    def interrupt(self) -> None:
        """Asks the running prompt to stop; it does at its next check."""
        self._request("POST", "/interrupt", {})

    def view(self, image: dict[str, str]) -> bytes:
        """The bytes of an output file; image: an entry of a history's `outputs[node]["images"]`."""
        keys = ("filename", "subfolder", "type")
        status, body = self._request("GET", "/view?" + urlencode({k: image[k] for k in keys if k in image}))
        if status != 200:
            raise ComfyError(f"ComfyUI has no file {image.get('filename')!r} (HTTP status {status}).")
        return body

    def _json(self, method: str, path: str) -> dict[str, Any]:
        status, body = self._request(method, path)
        if status != 200:
            raise ComfyError(f"ComfyUI answered {method} {path} with HTTP status {status}.")
        return _decoded(body)

    def _request(
        self, method: str, path: str, payload: dict[str, Any] | None = None, timeout: float = 0.0
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout or self.timeout)
        body = None if payload is None else json.dumps(payload).encode()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ComfyError(f"ComfyUI at {self.url} does not answer ({error}); start it and try again.") from error
        finally:
            connection.close()


def _decoded(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer; empty where the body is none."""
    with suppress(ValueError):
        answer = json.loads(body)
        return answer if isinstance(answer, dict) else {}
    return {}


def _refusal(answer: dict[str, Any]) -> str:
    """The sentences of a refused prompt: those of its nodes, else the general one."""
    error = answer.get("error", "")
    lines = [str(error.get("message", "")) if isinstance(error, dict) else str(error)]
    for node_id, node in answer.get("node_errors", {}).items():
        for item in node.get("errors", []):
            lines.append(f"{node.get('class_type')} (node {node_id}): {item.get('message')}: {item.get('details')}")
    return "\n".join(line for line in lines if line)


def _raise_failure(status: dict[str, Any]) -> None:
    for event, data in status.get("messages", []):
        if event == "execution_interrupted":
            raise ComfyInterrupted(f"Interrupted in {data.get('node_type')} (node {data.get('node_id')}).")
        if event == "execution_error":
            message = str(data.get("exception_message", "")).strip()
            raise ComfyError(f"{data.get('node_type')} (node {data.get('node_id')}): {message}")
    if status.get("status_str") == "error":
        raise ComfyError("ComfyUI reports that the workflow failed, without a reason; look at its log.")
