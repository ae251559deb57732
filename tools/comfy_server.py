"""Starts a real ComfyUI in a process of its own, with this pack linked into it. Standard library only.

For `run.py` and the tests; the pack itself never starts a process. `comfy_scoft/experiments/comfy_client.py` talks to
a running server.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from checkout import ROOT

from comfy_scoft.experiments.comfy_client import ComfyClient, ComfyError

PACK_NAME = "comfy_scoft"
NOT_LINKED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "output", ".*_cache")


def free_port() -> int:
    """A free TCP port of the loopback interface, outside the range that systems give to outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ComfyError("Of a hundred ports of this machine none is free: end what listens on them, or restart it.")


def link_pack(pack: Path, base: Path) -> Path:
    """Links `pack` at `base/custom_nodes/comfy_scoft`: a symlink, a junction on Windows, a copy where neither works."""
    for folder in ("custom_nodes", "input", "output", "models", "temp", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    target = base / "custom_nodes" / PACK_NAME
    if target.exists() and target.resolve() == pack.resolve():
        return target
    remove_link(target)
    try:
        if os.name == "nt":
            import _winapi

            _winapi.CreateJunction(str(pack), str(target))  # type: ignore[attr-defined]  # exists on Windows only
        else:
            target.symlink_to(pack, target_is_directory=True)
    except OSError:
        shutil.copytree(pack, target, ignore=NOT_LINKED)
    return target


def remove_link(target: Path) -> None:
    """Removes an earlier link or copy of the pack, never the target of a link."""
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        try:
            target.rmdir()  # a junction goes like an empty folder
        except OSError:
            shutil.rmtree(target)


class ComfyServer:
    """A ComfyUI process for the length of a `with` block: `with ComfyServer(python, comfyui, base) as server`.

    python: interpreter that has ComfyUI's requirements; comfyui: folder with its `main.py`; base: folder for its
    input/, output/, models/ and custom_nodes/ (created when missing). `server.client` talks to it; `server.log` is its
    output. Raises ComfyError, with the end of the log, when it dies, does not answer within `timeout` seconds, or
    could not import the pack.
    """

    def __init__(
        self,
        python: Path | str,
        comfyui: Path,
        base: Path,
        *,
        port: int = 0,
        cpu: bool = True,
        arguments: Sequence[str] = (),
        timeout: float = 300.0,
    ) -> None:
        self.base = Path(base).resolve()
        self.port = port or free_port()
        self.client = ComfyClient(f"http://127.0.0.1:{self.port}")
        self.log = self.base / "comfyui.log"
        self.timeout = timeout
        self.process: subprocess.Popen[bytes] | None = None
        self.comfyui = Path(comfyui).resolve()
        self.command = [str(python), "-u", str(self.comfyui / "main.py"), *(["--cpu"] if cpu else [])]
        self.command += ["--base-directory", str(self.base), "--port", str(self.port)]
        self.command += ["--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:"]
        self.command += arguments

    @property
    def url(self) -> str:
        return self.client.url

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the process and returns once it answers and the pack is in."""
        if self.client.alive():
            raise ComfyError(f"Something already answers at {self.url}: end it or give another port with --port.")
        link_pack(ROOT, self.base)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603  (our own interpreter and ComfyUI, no shell)
                self.command, cwd=self.comfyui, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        end = time.monotonic() + self.timeout
        while not self.client.alive():
            if self.process.poll() is not None:
                code = self.process.returncode
                raise ComfyError(f"ComfyUI stopped while starting (exit code {code}).\n{self.tail()}")
            if time.monotonic() > end:
                raise ComfyError(f"ComfyUI did not answer within {self.timeout:.0f} seconds.\n{self.tail()}")
            time.sleep(0.3)
        ours = f"{os.sep}custom_nodes{os.sep}{PACK_NAME}"
        signs = (f"{ours} module for custom nodes", "comfy_entrypoint in ")
        for line in self.tail(2000).splitlines():
            if ours in line and any(sign in line for sign in signs):
                raise ComfyError(f"ComfyUI could not import the pack: {line}\n{self.tail(60)}")

    def stop(self) -> None:
        """Ends the process; does nothing when it has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self, lines: int = 30) -> str:
        """The last `lines` lines that ComfyUI printed."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
