"""The pack's texts in other languages: what there is to translate, and what a language lacks.

    python tools/locales.py template PLACE FOLDER
    python tools/locales.py check    PLACE [LANGUAGE …]
    python tools/locales.py accept   PLACE LANGUAGE [KEY …]

PLACE is the address of a running ComfyUI with this pack, or a file with its /object_info. English is in the code. A
language is a folder `locales/<language>/` with the two files that ComfyUI reads, `nodeDefs.json` (names, descriptions,
tooltips) and `main.json` (node categories, and the choices of combos, which web/translations.js shows), and with
`source.json`, which ComfyUI does not read: the English text that each translation was made from. `template` writes the
two files with the English text in them, for translators. `check` says what a language lacks: what is missing,
superfluous or stale (its English has changed since), what was left in English, and which numbers, placeholders, file
names or choices got lost. `accept` records today's English for new translations, and for the stale texts that are
named after the language.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from locale_texts import FOLDER, OPTION, SOURCE, Texts, choices, english, read_json, read_language, to_files, write_json

from comfy_scoft.experiments.comfy_client import ComfyClient

LANGUAGES = ("zh", "ko", "es")
LOCAL = "http://127.0.0.1:8188"
"""The ComfyUI that `python run.py comfy` starts."""
SAME = frozenset(
    "alpha batch buckets cfg checkpoint checkpointing clip control_net csv dataset ddim ddpm dora dropout ema kappa "
    "lora min_snr_gamma prompts rollout SCoFT vae".split()
) | {"base", "relief (mini)", "CLIPScore (SCoFT)", "KID (SCoFT)", "RS-Corrector (SCoFT)"}
"""Names, labels and choices that a language may leave in English."""

_SUFFIX = re.compile(r"\s*[(（]SCoFT[)）]$")
_KEPT = re.compile(
    r"\{\w+\}|[A-Za-z]\w*\.[A-Za-z]\w*|(?<![\w.])\.[a-z]+|\w+/\w+(?:/\w+)*|\w+_\w+|\d+(?:\.\d+)?", re.ASCII
)
"""Placeholders, file names, paths, names_with_underscores and numbers: the same in every language."""
_ENGLISH = re.compile(
    r"(?<![\w-])(?:the|of|and|with|which|from|for|that|is|are|this|to|on|by|it)(?![\w-])", re.I | re.A
)
_LETTERS = {"zh": re.compile(r"[\u4e00-\u9fff]"), "ko": re.compile(r"[\uac00-\ud7a3]"), "es": re.compile(r"[a-z]")}


@dataclass(frozen=True)
class Language:
    """One language's texts against the English ones."""

    language: str
    texts: Texts
    """English, by key."""
    choices: Mapping[str, Sequence[str]]
    translated: Texts
    source: Texts
    """The English that the translations were made from."""

    def problems(self, *, complete: bool = True) -> list[str]:
        """A sentence for each fault, with what to do about it, in the order of the keys.

        complete: report texts that are missing, new, stale or left over too.
        """
        sentences = []
        for key in sorted(self.texts.keys() | self.translated.keys()):
            if waiting := self._waiting(key):
                sentences += [waiting] if complete else []
            elif fault := self._fault(key):
                sentences.append(fault)
        return [f"locales/{self.language}: {sentence}" for sentence in sentences]

    def _waiting(self, key: str) -> str | None:
        """What a translator has still to do about it."""
        if key not in self.translated:
            return f"{key} is missing: translate {self.texts[key]!r}."
        if key not in self.texts:
            return f"{key} belongs to nothing that the pack has: remove it."
        accept = f"python tools/locales.py accept {LOCAL} {self.language}"
        if key not in self.source:
            return f"{key} is new: run `{accept}`."
        if self.source[key] != self.texts[key]:
            change = f"was made from {self.source[key]!r}, which is now {self.texts[key]!r}"
            return f"{key} {change}: change the translation, then run `{accept} {key}`."
        return None

    def _fault(self, key: str) -> str | None:
        """What is wrong with a translation that is there and of today's English."""
        fault = self._wording(key) or self._parts(key) or self._names(key)
        return f"{key} is {self.translated[key]!r}, which {fault}." if fault else None

    def _wording(self, key: str) -> str | None:
        own, text = self.translated[key], self.texts[key]
        if not own.strip():
            return "is empty"
        if own == text:
            return None if text in SAME else "was left in English"
        if key.endswith("/tooltip") or key.endswith("/description"):
            plain = own
            for piece in (*self.choices.get(key, ()), *re.findall("`[^`]+`|“[^”]+”", text)):  # commands, quotations
                plain = plain.replace(piece, "")
            if not _LETTERS[self.language].search(plain) or _ENGLISH.search(plain):
                return "has English in it"
        return None

    def _parts(self, key: str) -> str | None:
        own, text = self.translated[key], self.texts[key]
        node = "/".join(key.split("/")[:2])
        for part in sorted(set(_KEPT.findall(text)) - set(_KEPT.findall(own))):
            label = self.translated.get(f"{node}/inputs/{part}/name")  # an input may be called by its label
            if not key.endswith("/name") and (label is None or label not in own):
                return f"lacks {part!r} of {text!r}"
        if key.startswith(OPTION) and text not in own and any(text in named for named in self.choices.values()):
            return f"lacks {text!r}, as which tooltips name it"
        lost = [choice for choice in self.choices.get(key, ()) if choice not in own]
        return f"lacks the choice {lost[0]!r}" if lost else None

    @cached_property
    def _display_names(self) -> list[tuple[str, str]]:
        """Key and English name of every node, without the pack's."""
        return [(key, _SUFFIX.sub("", name)) for key, name in self.texts.items() if key.endswith("/display_name")]

    def _names(self, key: str) -> str | None:
        """Other nodes are named as this language names them."""
        if key.endswith("/display_name"):
            return None
        for other, name in self._display_names:
            if not re.search(rf"\b{re.escape(name)}\b", self.texts[key]):
                continue
            there = _SUFFIX.sub("", self.translated.get(other, name))
            if there not in self.translated[key]:
                return f"should call {name!r} by its name in this language, {there!r}"
        return None


def check(language: str, object_info: Mapping[str, Any], folder: Path = FOLDER, *, complete: bool = True) -> list[str]:
    """What is wrong with a language, a sentence for each text; empty where nothing is.

    complete: texts that are missing, new, stale or left over count too.
    """
    try:
        translated, source = read_language(language, folder)
    except ValueError as error:
        return [f"locales/{language}: {error}"]
    texts = Language(language, english(object_info), choices(object_info), translated, source)
    return texts.problems(complete=complete)


def accept(language: str, object_info: Mapping[str, Any], keys: Sequence[str] = (), folder: Path = FOLDER) -> None:
    """Records the English of new translations and of those of `keys`; removes entries without a text.

    Raises ValueError for a key without a text or a translation.
    """
    texts, (translated, source) = english(object_info), read_language(language, folder)
    for key in keys:
        if key not in texts or key not in translated:
            raise ValueError(f"There is no translation {key!r} in locales/{language}: give a key that `check` names.")
    stay = {key: source[key] for key in source if key not in keys}
    accepted = {key: stay.get(key, text) for key, text in texts.items() if key in translated}
    write_json(folder / language / SOURCE, accepted)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("template", "check", "accept"))
    parser.add_argument("place", help="address of a running ComfyUI, or a file with its /object_info")
    parser.add_argument("rest", nargs="*", metavar="FOLDER | LANGUAGE | LANGUAGE KEY")
    given = parser.parse_args(arguments)
    if given.command != "check" and not given.rest:
        parser.error(f"{given.command} needs a {'folder' if given.command == 'template' else 'language'} too.")
    place = given.place
    object_info = ComfyClient(place).object_info() if place.startswith("http") else read_json(Path(place))
    if given.command == "template":
        for name, value in to_files(english(object_info)).items():
            write_json(Path(given.rest[0]) / f"{name}.json", value)
    elif given.command == "accept":
        accept(given.rest[0], object_info, given.rest[1:])
    else:
        problems = [problem for language in given.rest or LANGUAGES for problem in check(language, object_info)]
        print("\n".join(problems) or "Nothing is missing.")
        return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
