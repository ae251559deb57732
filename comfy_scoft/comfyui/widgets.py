"""Widgets made from the settings' own declarations, and nodes that check their numbers and show their reports."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..common.errors import UserError, reworded
from ..common.settings import KEY, Choice, check_number, check_text, declaration, shown
from ..data.images import open_image
from ..data.records import Dataset
from .compat import io
from .runtime import Progress, check_interrupt, plain_message


def widget(
    owner: type,
    name: str,
    *,
    id: str = "",
    tooltip: str = "",
    optional: bool = False,
    rounded: bool = False,
    multiline: bool = False,
    options: Iterable[str] = (),
) -> Any:
    """The widget of a setting; its kind follows the default: a combo, a switch, a text or a number.

    id, tooltip: in place of the field's name and declared help. rounded: a float is rounded to its step. options: of a
    text that is chosen from a list.
    """
    value, own = declaration(owner, name)
    common = {"id": id or name, "default": value, "tooltip": tooltip or own.help, "optional": optional}
    if options or isinstance(value, Choice):
        choices = [str(each) for each in options or type(value)]
        return io.Combo.Input(**(common | {"default": str(value)}), options=choices)
    if isinstance(value, bool):
        return io.Boolean.Input(**common)
    if isinstance(value, str):
        return io.String.Input(**common, multiline=multiline)
    limits = {key: getattr(own, key) for key in ("min", "max", "step") if getattr(own, key) is not None}
    if isinstance(value, int):
        # ComfyUI would otherwise draw a new seed after each run, and the old one would be lost
        fixed = {"control_after_generate": False} if name == "seed" else {}
        return io.Int.Input(**common, **limits, **fixed)
    # ComfyUI would otherwise round typed values to the step, and 1e-4 to 0
    return io.Float.Input(**common, **limits, **({} if rounded else {"round": False}))


def widgets(owner: type, *names: str, optional: bool = False, multiline: tuple[str, ...] = ()) -> list[Any]:
    """The widgets of several settings; without names, of all. multiline: those that are texts of several lines."""
    declared = [each.name for each in dataclasses.fields(owner) if KEY in each.metadata]
    return [widget(owner, name, optional=optional, multiline=name in multiline) for name in names or declared]


class Node(io.ComfyNode):
    """A node whose inputs are checked before it runs, and whose errors anyone can be shown.

    ComfyUI's own check does not cover values from a link, NaN, and text that is not valid Unicode. It logs messages as
    they are, and one that cannot be encoded ends its queue.

    An output named `report` is also shown on the node (web/text.js).
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("define_schema", "validate_inputs", "fingerprint_inputs", "check_lazy_status", "execute"):
            method = vars(cls).get(name)
            if method is not None and not hasattr(method.__func__, "__wrapped__"):  # not ComfyUI's copy of a node
                own = method.__func__
                own = _with_checked_inputs(own) if name in ("validate_inputs", "execute") else own
                setattr(cls, name, classmethod(_with_plain_errors(own)))

    @classmethod
    def progress(cls, total: int) -> Progress:
        """The node's progress bar."""
        return Progress(max(1, total), getattr(cls.hidden, "unique_id", None))

    @classmethod
    def watch(cls, text: str) -> Callable[..., None]:
        """An observer that shows progress and the newest image, and checks for an interrupt.

        text: with {done} and {total}.
        """
        progress = cls.progress(1)

        def observe(done: int, total: int, newest: Path | None = None) -> None:
            check_interrupt()
            progress.total = max(1, total)
            progress.update(done, text.format(done=done, total=total), None if newest is None else open_image(newest))

        return observe


def _with_checked_inputs(method: Callable[..., Any]) -> Callable[..., Any]:
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]

    @functools.wraps(method)
    def checked(cls: type[Node], *args: Any, **kwargs: Any) -> Any:
        schema = cls.SCHEMA or cls.define_schema()
        inputs = {each.id: each for each in schema.inputs}
        for name, value in (dict(zip(names, args, strict=False)) | kwargs).items():
            for each in (value or ()) if schema.is_input_list else [value]:
                if isinstance(each, Dataset):
                    each.restore()
                if each is not None or method.__name__ != "validate_inputs":  # there it is one that comes by a link
                    _check_input(inputs.get(name), each)
        result = method(cls, *args, **kwargs)
        outputs = [each.display_name for each in schema.outputs]
        if method.__name__ == "execute" and "report" in outputs:
            beside = result.ui if isinstance(result.ui, dict | None) else result.ui.as_dict()
            result.ui = {**(beside or {}), "text": (result.args[outputs.index("report")],)}
        return result

    return checked


def _check_input(declared: Any, value: Any) -> None:
    """Raise UserError for a value that the widget of that input would not allow."""
    if isinstance(declared, io.Int.Input | io.Float.Input):
        check_number(declared.id, value, whole=isinstance(declared, io.Int.Input), min=declared.min, max=declared.max)
    elif isinstance(declared, io.String.Input):
        check_text(declared.id, value)
    elif isinstance(declared, io.Boolean.Input) and not isinstance(value, bool):
        raise UserError(f"{declared.id} is {shown(value)}, but it must be true or false.")
    elif isinstance(declared, io.Combo.Input) and not isinstance(value, str):
        raise UserError(f"{declared.id} is {shown(value)}, but it must be a name: choose one from the list.")


def _with_plain_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, whose errors are printable, short and without machine paths; a person's mistake that
    `validate_inputs` raises is its answer."""

    @functools.wraps(method)
    def plain(cls: type[Node], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(cls, *args, **kwargs)
        except Exception as raised:
            error = reworded(raised, plain_message)
        if isinstance(error, UserError) and method.__name__ == "validate_inputs":
            return str(error)
        try:
            raise error  # outside of the except clause, where the first one would become its context
        finally:
            del error  # its traceback holds this frame, and with it all that the node has computed

    plain.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]  # ComfyUI asks which inputs it takes
    return plain
