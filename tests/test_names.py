"""People's own names can name runs, LoRAs, datasets, surveys and files, in any script, and fit on every system."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import comfy_inprocess as tiny
import pytest
import torch
from safetensors.torch import load_file

tiny.start()

from comfy_scoft.comfyui.dataset_folders import collected_folder, dataset_place  # noqa: E402  (needs a started ComfyUI)
from comfy_scoft.common.errors import UserError  # noqa: E402
from comfy_scoft.common.names import MAX_BYTES, checked_name, file_name  # noqa: E402
from comfy_scoft.corrector.preference_file import free_name  # noqa: E402
from comfy_scoft.data.dataset.metadata import normal_split  # noqa: E402
from comfy_scoft.experiments.engine.store import slug  # noqa: E402
from comfy_scoft.survey.build import file_name as survey_name  # noqa: E402
from comfy_scoft.training import run_folder as runs  # noqa: E402
from comfy_scoft.training.model_card import CardFields, save_lora  # noqa: E402
from comfy_scoft.training.model_card_text import plain  # noqa: E402

NAMES = """
    हिन्दी मराठी ภาษาไทย বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ગુજરાતી ਪੰਜਾਬੀ ଓଡ଼ିଆ ລາວ မြန်မာ ភាសាខ្មែរ བོད་ཡིག עִבְרִית العَرَبِيّة فارسی‌زبان
    አማርኛ ქართული հայերեն Ελληνικά українська Tiếng-Việt Ìlú 한국 日本語 葛󠄀城 繁體中文 ߒߞߏ ᠮᠣᠩᠭᠣᠯ Kora-2.1_b क्‍ष l·l x 7
""".split()
HANGUL = unicodedata.normalize("NFD", "한국")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_its_own_script_is_a_name_everywhere(name: str, tmp_path: Path) -> None:
    nfc = unicodedata.normalize("NFC", name)
    assert checked_name(name) == dataset_place(tmp_path, f" {name} ").name == nfc
    for form in ("NFC", "NFD"):
        run = runs.run_folder(tmp_path / form, unicodedata.normalize(form, name))
        assert run == tmp_path / form / nfc and run.is_dir()
        assert runs.run_folder(tmp_path / form, unicodedata.normalize(form, name)).name == f"{nfc}-2"
    lora = save_lora(tmp_path, name, {"a.lora_down.weight": torch.ones(1, 2)}, CardFields(title=name))
    assert lora.name == f"{nfc}_00001.safetensors" and load_file(lora)
    assert "not stated" in lora.with_suffix(".md").read_text(encoding="utf-8")
    assert free_name(tmp_path / "none", name).name == f"{nfc}_00001.safetensors"
    assert survey_name(name).replace("-", "") == nfc.casefold().replace("_", "").replace(".", "").replace("-", "")
    assert slug(name, ".-").replace("_", "") == nfc.replace("_", "")
    assert collected_folder("", Path(f"{name}.csv")).name == f"{nfc} images"
    assert plain(f"{name}_{name}").replace("\\", "") == f"{name}_{name}" and "\\" not in plain(f"{name}_{name}")


NO_NAMES = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "a\\b",
    "C:x",
    ".hidden",
    "end.",
    "a\nb",
    "a\0",
    "con",
    "NUL.txt",
    "com¹",
    "lpt9",
    "*",
]
NO_NAMES += ["\u0301", "a\u200d", "\u200da", "\u3164", "a\u202eb", "a\ud800", "\udcb0", "a?", "a|b", '"a"']


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_everywhere_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(UserError, match=r"^The run name '.*' cannot name a file: .+\.$") as found:
        checked_name(name, "run name")
    str(found.value).encode()


def test_a_length_is_that_of_the_bytes_and_leaves_room_for_what_is_appended(tmp_path: Path) -> None:
    longest = "漢" * (MAX_BYTES // 3)
    assert runs.run_folder(tmp_path, longest).is_dir() and checked_name("x" * MAX_BYTES) and checked_name("é" * 110)
    assert save_lora(tmp_path, longest, {"a": torch.ones(1)}, CardFields()).is_file()
    for name in (longest + "漢", "x" * (MAX_BYTES + 1), "हिन्दी" * 13, "x" * 200_000):
        with pytest.raises(
            UserError, match=r"cannot name a file: it takes \d+ bytes, and at most 220 fit, so shorten it.$"
        ) as found:
            checked_name(name)
        assert len(str(found.value)) < 250


def test_a_run_from_a_mac_goes_on_however_its_name_is_composed(tmp_path: Path) -> None:
    (tmp_path / f"{HANGUL}-3" / "checkpoint-00000001").mkdir(parents=True)
    for name in ("한국", HANGUL):
        assert runs.run_folder(tmp_path, name, runs.LATEST).name == f"{HANGUL}-3"
        assert runs.run_folder(tmp_path, "other", f"{name}-3").name == f"{HANGUL}-3"
    assert runs.run_folder(tmp_path, "한국").name == "한국-4"
    (tmp_path / f"{HANGUL}_00007.safetensors").touch()
    assert save_lora(tmp_path, "한국", {"a": torch.ones(1)}, CardFields()).name == "한국_00008.safetensors"
    assert free_name(tmp_path, HANGUL).name == "한국_00009.safetensors"


def test_any_text_gives_a_files_name_that_keeps_whole_letters() -> None:
    assert file_name("हिन्दी की  तस्वीरें?!", "none", "-") == "हिन्दी-की-तस्वीरें"
    assert file_name("क्षि" * 30, "none", "-", most=20) == "क्षि"
    assert [file_name(text, "none", "-") for text in ("", "…", "nul", "COM1", "\u200d", "\ud800")] == ["none"] * 6
    assert file_name("a (1).b", "none", " ", ".()") == "a (1).b"


def test_the_folder_of_a_list_is_named_after_it_and_fits(tmp_path: Path) -> None:
    assert collected_folder("", Path("our links (2).csv")).name == "our links (2 images"
    assert collected_folder("", Path("x" * 90 + ".csv")).name == "x" * 60 + " images"
    assert len(collected_folder("", Path("漢" * 80 + ".csv")).name.encode()) <= MAX_BYTES


def test_a_split_may_have_a_name_of_ones_own() -> None:
    assert normal_split("प्रशिक्षण", "line 1") == "प्रशिक्षण" and normal_split(" Held Out ", "line 1") == "held out"
    for name in ("", "all", "a/b", "..", "x" * 41, "-a"):
        with pytest.raises(UserError, match="use train, test, validation or another short word"):
            normal_split(name, "line 1")


def test_a_lora_of_no_numbers_is_not_saved(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(
            UserError, match=r"^The LoRA 'x' holds values in 'b' that are not finite numbers, so it is not"
        ):
            save_lora(tmp_path, "x", {"a": torch.ones(2), "b": torch.tensor([1.0, value])}, CardFields())
    assert list(tmp_path.iterdir()) == []
