"""A text names a place where a reader of its script finds the place's name, and nowhere else."""

from __future__ import annotations

import unicodedata

import pytest
import torch

from comfy_scoft.common.mentions import mentions
from comfy_scoft.corrector.prompt_gate import contrasts
from comfy_scoft.data.captions import _named
from comfy_scoft.data.prompts import build_prompt
from comfy_scoft.data.records import CultureRecord
from comfy_scoft.metrics import bias

NAMED = """
Latin       Iran            a house in iran, by night
Latin       Kora            Kora's rivers
Latin       New_York        a street in new   york
Latin       Österreich      in ÖSTERREICH
Latin       Hawaiʻi         in Hawaiʻi
Latin       Côte_d’Ivoire   un plat de Côte d’Ivoire
Latin       Korea           Koreaの家
Latin       Korea           Korea에서
Greek       Ελλάδα          η ΕΛΛΆΔΑ σήμερα
Cyrillic    Россия          россия и мир
Georgian    საქართველო      სახლი საქართველოში
Armenian    Հայաստան        տուն Հայաստանում
Hebrew      ישראל           בית בישראל
Hebrew      ישראל           ומישראל
Arabic      إيران           بيت في إيران
Arabic      المغرب          طعام بالمغرب
Arabic      يمن             بيت في اليمن
Arabic      ایران           خانه‌ای در ایران
Ethiopic    ኢትዮጵያ          ቤት በኢትዮጵያ
Devanagari  भारत            भारत में एक घर
Devanagari  दिल्ली            दिल्ली की गलियाँ
Bengali     বাংলাদেশ         বাংলাদেশ থেকে
Gujarati    ગુજરાત           ગુજરાતમાં ઘર
Tamil       இந்தியா          இந்தியாவில் ஒரு வீடு
Telugu      భారతదేశం        భారతదేశంలో ఇల్లు
Malayalam   കേരളം           കേരളം
Sinhala     ශ්‍රී_ලංකා         ශ්‍රී ලංකාවේ
Thai        ไทย             อาหารไทย
Lao         ລາວ             ປະເທດລາວ
Khmer       កម្ពុជា           ប្រទេសកម្ពុជា
Myanmar     မြန်မာ           မြန်မာနိုင်ငံ
Tibetan     བོད              བོད་ཀྱི་ཁང་པ
Hangul      한국             한국에서 온 집
Hangul      한국             옛 한국음식
Han         中国             中国菜
Han         中国             一间中国房子
Japanese    日本             日本の食べ物
Japanese    インド            インド料理の店
Japanese    京都             京都の家
Japanese    東京             東京都の家
Hangul      인도네시아          인도네시아의 집
Japanese    インドネシア        インドネシア料理
"""

NOT_NAMED = """
Latin       Iran            food from Tirana
Latin       Korea           Korean food
Latin       York            a New Yorker
Latin       Niger           a street in Nigeria
Latin       Kora            kora2
Latin       Kora            Korá
Latin       Kora            Korã
Cyrillic    Крым            город Крымск
Hebrew      ישראל           איש ישראלי
Arabic      ایران           غذای ایرانی
Arabic      عمان            رجال عمانيون
Devanagari  दिल             दिल्ली में
Devanagari  भारत            भारतीय घर
Bengali     বাংলা            বাংলাদেশ
Tamil       வங்க            வங்கி
Hangul      수단             남수단의 집
Hangul      인도             인도네시아의 집
Han         印度             印度尼西亚菜
Japanese    インド            インドネシア料理
Japanese    京都             東京都の家
Thai        กา              เกาหลี
Khmer       ខ               កខ្ព
"""


def table(rows: str) -> list[tuple[str, str]]:
    cells = [line.split(maxsplit=2) for line in rows.strip().splitlines()]
    return [(name.replace("_", " "), text) for _, name, text in cells]


@pytest.mark.parametrize("name, text", table(NAMED))
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_place_is_named(name: str, text: str, form: str) -> None:
    name, text = unicodedata.normalize(form, name), unicodedata.normalize(form, text)
    ((start, end),) = mentions(name, unicodedata.normalize("NFC", text))
    assert start < end
    assert list(_named(CultureRecord("image", text, place=name), text)) == [name]
    assert build_prompt("{caption}, {place}", "", place=name, caption=text) == " ".join(text.split()).strip(" ,;:")


@pytest.mark.parametrize("name, text", table(NOT_NAMED))
def test_part_of_another_word_is_not_the_place(name: str, text: str) -> None:
    assert mentions(name, unicodedata.normalize("NFC", text)) == []
    assert list(_named(CultureRecord("image", text, culture=name), text)) == []
    assert build_prompt("{caption} in {place}", "", place=name, caption=text) == f"{text} in {name}"


def test_of_several_names_the_longest_counts_and_all_are_found_in_order() -> None:
    text = "a derelict house, a house and an elf"
    found = [text[start:end] for start, end in mentions(("elf", "house", "derelict house"), text)]
    assert found == ["derelict house", "house", "elf"]
    assert mentions((), text) == mentions(" ", text) == mentions("elf", "") == []
    assert bias.concept_of("An Elf in BOREA") == "elf" and bias.place_of("from aria to Borea") == "borea"


def test_the_gate_takes_a_place_out_of_a_caption_in_any_script() -> None:
    given = ["한국에서 온 집", "집", "옛 한국의 그림"]
    naming, without = contrasts(given, "한국", ["일본"], torch.Generator())
    assert naming == ["한국에서 온 집", "옛 한국의 그림"]
    assert [texts[:2] for texts in without] == [["에서 온 집", "일본에서 온 집"], ["옛 의 그림", "옛 일본의 그림"]]
    given = ["A boat in Kora.", "from Kora to kora", "a koran in Kora", "near  KORA , at night"]
    naming, without = contrasts(given, "kora", ["Lund"], torch.Generator())
    assert naming == given and [texts[:2] for texts in without] == [
        ["A boat.", "A boat in Lund."],
        ["to", "from Lund to Lund"],
        ["a koran", "a koran in Lund"],
        [", at night", "near  Lund , at night"],
    ]
