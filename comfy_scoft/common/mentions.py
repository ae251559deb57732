"""Where a text names a place: as a word, by the rules of the name's script.

Most scripts put blanks between words, and a name counts only as a whole word: "Iran" is not in "Tirana", nor दिल in
दिल्ली. Where words are not set apart (Chinese, Japanese, Thai, Khmer, …) it counts wherever its letters stand whole:
中国 is in 中国菜. Where endings are written onto a name (Korean, Tamil, Georgian, …) it must begin the word: 한국 is in
한국에서. Where "and", "in" or "the" are written before it (Arabic, Hebrew, Ethiopic), they may be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import regex

from .text import JOINERS, composed

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Tham}"
_WITH_ENDINGS = ("Hangul", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Gujarati", "Georgian", "Armenian")
_BEFORE = {
    "Arabic": "[وف]?(?:[بكل]?(?:ال)?|لل)",
    "Hebrew": "[וש]?[בכלמה]?",
    "Ethiopic": "(?:እና|ስለ|[በከለየ])?",
}
"""What is written onto the front of a name: and, so; in, like, to; the."""
_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}_{JOINERS}]--[{_UNSPACED}\p{{Hangul}}]]"

_OTHER_PLACES = {
    "인도": ("", "네시아|차이나|양"),
    "インド": ("", "ネシア|シナ|洋"),
    "印度": ("", "尼西[亚亞]|支那|洋"),
    "기니": ("", "비사우"),
    "ギニア": ("", "ビサウ"),
    "几内亚": ("", "比绍"),
    "京都": ("[東东]", ""),
}
"""Names -> what stands before or after them in the name of another place, in scripts where no blank tells: Indonesia
holds India, Tokyo holds Kyoto."""


def mentions(names: str | Iterable[str], text: str) -> list[tuple[int, int]]:
    """(start, end) of each mention of one of the names in a text, in order; of several at one point, the longest.

    Upper and lower case are the same, and so are any two runs of white space. Names and text must be in composed form
    (NFC), in which `composed` gives them.
    """
    pattern = _pattern((names,) if isinstance(names, str) else tuple(names))
    found = [match.span() for match in pattern.finditer(text)] if pattern else []
    if not found or text.isascii():
        return found
    letters = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    return [span for span in found if letters.issuperset(span)]


@lru_cache(maxsize=256)
def _pattern(names: tuple[str, ...]) -> regex.Pattern[str] | None:
    words = sorted((name.split() for name in map(composed, names) if name.strip()), key=lambda n: -len(" ".join(n)))
    return regex.compile("|".join(map(_bordered, words)), regex.V1 | regex.IGNORECASE) if words else None


def _bordered(words: list[str]) -> str:
    """The pattern of a name with what may stand before and after it."""
    name = r"\s+".join(map(regex.escape, words))
    first, last = words[0][0], regex.sub(r"\p{M}+$", "", words[-1])[-1:]
    script = next((script for script in _WITH_ENDINGS if regex.match(rf"\p{{{script}}}", first)), None)
    before = rf"(?<!\p{{{script}}})" if script else rf"(?<!{_WORD})"
    for script, written in _BEFORE.items():
        if regex.match(rf"\p{{{script}}}", first) and len(words[0]) > 2:
            before = rf"(?<=(?<!{_WORD}){written})"
    if regex.match(f"[{_UNSPACED}]", first):
        before = r"(?<![เ-ไເ-ໄ])"  # a vowel that is written before its consonant
    free = _UNSPACED + "".join(rf"\p{{{each}}}" for each in _WITH_ENDINGS)
    after = "" if regex.match(f"[{free}]", last) else rf"(?!{_WORD})"
    other_before, other_after = _OTHER_PLACES.get(" ".join(words), ("", ""))
    before += f"(?<!{other_before})" if other_before else ""
    after += f"(?!{other_after})" if other_after else ""
    return before + name + after
