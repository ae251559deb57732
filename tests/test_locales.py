"""The pack in other languages: what is there is sound; in the long tier, every text is there and none is stale.

A translation is stale when its English changed in the code: the failing test then names the texts and the command that
records the new English once the translation has been looked at (tools/locales.py). That the page shows them is tested
in test_locales_page.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import locale_texts
import pytest
from comfy_server import ComfyServer

import locales

in_every_language = pytest.mark.parametrize("language", locales.LANGUAGES)

# --- the real ones ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def object_info(comfy: ComfyServer) -> dict[str, Any]:
    return comfy.client.object_info()


@in_every_language
def test_what_is_translated_is_well_formed(object_info: dict[str, Any], language: str) -> None:
    """Texts that are missing, new or stale are the long tier's: whoever adds a node need not translate it."""
    problems = locales.check(language, object_info, complete=False)
    assert not problems, "\n".join(problems)


@pytest.mark.long
@in_every_language
def test_every_text_of_every_node_is_translated_from_todays_english(object_info: dict[str, Any], language: str) -> None:
    problems = locales.check(language, object_info)
    assert not problems, "\n".join(problems)


@in_every_language
def test_comfyui_serves_the_texts_of_the_files_and_nothing_else_of_the_pack(comfy: ComfyServer, language: str) -> None:
    served = comfy.client._json("GET", "/i18n")
    assert set(served) == set(locales.LANGUAGES)
    assert set(served[language]) == {"nodeDefs", "nodeCategories", "SCoFT"}
    nodes = served[language].pop("nodeDefs")
    words = locale_texts.from_files({"nodeDefs": nodes, "main": served[language]})
    assert words == locale_texts.read_language(language)[0]
    assert len(words) > 400


@in_every_language
def test_no_two_nodes_and_no_two_inputs_of_a_node_are_called_the_same(language: str) -> None:
    nodes = json.loads((locale_texts.FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8"))
    names = [node["display_name"] for node in nodes.values()]
    assert len(set(names)) == len(names)
    for name, node in nodes.items():
        labels = [entry["name"] for entry in node.get("inputs", {}).values()]
        assert len(set(labels)) == len(labels), f"{name}: {labels}"


def test_there_is_no_language_without_a_test_and_no_file_that_nothing_reads() -> None:
    assert {path.name for path in locale_texts.FOLDER.iterdir()} == set(locales.LANGUAGES)
    expected = {f"{name}.json" for name in locale_texts.FILES} | {locale_texts.SOURCE}
    for language in locales.LANGUAGES:
        assert {path.name for path in (locale_texts.FOLDER / language).iterdir()} == expected


# --- the check itself finds each fault ----------------------------------------------------------------------------

SEED, MODE, NAME = (f"nodeDefs/SCoFT_Toy/inputs/{name}" for name in ("seed/tooltip", "mode/tooltip", "step_size/name"))
DESCRIPTION = "nodeDefs/SCoFT_Toy/description"
OTHER = "nodeDefs/SCoFT_Other/description"
STEP = "nodeDefs/SCoFT_Toy/inputs/step_size/tooltip"
FAST = "main/SCoFT/options/fast"


def toy() -> dict[str, Any]:
    """A made-up /object_info: two nodes of the pack and one of ComfyUI."""
    inputs: dict[str, Any] = {
        "seed": ["INT", {"tooltip": "Waits 0.05 seconds for metadata.csv in scoft/toys."}],
        "mode": ["COMBO", {"tooltip": "'fast' leaves out half.", "options": ["fast", "slow"]}],
        "step_size": ["FLOAT", {"tooltip": "Between {low} and {high}."}],
        "resume": ["COMBO", {"options": ["off", "latest", "my own run"], "default": "off"}],
        "sampler": ["COMBO", {"options": ["euler", "dpm fast"]}],
        "precision": ["COMBO", {"options": ["bf16", "AdamW", "in models/clip"]}],
    }
    first = {"display_name": "Toy Maker (SCoFT)", "description": "Draws {n} | {m} for a@b.", "category": "SCoFT/1 data"}
    first |= {"input": {"required": inputs, "hidden": {"unique_id": ["UNIQUE_ID"]}}, "output_name": ["image"]}
    second = {"display_name": "Other (SCoFT)", "description": "Takes what Toy Maker made.", "category": "SCoFT/1 data"}
    second |= {"input": {}, "output_name": ["image"], "output_tooltips": ["The image, made twice."]}
    stock = {"display_name": "KSampler", "description": "", "category": "sampling", "input": {}, "output_name": []}
    return {"SCoFT_Toy": first, "SCoFT_Other": second, "KSampler": stock}


GOOD = {
    "nodeDefs/SCoFT_Toy/display_name": "Juguetero (SCoFT)",
    DESCRIPTION: "Dibuja {n} | {m} para a@b.",
    SEED: "Espera 0.05 segundos a metadata.csv en scoft/toys.",
    MODE: "«fast» omite la mitad.",
    "nodeDefs/SCoFT_Toy/inputs/seed/name": "semilla",
    "nodeDefs/SCoFT_Toy/inputs/mode/name": "modo",
    NAME: "paso",
    STEP: "Entre {low} y {high}.",
    "nodeDefs/SCoFT_Toy/inputs/resume/name": "reanudar",
    "nodeDefs/SCoFT_Toy/inputs/sampler/name": "muestreador",
    "nodeDefs/SCoFT_Toy/inputs/precision/name": "precisión",
    "nodeDefs/SCoFT_Toy/outputs/0/name": "imagen",
    "nodeDefs/SCoFT_Other/display_name": "Otro (SCoFT)",
    OTHER: "Toma lo que hizo Juguetero.",
    "nodeDefs/SCoFT_Other/outputs/0/name": "imagen",
    "nodeDefs/SCoFT_Other/outputs/0/tooltip": "La imagen, hecha dos veces.",
    "main/nodeCategories/SCoFT": "SCoFT",
    "main/nodeCategories/1 data": "1 datos",
    FAST: "rápido (fast)",
    "main/SCoFT/options/latest": "la última",
    "main/SCoFT/options/off": "no",
    "main/SCoFT/options/slow": "lento",
}


def write(folder: Path, words: locale_texts.Texts) -> None:
    for name, value in locale_texts.to_files(words).items():
        locale_texts.write_json(folder / "es" / f"{name}.json", value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Locales in which nothing is wrong."""
    write(tmp_path, GOOD)
    locales.accept("es", toy(), folder=tmp_path)
    return tmp_path


def test_what_waits_for_a_translator_is_told_from_what_is_wrong(folder: Path) -> None:
    info = toy()
    info["SCoFT_Other"]["description"] = "Takes all that Toy Maker made."  # stale
    info["SCoFT_Toy"]["input"]["optional"] = {"new": ["BOOLEAN", {"tooltip": "More."}]}  # missing
    del info["SCoFT_Toy"]["input"]["required"]["seed"]  # left over
    assert len(locales.check("es", info, folder)) == 5
    assert locales.check("es", info, folder, complete=False) == []
    write(folder, {**GOOD, MODE: "«rápido» omite la mitad."})
    (problem,) = locales.check("es", info, folder, complete=False)
    assert MODE in problem and "lacks the choice 'fast'" in problem


def test_nothing_is_found_where_nothing_is_wrong(folder: Path) -> None:
    assert locales.check("es", toy(), folder) == []


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (SEED, None, "is missing: translate 'Waits 0.05"),
        ("nodeDefs/SCoFT_Gone/display_name", "Ido", "belongs to nothing that the pack has: remove it"),
        (SEED, "", "is empty"),
        (SEED, "Waits 0.05 seconds for metadata.csv in scoft/toys.", "was left in English"),
        (NAME, "step_size", "was left in English"),
        (SEED, "Espera 0.05 segundos for the metadata.csv en scoft/toys.", "has English in it"),
        (SEED, "Espera 0.5 segundos a metadata.csv en scoft/toys.", "lacks '0.05'"),
        (SEED, "Espera 0.05 segundos a metadatos.csv en scoft/toys.", "lacks 'metadata.csv'"),
        (SEED, "Espera 0.05 segundos a metadata.csv en scoft.", "lacks 'scoft/toys'"),
        (DESCRIPTION, "Dibuja {n} | m para a@b.", "lacks '{m}'"),
        (STEP, "Entre low y {high}.", "lacks '{low}'"),
        (MODE, "«rápido» omite la mitad.", "lacks the choice 'fast'"),
        (OTHER, "Toma lo que hizo Toy Maker.", "should call 'Toy Maker' by its name in this language, 'Juguetero'"),
        ("main/nodeCategories/1 data", "datos", "lacks '1'"),
        (FAST, "rápido", "lacks 'fast', as which tooltips name it"),
        ("main/SCoFT/options/slow", "slow", "was left in English"),
        ("main/SCoFT/options/my own run", "mi ejecución", "belongs to nothing that the pack has"),
    ],
)
def test_each_fault_of_a_translation_is_found(folder: Path, key: str, value: str | None, sentence: str) -> None:
    words = {**GOOD, key: value}
    write(folder, {key: value for key, value in words.items() if value is not None})
    (problem,) = locales.check("es", toy(), folder)
    assert key in problem and sentence in problem


def test_a_changed_english_text_is_stale_until_its_key_is_accepted(folder: Path) -> None:
    info = toy()
    info["SCoFT_Other"]["description"] = "Takes all that Toy Maker made."
    (problem,) = locales.check("es", info, folder)
    assert "was made from 'Takes what Toy Maker made.', which is now 'Takes all that Toy Maker made.'" in problem
    assert f"`python tools/locales.py accept {locales.LOCAL} es {OTHER}`" in problem
    locales.accept("es", info, folder=folder)  # without the key it stays stale
    assert locales.check("es", info, folder) == [problem]
    locales.accept("es", info, [OTHER], folder)
    assert locales.check("es", info, folder) == []


def test_a_new_text_is_translated_and_then_accepted_and_a_gone_one_forgotten(folder: Path) -> None:
    info = toy()
    info["SCoFT_Toy"]["input"]["optional"] = {"new.one": ["BOOLEAN", {"tooltip": "More."}]}
    problems = locales.check("es", info, folder)
    assert [problem.split(" is missing")[0][-len("new_one/name") :] for problem in problems][0] == "new_one/name"
    assert len(problems) == 2
    key = "nodeDefs/SCoFT_Toy/inputs/new_one"  # the editor asks for it with _ for the dot
    write(folder, {**GOOD, f"{key}/name": "nuevo", f"{key}/tooltip": "Más."})
    assert all(
        "is new: run `python tools/locales.py accept" in problem for problem in locales.check("es", info, folder)
    )
    locales.accept("es", info, folder=folder)
    assert locales.check("es", info, folder) == []
    write(folder, GOOD)
    locales.accept("es", toy(), folder=folder)
    assert locales.check("es", toy(), folder) == []


def test_a_key_that_is_nowhere_cannot_be_accepted(folder: Path) -> None:
    with pytest.raises(ValueError, match="no translation 'nodeDefs/x' in locales/es"):
        locales.accept("es", toy(), ["nodeDefs/x"], folder)


@pytest.mark.parametrize("text", ['{"SCoFT_Toy": ', '{"SCoFT_Toy": {"display_name": 3}}'])
def test_a_file_that_comfyui_would_leave_out_or_that_holds_no_text_is_found(folder: Path, text: str) -> None:
    (folder / "es" / "nodeDefs.json").write_text(text)
    (problem,) = locales.check("es", toy(), folder)
    assert "is not JSON" in problem or "is 3, which is no text" in problem


@pytest.mark.parametrize("message", ["Draws {n}.", "a | b", "a@b", "{'x'}", "it's {'{'}n}"])
def test_a_bare_sign_of_the_message_format_is_found(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match="has a bare"):
        locale_texts.unescape(message)


def test_escaped_texts_come_back_as_they_were() -> None:
    text = "{generic} in {place} | 'quoted' {'a'} me@home"
    assert locale_texts.unescape(locale_texts.escape(text)) == text
    assert locale_texts.escape("{n} | a") == "{'{'}n{'}'} {'|'} a"
    words = locale_texts.english(toy())
    assert locale_texts.from_files(locale_texts.to_files(words)) == words
    assert not any("KSampler" in key or "unique_id" in key for key in words)


def test_a_tooltip_with_a_sign_of_the_message_format_is_where_the_page_does_not_read_it(folder: Path) -> None:
    files = locale_texts.to_files(GOOD)
    assert files["nodeDefs"]["SCoFT_Toy"]["inputs"]["step_size"] == {"name": "paso"}
    assert files["main"]["SCoFT"]["tooltips"] == {"SCoFT_Toy": {"step_size": "Entre {'{'}low{'}'} y {'{'}high{'}'}."}}
    del files["main"]["SCoFT"]["tooltips"]
    files["nodeDefs"]["SCoFT_Toy"]["inputs"]["step_size"]["tooltip"] = "Entre {'{'}low{'}'} y {'{'}high{'}'}."
    locale_texts.write_json(folder / "es" / "nodeDefs.json", files["nodeDefs"])
    (problem,) = locales.check("es", toy(), folder)
    assert f"{STEP} has a {{, }}, @ or |: move it to SCoFT, tooltips in main.json" in problem


def test_choices_are_texts_but_not_names_files_or_comfyuis_own() -> None:
    options = [
        key.removeprefix(locale_texts.OPTION)
        for key in locale_texts.english(toy())
        if key.startswith(locale_texts.OPTION)
    ]
    assert options == ["fast", "latest", "off", "slow"]


def test_the_command_writes_a_template_and_says_what_is_missing(tmp_path: Path, capsys, monkeypatch) -> None:
    info = tmp_path / "info.json"
    info.write_text(json.dumps(toy()))
    monkeypatch.setattr(locales, "LANGUAGES", ("es",))
    monkeypatch.setattr(locales.check, "__defaults__", (tmp_path,))
    assert locales.main(["template", str(info), str(tmp_path / "es")]) == 0
    template = json.loads((tmp_path / "es" / "nodeDefs.json").read_text())
    assert template["SCoFT_Toy"]["inputs"]["mode"] == {"name": "mode", "tooltip": "'fast' leaves out half."}
    assert locales.main(["check", str(info)]) == 1
    assert f"{OTHER} is new" in capsys.readouterr().out
