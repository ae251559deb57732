"""Settings declared once: default, range, step and help of a setting stand in its dataclass field.

The widgets of the nodes (comfyui/widgets.py), the options of the command line (cli/options.py) and `check` read them
from there.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import reprlib
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from .errors import UserError
from .text import is_unicode

KEY = "setting"

MAX_SEED = 2**64 - 1
"""The largest seed of ComfyUI's own widgets and of torch's generators."""


class Choice(str, Enum):
    """One of a few named values. Each equals its string, and JSON, messages and file names show that string."""

    __str__ = str.__str__
    __repr__ = str.__repr__
    __format__ = str.__format__  # type: ignore[assignment]


@dataclass(frozen=True)
class Declaration:
    """help: tooltip and command-line help. min, max: the smallest and largest value, both allowed. step: of the widget.
    identity: whether the setting changes what is learned (beyond rounding); a run resumes only if those are equal.
    later: added when there were runs and results already; at its default it is no part of the identity, so that these
    stay what they are."""

    help: str = ""
    min: float | None = None
    max: float | None = None
    step: float | None = None
    identity: bool = True
    later: bool = False


def setting(
    default: Any,
    help: str = "",
    *,
    min: float | None = None,
    max: float | None = None,
    step: float | None = None,
    identity: bool = True,
    later: bool = False,
) -> Any:
    """A dataclass field with its `Declaration`. Its type is that of the default: bool, int, float, str or a Choice."""
    return field(default=default, metadata={KEY: Declaration(help, min, max, step, identity, later)})


def declaration(owner: Any, name: str) -> tuple[Any, Declaration]:
    """(default, declaration) of a field of a settings class or object. AssertionError if it is not declared."""
    (own,) = (each for each in dataclasses.fields(owner) if each.name == name)
    assert KEY in own.metadata, f"{name} is not declared with setting()"
    return own.default, own.metadata[KEY]


def identity_fields(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass that change what is learned, as plain JSON."""
    found = asdict(settings)
    for each in dataclasses.fields(settings):
        own = each.metadata.get(KEY, Declaration())
        if not own.identity or (own.later and found[each.name] == each.default):
            del found[each.name]
    return found


def check(settings: Any) -> None:
    """Check every declared field; call it from `__post_init__`. A string becomes the Choice that it names.

    Numbers must be finite and in range: the limits of a widget hold only for what is typed into it, not for what comes
    by a link. Raises UserError, one sentence with name, value and range.
    """
    for each in dataclasses.fields(settings):
        if KEY not in each.metadata:
            continue
        value, declared = getattr(settings, each.name), each.metadata[KEY]
        if isinstance(each.default, Choice):
            known = [str(choice) for choice in type(each.default)]
            if not isinstance(value, str) or value not in known:
                raise UserError(f"{each.name} is {shown(value)}, but it must be one of {', '.join(known)}.")
            object.__setattr__(settings, each.name, type(each.default)(value))
        elif isinstance(each.default, bool | str):
            if not isinstance(value, type(each.default)):
                expected = "true or false" if isinstance(each.default, bool) else "text"
                raise UserError(f"{each.name} is {shown(value)}, but it must be {expected}.")
        else:
            whole = isinstance(each.default, int)
            check_number(each.name, value, whole=whole, min=declared.min, max=declared.max)


def check_number(name: str, value: Any, *, whole: bool, min: float | None, max: float | None) -> None:
    """Raise UserError unless the value is a finite number (whole: an integer) from min to max; None: no limit."""
    kind = numbers.Integral if whole else numbers.Real
    fits = isinstance(value, kind) and not isinstance(value, bool)
    finite = isinstance(value, numbers.Integral) or (fits and math.isfinite(value))  # isfinite fails for huge integers
    if not fits or not finite or (min is not None and value < min) or (max is not None and value > max):
        expected = "a whole number" if whole else "a number"
        if min is not None and max is not None:
            expected += f" from {_number(min)} to {_number(max)}"
        elif min is not None or max is not None:
            expected += f" of at least {_number(min)}" if min is not None else f" of at most {_number(max)}"
        raise UserError(f"{name} is {shown(value)}, but it must be {expected}.")


def check_text(name: str, value: Any) -> None:
    """Raise UserError unless the value is text that a UTF-8 file can hold."""
    if not isinstance(value, str):
        raise UserError(f"{name} is {shown(value)}, but it must be text.")
    if not is_unicode(value):
        raise UserError(f"{name} has characters that are not valid Unicode, in {shown(value)}: write them again.")


def shown(value: Any) -> str:
    """A value as a message shows it, cut to a readable length."""
    return reprlib.repr(value)


def _number(value: float | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
