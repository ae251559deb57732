"""What the tests of collecting share: a list on disk, a run of it against our own server, and what it left."""

from __future__ import annotations

import csv
import ipaddress
import json
from pathlib import Path

from hostile_server import HostileServer

from comfy_scoft.data.download import Limits, collect

HERE = ipaddress.ip_address("127.0.0.1")


async def all_here(host: str, port: int) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


def quick(server: HostileServer, **changes: object) -> Limits:
    """Limits of a test: short pauses, time enough on a busy machine, and the server's own ports beside the web's."""
    settings = {"delay": 0.0, "backoff": 0.02, "connect": 20.0, "gap": 20.0, "whole": 60.0, "max_bytes": 1_000_000}
    return Limits(ports=(80, 443, server.port, server.tls_port), **(settings | changes))  # type: ignore[arg-type]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(server: HostileServer, *names: str) -> list[dict[str, str]]:
    return [{"url": server.url(f"/{name}"), "caption": f"image {name}"} for name in names]


def run(list_file: Path, server: HostileServer, watch=lambda *_: None, limits=None, **changes):
    folder = list_file.parent / "set"
    policy = {"allowed": lambda address: address == HERE, "lookup": all_here}
    return collect(list_file, folder, limits=limits or quick(server), on_progress=watch, **policy, **changes)


def metadata(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "set/metadata.jsonl").read_text("utf-8").splitlines()]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "set/links_report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
