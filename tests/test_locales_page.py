"""ComfyUI's own page, in a real browser, shows the pack in the language that its user chose.

The page puts names and tooltips there itself, or web/translations.js does where the page loses them, as that of ComfyUI
0.3.75 does; the labels of choices come from the latter. Pictures of the page go to the folder that SCOFT_SCREENSHOTS
names, else to the test's own temporary folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import locale_texts
import pytest
from browser import open_page
from comfy_server import ROOT, ComfyServer
from playwright.sync_api import Page

import locales

READY = "() => window.app?.graph && window.app.extensionManager?.setting && !document.querySelector('.p-blockui-mask')"
SET = "async given => { for (const [k, v] of Object.entries(given)) await app.extensionManager.setting.set(k, v) }"
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
    .flatMap(({ options }) => options.values.map(value => [value, options.getOptionLabel?.(value) ?? value])))"""
STOCK = (
    "() => LiteGraph.createNode('SCoFT_MakeNegatives').widgets.filter(({ options }) => options.getOptionLabel).length"
)
CHOSEN = """([kind, name]) => {
    const { widgets } = app.graph.nodes.find(one => one.type === kind), widget = widgets.find(one => one.name === name);
    const saved = app.graph.serialize().nodes.find(one => one.type === kind).widgets_values;
    return [widget.value, saved.includes(widget.value)];
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
LOOK = """name => {
    const view = app.canvas.ds, node = app.graph.nodes.find(one => one.type === name), canvas = app.canvas.canvas;
    view.scale = 1;
    view.offset[0] = -node.pos[0] + (canvas.clientWidth - node.size[0]) / 2;
    view.offset[1] = -node.pos[1] + 120;
    app.canvas.setDirty(true, true);
}"""
WIDGET = """([kind, name]) => {
    const node = app.graph.nodes.find(one => one.type === kind), view = app.canvas.ds;
    const box = app.canvas.canvas.getBoundingClientRect(), widget = node.widgets.find(one => one.name === name);
    return [
        box.x + (node.pos[0] + node.size[0] / 3 + view.offset[0]) * view.scale,
        box.y + (node.pos[1] + widget.y + 10 + view.offset[1]) * view.scale,
    ];
}"""


@pytest.fixture
def page_in(comfy: ComfyServer) -> Iterator[Any]:
    """`page_in(language)`: ComfyUI's page in that language, with one of the pack's workflows open."""
    with ExitStack() as stack:

        def open_in(language: str) -> Page:
            page = stack.enter_context(open_page(viewport={"width": 1600, "height": 1000}))
            page.set_default_timeout(120_000)
            page.goto(comfy.url)
            page.wait_for_function(READY)
            wanted = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False, "Comfy.Locale": language}
            page.evaluate(SET, wanted)
            page.reload()
            page.wait_for_function(READY)
            graph = json.loads((ROOT / "workflows" / "train-cultural-lora-mini.json").read_text(encoding="utf-8"))
            page.evaluate("async graph => { await app.loadGraphData(graph) }", graph)
            return page

        yield open_in
        comfy.client._request("POST", "/settings", {"Comfy.Locale": "en"})  # the profile's; other tests share it


@pytest.mark.long
@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_the_page_shows_every_text_in_the_language_that_was_chosen(
    comfy: ComfyServer, page_in: Any, tmp_path: Path, language: str
) -> None:
    words, _ = locale_texts.read_language(language)
    names = sorted({key.split("/")[1] for key in words if key.startswith("nodeDefs/")})
    page, info = page_in(language), comfy.client.object_info()
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
    for option, label in page.evaluate(LABELS, names):
        assert label == words.get(locale_texts.OPTION + option, option)
    special = [key for key in words if key.endswith("/tooltip") and any(sign in words[key] for sign in "{}@|")]
    assert page.evaluate(DEFINED, [key.split("/")[1:4:2] for key in special]) == [words[key] for key in special]
    keys = [key for key in words if key.startswith("nodeDefs/") and key not in special]
    assert page.evaluate(TOOLTIPS, [key.replace("/", ".") for key in keys]) == [words[key] for key in keys]

    page.evaluate(LOOK, "SCoFT_MakeNegatives")
    page.wait_for_timeout(1500)  # the canvas is drawn
    page.mouse.move(*page.evaluate(WIDGET, ["SCoFT_MakeNegatives", "prompt_template"]))
    tooltip = page.locator(".node-tooltip")
    tooltip.wait_for()
    assert tooltip.inner_text() == words["nodeDefs/SCoFT_MakeNegatives/inputs/prompt_template/tooltip"]

    page.screenshot(path=Path(os.environ.get("SCOFT_SCREENSHOTS") or tmp_path) / f"locale-{language}.png")

    schedule = ["SCoFT_OptimizerOptions", "schedule"]
    page.evaluate(LOOK, schedule[0])
    page.wait_for_timeout(1500)
    page.mouse.click(*page.evaluate(WIDGET, schedule))
    menu = page.locator(".litecontextmenu .litemenu-entry")
    labels = [words[locale_texts.OPTION + option] for option in ("cosine", "linear", "constant")]
    assert menu.all_inner_texts() == labels
    menu.nth(1).click()
    assert page.evaluate(CHOSEN, schedule) == ["linear", True]  # what is chosen and saved is the same in all languages
    assert page.evaluate(STOCK) == 0  # combos without a word of ours keep ComfyUI's own menu, with its search
