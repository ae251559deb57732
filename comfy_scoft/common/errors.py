"""The exceptions of the pack. Any other exception is a fault of the code and shows its traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from .text import sentence

NAME = "comfy_scoft"
"""The module that ComfyUI shows with an error: the real one's name holds the path of the pack's folder."""


class UserError(ValueError):
    """A person's mistake, in one sentence: what was wrong, what was expected, what to do.

    The sentence may quote anything: it is made printable and kept short here.
    """

    __module__ = NAME

    def __init__(self, text: str) -> None:
        super().__init__(sentence(text))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__module__ = NAME


class NonFiniteLoss(UserError):
    """A loss term became NaN or infinite; the message names the term, and the last good checkpoint is kept."""


class OtherProcess(UserError):
    """Another process of the run ended or stopped with a fault, so that this one cannot go on either."""


_ADVICE = {
    "ENOSPC": "free some space",
    "EDQUOT": "free some space, or ask for more: your quota is used up",
    "EFBIG": "choose a disk that takes larger files, or raise the limit of a file's size (ulimit -f)",
    "EROFS": "choose a folder that you can write to",
    "EACCES": "get the permission for it, or choose another folder",
    "EPERM": "get the permission for it, or choose another folder",
    "ENOENT": "check the path, or put it back",
    "ENOTDIR": "check the path",
    "EISDIR": "check the path",
    "ELOOP": "check the path: its links lead in a circle",
    "ENAMETOOLONG": "choose a shorter name",
    "EILSEQ": "choose a name of plain letters and digits",
    "EEXIST": "choose another name",
    "ENOTEMPTY": "choose another name",
    "EMFILE": "close other programs, or raise the limit of open files (ulimit -n)",
    "ENFILE": "close other programs",
    "EIO": "check the disk",
    "ENOLCK": "choose a folder on a local disk, or have file locks switched on for this network drive",
    "ESTALE": "connect the network drive again",
    "ENODEV": "connect the drive again",
    "ENXIO": "put a regular file there",
    "EBUSY": "close the program that uses it",
    "ETXTBSY": "close the program that uses it",
    "ENOTSUP": "choose a folder on another disk",
    "EXDEV": "choose a folder on one disk",
}
ADVICE = {getattr(errno, name): advice for name, advice in _ADVICE.items() if hasattr(errno, name)}
"""What to do about an error of files and disks, by its number. Any other OSError is not one that a person can mend."""


def advice(error: OSError) -> str:
    """What to do about an error of the system, as the end of a sentence."""
    return ADVICE.get(error.errno or 0, "check the disk and the folder")


class DiskError(UserError, OSError):
    """The system refused to read or write something: what could not be done, why, and what to do about it."""

    def __init__(self, what: str, error: OSError) -> None:
        """what: the beginning of the sentence, such as "The file a.txt could not be written"."""
        super().__init__(f"{what} ({error.strerror or error}): {advice(error)}.")
        self.errno, self.strerror = error.errno, error.strerror

    def __str__(self) -> str:
        return str(self.args[0])  # OSError would write its number


class ImageError(UserError):
    """A file that cannot be used as an image.

    sentence: with {file} for its name. of_many: the same of {count} images at once, {files}, where one remedy is for
    all; "" to say it of each.
    """

    def __init__(self, sentence: str, file: str, of_many: str = "") -> None:
        super().__init__(sentence.replace("{file}", file))
        self.sentence, self.file, self.of_many = sentence, file, of_many

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return ImageError, (self.sentence, self.file, self.of_many)

    def about(self, file: str) -> ImageError:
        """The same error with another name of the file, as its path below a dataset's folder."""
        return ImageError(self.sentence, file, self.of_many)


def reworded(error: BaseException, clean: Callable[[str], str]) -> BaseException:
    """The error, whose text and those of its causes, contexts, notes and parts are made to be `clean(text)`.

    Type and traceback stay. Only an error whose type allows no other text (one written in C, such as pydantic's) is
    replaced, by a RuntimeError that names that type. clean: gives a text that it has cleaned back as it is.
    """
    return _reworded(error, clean, {})


def _reworded(error: BaseException, clean: Callable[[str], str], done: dict[int, BaseException]) -> BaseException:
    if id(error) in done:
        return done[id(error)]
    new = done[id(error)] = _said(error, clean)
    done[id(new)] = new
    context, cause, silent = error.__context__, error.__cause__, error.__suppress_context__
    new.__context__ = None if context is None else _reworded(context, clean, done)
    new.__cause__ = None if cause is None else _reworded(cause, clean, done)
    new.__suppress_context__ = silent
    if notes := getattr(error, "__notes__", None):
        new.__notes__ = [clean(str(note)) for note in notes]  # type: ignore[attr-defined]
    for part in getattr(error, "exceptions", ()):  # of an ExceptionGroup, which cannot exchange them
        _reworded(part, clean, done)
    return new


def _said(error: BaseException, clean: Callable[[str], str]) -> BaseException:
    """The error with its own text cleaned, or what stands for it."""
    text = _text(error)
    if (wanted := clean(text)) == text:
        return error
    for name in ("filename", "filename2", "strerror", "msg"):  # OSError and SyntaxError make their text of these
        if isinstance(value := getattr(error, name, None), str | bytes):
            setattr(error, name, clean(os.fsdecode(value)))
    if len(error.args) == 1:
        error.args = (wanted,)
    if (now := _text(error)) in (wanted, clean(now)):
        return error
    own = type(error)
    named = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__str__": lambda _: wanted}
    try:  # a type whose text is not that of its arguments
        error.__class__ = type(own.__name__, (own,), named)
    except TypeError:
        return RuntimeError(f"{own.__name__}: {wanted}").with_traceback(error.__traceback__)
    return error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an error that cannot say what it is
        return type(error).__name__
