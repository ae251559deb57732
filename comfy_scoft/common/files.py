"""Files and folders that are on the disk whole or not at all, after a kill or a power cut too; and files told apart by
what is in them.

All is written under a hidden name (`.….part`), is on the disk (fsync) before it is renamed, and its folder is on the
disk before anything that it replaces is deleted. `tests/test_files_whole.py` names the few other places that write.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import DiskError
from .text import composed

STALE = 86_400.0
"""Seconds after which the part of a folder is taken for one of a process that was killed."""
_NO_FSYNC = {errno.EINVAL, errno.EACCES, errno.EPERM, errno.EBADF, errno.ENOSYS, errno.ENOTSUP}
"""How file systems say that their folders cannot be synced."""
_RENAMING = threading.RLock()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it; its folder is made.

    It is on the disk when this returns. Several processes may write the same file at once: the last one stays.
    Raises DiskError.
    """
    with disk_errors(f"The file {path.name} could not be written"):
        part = _part(path, data)
        try:
            os.replace(part, path)
            _sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)


def write_new(files: Mapping[Path, bytes]) -> None:
    """Write files that are not there yet: all or none. They appear in their order, so the last one has the others.

    Raises FileExistsError where there is one already, and DiskError.
    """
    parts, named = {}, []
    with disk_errors(f"The file {next(iter(files)).name} could not be written"):
        try:
            for path, data in files.items():
                parts[path] = _part(path, data)
            for path, part in parts.items():
                _link(part, path)
                named.append(path)
            for folder in {path.parent for path in files}:
                _sync_folder(folder)
        except BaseException:
            for path in named:
                path.unlink(missing_ok=True)
            raise
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)


def write_numbered(folder: Path, prefix: str, make: Callable[[str], Mapping[str, bytes]]) -> Path:
    """Write the files `<prefix>_00001<ending>`, of the next free number, as `write_new` does; returns the last one.

    make: the name without ending -> contents by ending. It is called again where another process took the number.
    """
    pattern = re.compile(re.escape(prefix) + r"_(\d{5,})\.\w+", re.IGNORECASE)
    with disk_errors(f"The folder {folder.name} could not be written"):
        make_folder(folder)
        taken = [int(found[1]) for entry in folder.iterdir() if (found := pattern.fullmatch(composed(entry.name)))]
    number = max(taken, default=0)
    while True:
        number += 1
        name = f"{prefix}_{number:05}"
        files = {folder / f"{name}{ending}": data for ending, data in make(name).items()}
        with suppress(FileExistsError):
            write_new(files)
            return [*files][-1]


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a journal; what a crash cut short before it stays a line of its own. `sync_file` has it kept."""
    if path.exists():
        regular(path)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line + b"\n")


@contextmanager
def part_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` to be filled and given to `publish_folder`; else it is deleted at the end.

    Raises DiskError for an OSError of the body.
    """
    with disk_errors(f"The folder {folder.name} could not be written"):
        make_folder(folder.parent)
        for entry in folder.parent.glob(".*.part"):
            with suppress(FileNotFoundError):
                if _name(entry) == folder.name and time.time() - entry.stat().st_mtime > STALE:
                    shutil.rmtree(entry, ignore_errors=True)
        part = _hidden(folder, "part")
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def publish_folder(part: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Give a `part_folder` its name, once all that is in it is on the disk. A folder of that name is replaced with
    `overwrite`, or if it is empty.

    The old folder is deleted when the new one is on the disk. A kill or a power cut between the two renames leaves the
    old one under a hidden name, from which `recovered` brings it back. Raises FileExistsError.
    """
    _sync_tree(part)
    old = _hidden(folder, "old")
    with _RENAMING:
        if overwrite and folder.exists():
            os.replace(folder, old)
        else:
            with suppress(OSError):  # it is not there, or not empty
                folder.rmdir()
        try:
            os.replace(part, folder)
        except OSError as error:
            if old.exists():
                os.replace(old, folder)
            elif folder.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from error
            raise
    _sync_folder(folder.parent)
    for left in folder.parent.glob(".*.old"):  # of an earlier kill too
        if _name(left) == folder.name:
            shutil.rmtree(left, ignore_errors=True)


def recovered(root: Path) -> Path:
    """`root` itself, after each folder in it has its name again that `publish_folder` was replacing when it ended."""
    with _RENAMING:
        for old in root.glob(".*.old"):
            folder = root / _name(old)
            if not folder.exists():
                with suppress(OSError):
                    os.replace(old, folder)
    return root


def remove_folder(folder: Path) -> None:
    """Delete a folder as well as the system lets it. A kill leaves it whole, or under a hidden name (`.….part`)."""
    gone = _hidden(folder, "part")
    with suppress(OSError):
        os.replace(folder, gone)
        _sync_folder(folder.parent)
        shutil.rmtree(gone, ignore_errors=True)


def publish_file(part: Path, path: Path) -> None:
    """Give a file that is written its name, in place of any other: both are on the disk when this returns."""
    sync_file(part)
    os.replace(part, path)
    _sync_folder(path.parent)


def new_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that a power cut cannot take it away again. Raises FileExistsError."""
    make_folder(folder.parent)
    folder.mkdir()
    _sync_folder(folder.parent)


def make_folder(folder: Path) -> None:
    """The same for a folder that may be there already."""
    if not folder.is_dir():
        try:
            new_folder(folder)
        except FileExistsError as error:  # a file, or another process was quicker
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def sync_file(path: Path) -> None:
    """Have a file's bytes on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def regular(path: Path) -> Path:
    """The path itself, of a regular file or a link to one. Raises OSError for anything else.

    To open a pipe waits for its other end, maybe for ever, and to open a device may do anything.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.ENXIO, "not a regular file", str(path))
    return path


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. Raises DiskError when it cannot be read."""
    digest = hashlib.sha256()
    with disk_errors(f"The file {path.name} cannot be read"), regular(path).open("rb") as file:
        while block := file.read(1 << 20):  # in blocks: checkpoints of several GB are hashed too
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """An OSError of the body becomes a DiskError that begins with `what`. That a file exists is for the caller."""
    try:
        yield
    except (DiskError, FileExistsError):
        raise
    except OSError as error:
        raise DiskError(what, error) from error
    except SafetensorError as error:  # in place of an OSError, whose number is in its text
        if not (found := re.search(r"os error (\d+)", str(error))):
            raise
        raise DiskError(what, OSError(int(found[1]), os.strerror(int(found[1])))) from error


def _part(path: Path, data: bytes) -> Path:
    """A file with the data beside `path`, on the disk, without a name that anybody looks for."""
    make_folder(path.parent)
    part = path.with_name(f".{uuid.uuid4().hex[:16]}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def _link(part: Path, path: Path) -> None:
    """Give a part its name, unless there is such a file: then FileExistsError."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # FAT and some network drives have no links: a folder, which is made only once, keeps others off
        claim = path.with_name(f".{path.name}.claim")
        claim.mkdir()
        try:
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            os.replace(part, path)
        finally:
            claim.rmdir()


def _hidden(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{what}")


def _name(hidden: Path) -> str:
    """The name of the folder that a name of `_hidden` was made for."""
    return hidden.name[1:].rsplit(".", 2)[0]


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(place, name))
        _sync_folder(Path(place))


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that: Windows does it by itself."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
