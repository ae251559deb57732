"""The pack in ComfyUI's own editor: its nodes are found, added and connected, and its workflows open as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from comfy_page import MINI, OPTION, WORKFLOWS, ComfyPage, opened, workflow
from comfy_server import ComfyServer
from playwright.sync_api import Browser, TimeoutError, expect

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
UNKNOWN = """() => {
    const absent = ({ type, options, value }) => type === "combo" && !options.values.includes(value);
    const marked = node => node.has_errors && !node.widgets?.some(absent);
    return app.graph.nodes.filter(
        node => node.type in LiteGraph.registered_node_types ? marked(node) : node.type !== "MarkdownNote"
    ).map(node => node.type);
}"""
"""Nodes that the page cannot use. Newer pages also mark those whose file is not there, such as a LoRA to be trained."""
FIT = "async () => await app.extensionManager.command.execute('Comfy.Canvas.FitView')"


@pytest.fixture(scope="module")
def editor(comfy: ComfyServer, chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyPage]:
    with opened(chromium, comfy, tmp_path_factory.mktemp("pages")) as found:
        yield found


def wires(graph: dict) -> set[tuple]:
    """Every connection by the names of what it joins: (from node, its output, to node, its input, type)."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    return {
        (source, nodes[source]["outputs"][out]["name"], target, nodes[target]["inputs"][into]["name"], kind)
        for _, source, out, target, into, kind in graph["links"]
    }


def test_the_search_offers_every_node_of_the_pack(editor: ComfyPage) -> None:
    editor.clear()
    info = editor.server.client.object_info()
    wanted = [node["display_name"] for name, node in info.items() if name.startswith("SCoFT_")]
    editor.searched("SCoFT", (700, 400))
    missing = f"""wanted => {{
        const found = [...document.querySelectorAll({OPTION!r})].map(option => option.innerText).join();
        return wanted.filter(name => !found.includes(name));
    }}"""
    with suppress(TimeoutError):  # while the list is still the one of all nodes
        editor.page.wait_for_function(f"wanted => ({missing})(wanted).length === 0", arg=wanted)
    assert not editor.page.evaluate(missing, wanted)
    editor.shot("search")
    editor.page.keyboard.press("Escape")
    editor.no_dialog()


def test_nodes_are_found_added_connected_and_passed_by(editor: ComfyPage) -> None:
    editor.clear()
    first = editor.add("Diffusion Loss (SCoFT)", (400, 300))
    second = editor.add("Memorization Loss (SCoFT)", (900, 300))
    editor.drag(editor.place(first)["outputs"][0], editor.place(second)["inputs"][0])
    editor.page.wait_for_function("() => app.graph.links.size === 1")
    assert wires(editor.graph()) == {(first, "losses", second, "losses", "SCOFT_LOSSES")}
    editor.pass_by(second)
    editor.shot("connected-and-passed-by")


def test_sockets_of_other_kinds_do_not_connect(editor: ComfyPage) -> None:
    editor.clear()
    losses = editor.add("Diffusion Loss (SCoFT)", (400, 300))
    saver = editor.add("Save LoRA (SCoFT)", (900, 300))
    editor.drag(editor.place(losses)["outputs"][0], editor.place(saver)["inputs"][0])
    assert not editor.graph()["links"]


@pytest.mark.parametrize("name", ["Read LoRA Card (SCoFT)", "Load Dataset (SCoFT)", "Caption Generically (SCoFT)"])
@pytest.mark.long
def test_a_node_shows_its_text_as_text_and_saves_none_of_it(editor: ComfyPage, name: str) -> None:
    editor.clear()
    node = editor.add(name, (400, 300))
    before = editor.graph()["nodes"][0].get("widgets_values")
    words = "# Nuvia <b>as its people</b> show it\nLicence: not stated"
    for text in ("an older card", words):
        output = {"text": [text]}
        editor.dispatch("executed", {"node": node, "display_node": node, "output": output, "prompt_id": "of-a-test"})
    shown = editor.page.locator(".scoft-text")
    editor.page.wait_for_function("words => document.querySelector('.scoft-text')?.textContent === words", arg=words)
    expect(shown).to_have_count(1)
    expect(shown.locator("b")).to_have_count(0)
    editor.shot("text")
    assert editor.graph()["nodes"][0].get("widgets_values") == before


NEWER = {"LoraModelLoader": [False]}
"""Values of widgets that a ComfyUI newer than the floor has given its own nodes: `bypass`, which is off."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == MINI.stem else pytest.mark.long) for name in NAMES]
)
def test_each_workflow_opens_from_the_template_browser_as_it_is(editor: ComfyPage, name: str) -> None:
    """No node is missing, no wire is crossed, and what would be saved is what was shipped."""
    shipped = workflow(WORKFLOWS / f"{name}.json")
    editor.clear()
    editor.template(name)
    editor.has_nodes(len(shipped["nodes"]))
    assert editor.page.evaluate(UNKNOWN) == []
    found = editor.graph()
    assert wires(found) == wires(shipped)
    for ours, theirs in zip(by_id(found), by_id(shipped), strict=True):
        # a page may save a node without widgets with an empty list or with nothing
        shown, saved = ours.get("widgets_values") or [], theirs.get("widgets_values") or []
        assert shown in (saved, saved + NEWER.get(ours["type"], []))
        assert (ours["type"], ours.get("title"), ours["pos"]) == (theirs["type"], theirs.get("title"), theirs["pos"])
    editor.page.evaluate(FIT)
    editor.shot(f"template-{name}")


def test_a_workflow_of_which_a_node_is_unknown_is_said_so(editor: ComfyPage) -> None:
    """So that the test above can fail."""
    graph: dict[str, Any] = json.loads(json.dumps(workflow()))
    next(node for node in graph["nodes"] if node["type"] == "SCoFT_BiasOracle")["type"] = "SCoFT_NoSuchNode"
    editor.page.evaluate("graph => void app.loadGraphData(graph)", graph)
    editor.page.get_by_text("SCoFT_NoSuchNode").first.wait_for()
    assert editor.page.evaluate(UNKNOWN) == ["SCoFT_NoSuchNode"]
    editor.dismiss()


def by_id(graph: dict) -> list[dict]:
    return sorted(graph["nodes"], key=lambda node: node["id"])
