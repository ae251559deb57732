"""ComfyUI's own page, in a real browser, shows the pack in the language that its user chose.

The page puts names and tooltips there itself, or web/translations.js does where the page loses them, as that of ComfyUI
0.3.75 does; the labels of choices come from the latter. Images of the page go to the folder that SCOFT_SCREENSHOTS
names, else to the test's own temporary folder.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import locale_texts
import pytest
from comfy_page import PATIENCE, ComfyPage, opened, workflow
from comfy_server import ComfyServer
from playwright.sync_api import Browser, TimeoutError, expect

import locales

SHOWN = """names => Object.fromEntries(names.map(name => {
    const node = LiteGraph.createNode(name);
    const by = (list, label) => Object.fromEntries((list ?? []).map((one, index) => [one.name ?? index, one[label]]));
    return [name, {
        title: node.title, category: node.constructor.category, description: node.constructor.nodeData.description,
        inputs: by(node.inputs, "localized_name"), widgets: by(node.widgets, "label"),
        outputs: (node.outputs ?? []).map(output => output.localized_name),
    }];
}))"""
LABELS = """names => names.flatMap(name => (LiteGraph.createNode(name).widgets ?? [])
    .filter(widget => widget.type === "combo")
    .map(({ options }) => options.values.map(value => [value, options.getOptionLabel?.(value) ?? value])))"""
LONGEST = 12
"""Choices of a combo with labels (web/translations.js); one that lists runs grows with each run of other tests."""
STOCK = (
    "() => LiteGraph.createNode('SCoFT_MakeNegatives').widgets.filter(({ options }) => options.getOptionLabel).length"
)
CHOSEN = """([kind, name]) => {
    const { widgets } = app.graph.nodes.find(one => one.type === kind), widget = widgets.find(one => one.name === name);
    const saved = app.graph.serialize().nodes.find(one => one.type === kind).widgets_values;
    return widget.value === "linear" && saved.includes("linear");
}"""
SPEAKS = """language => {
    const page = document.querySelector("#vue-app").__vue_app__;
    return page._context.provides[page.__VUE_I18N_SYMBOL__].global.locale.value === language;
}"""
TOOLTIPS = """keys => {
    const page = document.querySelector("#vue-app").__vue_app__;
    const { t } = page._context.provides[page.__VUE_I18N_SYMBOL__].global;
    return keys.map(key => t(key));
}"""
DEFINED = """names => names.map(([name, key]) => {
    const { input } = LiteGraph.createNode(name).constructor.nodeData;
    return (input.required?.[key] ?? input.optional?.[key])[1].tooltip;
})"""
WIDGET = """([kind, name]) => {
    app.canvas.draw(true, true);
    const node = app.graph.nodes.find(one => one.type === kind), view = app.canvas.ds;
    const box = app.canvas.canvas.getBoundingClientRect(), widget = node.widgets.find(one => one.name === name);
    return [
        box.x + (node.pos[0] + node.size[0] / 3 + view.offset[0]) * view.scale,
        box.y + (node.pos[1] + widget.y + 10 + view.offset[1]) * view.scale,
    ];
}"""


def hover(editor: ComfyPage, place: list[float]) -> str:
    """The tooltip of what lies there. It goes when the mouse moves, and a page that is busy may see a move late."""
    tooltip, end = editor.page.locator(".node-tooltip"), time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        for shift in (1, 0):
            editor.page.mouse.move(place[0] + shift, place[1])
        with suppress(TimeoutError):
            tooltip.wait_for(timeout=5000)
            return tooltip.inner_text(timeout=1000)
    raise AssertionError("no tooltip comes")


@pytest.mark.long
@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_the_page_shows_every_text_in_the_language_that_was_chosen(
    comfy: ComfyServer, chromium: Browser, tmp_path: Path, language: str
) -> None:
    words, _ = locale_texts.read_language(language)
    with opened(chromium, comfy, tmp_path, language=language) as editor:
        editor.page.wait_for_function(SPEAKS, arg=language)
        editor.page.reload()  # ComfyUI names nodes in English where a language arrives after them, on a first visit
        editor.ready()
        editor.load(workflow())
        shows_the_words(editor, words)
        shows_a_tooltip_and_a_menu(editor, words, f"locale-{language}")


def shows_the_words(editor: ComfyPage, words: dict[str, str]) -> None:
    names = sorted({key.split("/")[1] for key in words if key.startswith("nodeDefs/")})
    page, info = editor.page, editor.server.client.object_info()
    for name, shown in page.evaluate(SHOWN, names).items():
        of = {key.removeprefix(f"nodeDefs/{name}/"): text for key, text in words.items() if f"/{name}/" in key}
        assert shown["title"] == of["display_name"]
        assert shown["description"] == of["description"]
        category = info[name]["category"].split("/")
        assert shown["category"] == "/".join(words[f"main/nodeCategories/{part}"] for part in category)
        labels = {**shown["inputs"], **shown["widgets"]}
        assert {key: labels[key] for key in labels if f"inputs/{key}/name" in of} == {
            key.split("/")[1]: text for key, text in of.items() if key.startswith("inputs/") and key.endswith("/name")
        }
        assert shown["outputs"] == [of[f"outputs/{index}/name"] for index in range(len(shown["outputs"]))]
    for combo in page.evaluate(LABELS, names):
        for option, label in combo:
            assert label == (words.get(locale_texts.OPTION + option, option) if len(combo) <= LONGEST else option)
    special = [key for key in words if key.endswith("/tooltip") and any(sign in words[key] for sign in "{}@|")]
    assert page.evaluate(DEFINED, [key.split("/")[1:4:2] for key in special]) == [words[key] for key in special]
    keys = [key for key in words if key.startswith("nodeDefs/") and key not in special]
    assert page.evaluate(TOOLTIPS, [key.replace("/", ".") for key in keys]) == [words[key] for key in keys]


def shows_a_tooltip_and_a_menu(editor: ComfyPage, words: dict[str, str], shot: str) -> None:
    page = editor.page
    editor.look_at(editor.node("SCoFT_MakeNegatives"), 1.0)
    tooltip = hover(editor, page.evaluate(WIDGET, ["SCoFT_MakeNegatives", "prompt_template"]))
    assert tooltip == words["nodeDefs/SCoFT_MakeNegatives/inputs/prompt_template/tooltip"]
    editor.shot(shot)

    schedule = ["SCoFT_OptimizerOptions", "schedule"]
    editor.look_at(editor.node(schedule[0]), 1.0)
    page.mouse.click(*page.evaluate(WIDGET, schedule))
    menu = page.locator(".litecontextmenu .litemenu-entry")
    expect(menu).to_have_text([words[locale_texts.OPTION + option] for option in ("cosine", "linear", "constant")])
    menu.nth(1).click()
    page.wait_for_function(CHOSEN, arg=schedule)  # what is chosen and saved is the same in all languages
    assert page.evaluate(STOCK) == 0  # combos without a word of ours keep ComfyUI's own menu, with its search
