"""The exceptions of the pack. Any other exception is a fault of the code and shows its traceback."""

from __future__ import annotations

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


class ImageError(UserError):
    """A file that cannot be used as an image.

    sentence: with {file} for its name. of_many: the same of {count} images at once, {files}, where one remedy is for
    all; "" to say it of each.
    """

    __module__ = NAME

    def __init__(self, sentence: str, file: str, of_many: str = "") -> None:
        super().__init__(sentence.replace("{file}", file))
        self.sentence, self.file, self.of_many = sentence, file, of_many

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return ImageError, (self.sentence, self.file, self.of_many)

    def about(self, file: str) -> ImageError:
        """The same error with another name of the file, as its path below a dataset's folder."""
        return ImageError(self.sentence, file, self.of_many)
