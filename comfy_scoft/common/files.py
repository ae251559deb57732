"""Files that appear whole or not at all, and files told apart by what is in them."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

from .errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it; its folder is made.

    Several processes may write the same file at once: the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. Raises UserError when the file is gone."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:  # in blocks: checkpoints of several GB are hashed too
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"The file {path.name} cannot be read: put it back, or give the right to read it.") from error
    return digest.hexdigest()
