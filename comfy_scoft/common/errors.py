"""The exceptions of the pack. Any other exception is a fault of the code and shows its traceback."""

from __future__ import annotations

import errno

NAME = "comfy_scoft"
"""The module that ComfyUI shows with an error: the real one's name holds the path of the pack's folder."""


class UserError(ValueError):
    """A person's mistake, in one sentence: what was wrong, what was expected, what to do."""

    __module__ = NAME


class NonFiniteLoss(UserError):
    """A loss term became NaN or infinite; the message names the term, and the last good checkpoint is kept."""

    __module__ = NAME


class OtherProcess(UserError):
    """Another process of the run ended or stopped with a fault, so that this one cannot go on either."""

    __module__ = NAME


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

    __module__ = NAME

    def __init__(self, what: str, error: OSError) -> None:
        """what: the beginning of the sentence, such as "The file a.txt could not be written"."""
        super().__init__(f"{what} ({error.strerror or error}): {advice(error)}.")
        self.errno, self.strerror = error.errno, error.strerror

    def __str__(self) -> str:
        return str(self.args[0])  # OSError would write its number
