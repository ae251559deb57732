"""Widgets made from the settings' own declarations, and nodes that check their numbers and show their reports."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..common.settings import KEY, Choice, check_number, declaration
from ..data.images import open_image
from .compat import io
from .runtime import Progress, check_interrupt


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
    """A node whose numbers are checked before it runs: ComfyUI's own check does not cover values from a link or NaN.

    An output named `report` is also shown on the node (web/text.js).
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.execute.__func__
        if "execute" not in vars(cls) or not hasattr(own, "__wrapped__"):  # not ComfyUI's copy of a node for one run
            cls.execute = classmethod(_checked_and_shown(getattr(own, "__wrapped__", own)))

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


def _checked_and_shown(execute: Callable[..., Any]) -> Callable[..., Any]:
    names = execute.__code__.co_varnames[1 : execute.__code__.co_argcount]
    limits: dict[str, tuple[bool, Any, Any]] = {}
    outputs: list[str] = []

    @functools.wraps(execute)
    def checked(cls: type[Node], *args: Any, **kwargs: Any) -> Any:
        if not outputs:
            schema = cls.define_schema()
            numbers = [each for each in schema.inputs if isinstance(each, io.Int.Input | io.Float.Input)]
            limits.update({each.id: (isinstance(each, io.Int.Input), each.min, each.max) for each in numbers})
            outputs.extend(each.display_name for each in schema.outputs)
        for name, value in (dict(zip(names, args, strict=False)) | kwargs).items():
            for number in value if isinstance(value, list | tuple) else [value]:
                if name in limits and number is not None:
                    whole, least, most = limits[name]
                    check_number(name, number, whole=whole, min=least, max=most)
        result = execute(cls, *args, **kwargs)
        if "report" in outputs:
            shown = result.ui if isinstance(result.ui, dict | None) else result.ui.as_dict()
            result.ui = {**(shown or {}), "text": (result.args[outputs.index("report")],)}
        return result

    return checked
