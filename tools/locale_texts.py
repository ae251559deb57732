"""The pack's texts: English from /object_info, and translations in the files that ComfyUI reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from checkout import ROOT
from workflow_form import inputs_of

from comfy_scoft.common.files import write_atomically

FOLDER = ROOT / "locales"
FILES = ("nodeDefs", "main")
SOURCE = "source.json"
PREFIX = "SCoFT_"
OPTION = "main/SCoFT/options/"
TOOLTIP = "main/SCoFT/tooltips/"
"""Where the files keep input tooltips with a special character of the message format; see `to_files`."""
STOCK = frozenset({"sampler", "sampler_name", "scheduler"})
FOLDERS = frozenset({"checkpoint", "folder", "links", "lora", "preference", "resume", "start_from", "weights"})
FIXED = frozenset({"latest", "download from Hugging Face (asks the internet)"})
"""Combos with ComfyUI's own choices; combos that list files, of whose choices only the default and FIXED are texts."""

Texts = dict[str, str]
"""Translatable texts by their key, such as `nodeDefs/SCoFT_LoadDataset/inputs/folder/tooltip`; plain, not escaped."""

_SPECIAL = re.compile(r"[{}@|]")
_ESCAPED = re.compile(r"\{'([{}@|])'\}")
_WORDS, _CODE = re.compile(r"(?<!\S)[a-z]+(?!\S)"), re.compile(r"[\d_./]")


def escape(text: str) -> str:
    """The text for the editor's message format (vue-i18n), where { } @ | are special."""
    return _SPECIAL.sub(lambda match: "{'" + match.group() + "'}", text)


def unescape(message: str) -> str:
    """The text that the editor shows for a message. Raises ValueError for an unescaped { } @ |."""
    if _SPECIAL.search(_ESCAPED.sub("", message)):
        raise ValueError(f"{message!r} has a bare {{, }}, @ or |, which the editor does not show: write {{'|'}} for |.")
    return _ESCAPED.sub(r"\1", message)


def english(object_info: Mapping[str, Any]) -> Texts:
    """Every translatable text of this pack's nodes."""
    texts: Texts = {}
    categories: set[str] = set()
    options: set[str] = set()
    for name, node in sorted(object_info.items()):
        if name.startswith(PREFIX):
            texts |= {f"nodeDefs/{name}/{key}": text for key, text in _of_a_node(node) if text}
            categories.update(node["category"].split("/"))
            options.update(_options(node))
    texts |= {f"main/nodeCategories/{part}": part for part in sorted(categories)}
    return texts | {OPTION + option: option for option in sorted(options)}


def _of_a_node(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "display_name", node["display_name"]
    yield "description", node["description"]
    for name, options in _inputs(node):
        yield f"inputs/{name}/name", name
        yield f"inputs/{name}/tooltip", options.get("tooltip", "")
    tooltips = node.get("output_tooltips") or []
    for index, name in enumerate(node["output_name"]):
        yield f"outputs/{index}/name", name
        yield f"outputs/{index}/tooltip", tooltips[index] or "" if index < len(tooltips) else ""


def _options(node: Mapping[str, Any]) -> Iterator[str]:
    """The choices of a node's combos that are words, not names or files."""
    for name, options in _inputs(node):
        choices = _fixed(name, options) if name not in STOCK else []
        yield from (choice for choice in choices if _WORDS.search(choice) and not _CODE.search(choice))


def _fixed(name: str, options: Mapping[str, Any]) -> list[str]:
    """The choices of a combo that are not files."""
    values, default = options.get("options") or [], options.get("default")
    return [value for value in values if name not in FOLDERS or value in FIXED or value == default]


def _inputs(node: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(entry.name.replace(".", "_"), entry.options) for entry in inputs_of(node)]  # the editor asks with _ for .


def choices(object_info: Mapping[str, Any]) -> dict[str, list[str]]:
    """By a tooltip's key, the options of its input that it names; translations keep their English names."""
    named = {}
    for name, node in object_info.items():
        for key, options in _inputs(node):
            tooltip = options.get("tooltip", "")
            named[f"nodeDefs/{name}/inputs/{key}/tooltip"] = [
                one for one in _fixed(key, options) if re.search(rf"(?<!\w){re.escape(str(one))}(?!\w)", tooltip)
            ]
    return named


def to_files(texts: Texts) -> dict[str, dict[str, Any]]:
    """The contents of the files that ComfyUI reads, by the files' names.

    Old versions of ComfyUI's page read the tooltips in nodeDefs.json as messages, new ones as plain text. So those with
    a special character of the message format, { } @ or |, are in main.json, where web/translations.js finds them.
    """
    files: dict[str, dict[str, Any]] = {name: {} for name in FILES}
    for key, text in texts.items():
        _, node, *rest = key.split("/")
        special = key.endswith("/tooltip") and rest[0] == "inputs" and _SPECIAL.search(text)
        *path, last = (f"{TOOLTIP}{node}/{rest[1]}" if special else key).split("/")
        place = files
        for part in path:
            place = place.setdefault(part, {})
        place[last] = escape(text)
    return files


def from_files(files: Mapping[str, Any]) -> Texts:
    """The reverse of `to_files`. Raises ValueError for a wrong type or place, and as `unescape`."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for part, inner in value.items():
                yield from walk(inner, f"{key}/{part}")
        elif isinstance(value, str) and key.endswith("/tooltip") and _SPECIAL.search(value):
            raise ValueError(f"{key} has a {{, }}, @ or |: move it to SCoFT, tooltips in main.json.")
        elif isinstance(value, str) and key.startswith(TOOLTIP):
            node, name = key.removeprefix(TOOLTIP).split("/")
            yield f"nodeDefs/{node}/inputs/{name}/tooltip", unescape(value)
        elif isinstance(value, str):
            yield key, unescape(value)
        else:
            raise ValueError(f"{key} is {value!r}, which is no text: put it in quotes.")

    return dict(pair for name in FILES for pair in walk(files[name], name))


def read_language(language: str, folder: Path = FOLDER) -> tuple[Texts, Texts]:
    """The translations of a language, and the English they were made from."""
    files = {name: read_json(folder / language / f"{name}.json") for name in FILES}
    return from_files(files), read_json(folder / language / SOURCE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none. Raises ValueError, with the place, for one that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}), and ComfyUI would leave it out: correct it there.") from error


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8"))
