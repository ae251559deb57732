"""The help pages: one a node, with the schema's own inputs and outputs, the sentences that the code says, and images
that are there, served by a real ComfyUI where its page asks for them."""

from __future__ import annotations

import ast
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import help_pages
import pytest
import workflow_mini
from code_sentences import sentences
from comfy_page import opened
from comfy_server import ComfyServer
from every import every
from help_graphs import OWN, SHOWN, form
from PIL import Image
from playwright.sync_api import Browser, expect
from workflow_form import compact

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "web" / "docs"
PICTURES = PAGES / "pictures"
NAMES = sorted(path.stem for path in PAGES.glob("*.md"))
MOST_BYTES = 3_000_000
WIDEST_LINE = 30
"""Characters of a formula's line that the help panel shows without scrolling."""
PAPERS = {
    "2401.08053": "SCoFT",
    "2312.04810": "RS-Corrector",
    "1411.5279": "bootstrap",
    "1706.08500": "FID",
    "1711.05101": "AdamW",
    "1801.01401": "KID",
    "1801.03924": "LPIPS",
    "1804.04235": "Adafactor",
    "1810.03993": "model cards",
    "1907.01341": "MiDaS",
    "2010.02502": "DDIM",
    "2010.12181": "M-MSR",
    "2103.00020": "CLIP",
    "2104.08718": "CLIPScore",
    "2106.09685": "LoRA",
    "2110.02861": "8-bit",
    "2201.12086": "BLIP",
    "2207.12598": "guidance",
    "2208.12242": "DreamBooth",
    "2212.04488": "Custom Diffusion",
    "2301.12597": "BLIP-2",
    "2302.05543": "ControlNet",
    "2303.09556": "min-SNR",
    "2304.07193": "DINOv2",
    "2306.06101": "Prodigy",
    "2306.09344": "DreamSim",
    "2402.09353": "DoRA",
}
"""arXiv number -> what a link to it is called. Looked up by hand; a page links to nothing else."""
every_page = every("name", NAMES)


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def words(name: str) -> str:
    """The page without what is generated."""
    return re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", page(name), flags=re.DOTALL)


def section(name: str, title: str) -> str:
    return re.split(r"^## ", page(name).split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def entries(name: str, title: str) -> list[tuple[str, str, str]]:
    """(name, what stands in brackets, words) of a section's generated list."""
    part = section(name, title).split(f"<!-- {title.lower()} -->")[1].split("<!-- /")[0]
    found = [re.fullmatch(r"- `(\w+)` \((.+?)\): (.+)", line) for line in part.strip().splitlines()]
    return [(match[1], match[2], match[3]) for match in found if match is not None]


def schemas(server: ComfyServer) -> dict[str, Any]:
    return {name: found for name, found in everything(server).items() if name.startswith("SCoFT_")}


@lru_cache(maxsize=1)
def _info(url: str) -> dict[str, Any]:
    return help_pages.ComfyClient(url).object_info()


def everything(server: ComfyServer) -> dict[str, Any]:
    return _info(server.url)


def classes_in_the_table_of_contents() -> list[str]:
    for node in ast.walk(ast.parse((ROOT / "nodes.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "nodes":
            assert isinstance(node.value, ast.List)
            return [ast.unparse(entry) for entry in node.value.elts]
    raise AssertionError("nodes.py lists no nodes")


def test_each_node_has_a_page_and_no_page_or_picture_is_without_a_node(comfy: ComfyServer) -> None:
    ids = sorted(schemas(comfy))
    assert len(ids) == len(classes_in_the_table_of_contents())
    assert ids == NAMES
    assert {path.stem for path in PICTURES.iterdir()} <= set(ids) and set(SHOWN) <= set(ids)
    assert {entry.name for entry in PAGES.iterdir() if entry.is_dir()} <= {"pictures", *ids}


@pytest.mark.long
def test_each_node_has_a_picture_and_a_graph_to_take_it_from() -> None:
    """In the long tier, which CI runs: whoever adds a node need not take pictures."""
    assert sorted(path.stem for path in PICTURES.iterdir()) == NAMES == sorted(SHOWN)


@every_page
def test_inputs_and_outputs_are_what_the_schema_writes(comfy: ComfyServer, name: str) -> None:
    again = "Run `python tools/help_pages.py`, then read the words around the lists once more."
    assert page(name) == help_pages.filled(page(name), schemas(comfy)[name]), again


@every_page
def test_the_inputs_are_the_schemas_in_order_with_defaults_and_ranges(comfy: ComfyServer, name: str) -> None:
    schema = schemas(comfy)[name]
    order = [entry for part in ("required", "optional") for entry in schema["input_order"].get(part, [])]
    found = entries(name, "Inputs")
    assert [entry for entry, _, _ in found] == order
    for entry, facts, tooltip in found:
        kind, options = next(schema["input"][part][entry] for part in schema["input"] if entry in schema["input"][part])
        takes, default = facts.rsplit("; ", 1)
        default = default.removeprefix("default ")
        assert tooltip.replace("&lt;", "<") == " ".join(options["tooltip"].split()) != ""
        if kind in ("INT", "FLOAT"):
            low, high = takes.split(", ")[1].split(" to ")
            assert numeric(low) == options["min"] and numeric(high) == options["max"]
            assert numeric(default) == options["default"]
        elif kind == "COMBO" and entry not in help_pages.OFFERED:
            assert takes.split(" · ") == [f"`{choice}`" for choice in options["options"]]
            assert default.strip("`") == options.get("default", options["options"][0])
        elif kind == "BOOLEAN":
            assert default == ("on" if options["default"] else "off")
        elif kind == "STRING":
            assert default == "empty" or default.strip("`") == options["default"] or "\n" in options["default"]
            assert (default == "empty") == (options["default"] == "")
        elif kind != "COMBO":
            assert takes == f"`{kind}`"
            assert default == ("may stay open" if entry in schema["input"].get("optional", {}) else "connect it")


def numeric(text: str) -> float:
    """The number that a page shows."""
    power = re.fullmatch(r"2([⁰¹²³⁴⁵⁶⁷⁸⁹]+) − 1", text)
    if power:
        return 2 ** int("".join(str("⁰¹²³⁴⁵⁶⁷⁸⁹".index(digit)) for digit in power[1])) - 1
    plain = text.replace(" ", "")
    return int(plain) if plain.lstrip("-").isdigit() else float(plain)


@every_page
def test_the_outputs_are_the_schemas_in_order(comfy: ComfyServer, name: str) -> None:
    schema = schemas(comfy)[name]
    kinds = [
        f"`{kind}`{' list' if many else ''}"
        for kind, many in zip(schema["output"], schema["output_is_list"], strict=True)
    ]
    expected = list(zip(schema["output_name"], kinds, strict=True))
    assert [found[:2] for found in entries(name, "Outputs")] == expected


@every_page
def test_a_page_says_when_what_is_good_what_goes_wrong_and_what_it_is(comfy: ComfyServer, name: str) -> None:
    text = page(name)
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == help_pages.SECTIONS
    first, image = text.split("\n\n")[:2]
    assert first.endswith(".") and "\n" not in first and len(first) < 250
    assert image == f"![{schemas(comfy)[name]['display_name']}](pictures/{name}.webp)"
    for title in ("When to use it", "Mistakes people make", "For the researcher"):
        assert len(section(name, title).strip()) > 60, title


@every_page
def test_each_number_has_its_unit_and_a_sensible_range(comfy: ComfyServer, name: str) -> None:
    inputs = help_pages.inputs_of(schemas(comfy)[name])
    said = [line for line in section(name, "Inputs").split("<!-- /inputs -->")[1].splitlines() if line.startswith("- ")]
    named = [entry for line in said for entry in re.findall(r"`(\w+)`", line.split(":")[0])]
    assert len(named) == len(set(named)) and set(named) <= {entry.name for entry in inputs}
    assert {entry.name for entry in inputs if entry.kind in ("INT", "FLOAT") and entry.widget} <= set(named)


def test_what_a_page_says_of_the_mini_workflow_is_what_that_sets() -> None:
    said = re.findall(r"^- `(\w+)`: .*the mini workflow uses ([\d.]+)\.", page("SCoFT_ContrastiveLoss"), re.MULTILINE)
    given = workflow_mini.LOSSES["SCoFT_ContrastiveLoss"]
    assert {name: float(value.rstrip(".")) for name, value in said} == given


@every_page
def test_each_sentence_of_an_error_is_one_that_the_code_says(name: str) -> None:
    quoted = re.findall(r"^> (.+)$", page(name), re.MULTILINE)
    assert quoted and not re.search(r"^>", re.sub(r"^> .+$", "", page(name), flags=re.MULTILINE), re.MULTILINE)
    for sentence in quoted:
        assert sentence in section(name, "Mistakes people make")
        assert any(pattern.fullmatch(sentence) for pattern in sentences()), sentence


def test_a_sentence_that_the_code_does_not_say_is_found() -> None:
    known = "There is no prompt to generate; write at least one, each on its own line."
    filled_in = "A survey compares 2 to 6 image sets, not 7: connect one Generate Set for each model."
    assert all(any(pattern.fullmatch(text) for pattern in sentences()) for text in (known, filled_in))
    for wrong in (known[:-1], known.replace("generate", "paint"), "Something went wrong."):
        assert not any(pattern.fullmatch(wrong) for pattern in sentences())


@every_page
def test_what_cannot_be_wrapped_fits_the_narrow_panel(name: str) -> None:
    blocks = re.findall(r"^```\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE)
    assert all(len(line) <= WIDEST_LINE for block in blocks for line in block.splitlines())
    assert "\n|" not in page(name), "a table is wider than the panel"


@every_page
def test_nodes_that_a_page_names_exist_under_that_name(comfy: ComfyServer, name: str) -> None:
    known = {(found["display_name"] or "").removesuffix(" (SCoFT)") for found in everything(comfy).values()}
    prose = re.sub(r"```.*?```|`[^`]*`|^> .*$", "", words(name), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", prose))
    assert named <= known, named - known


@every_page
def test_links_lead_to_papers_by_their_own_name_and_the_method_is_cited(name: str) -> None:
    links = re.findall(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", words(name))
    assert {address.removeprefix("https://arxiv.org/abs/") for _, address in links} <= set(PAPERS)
    assert all(PAPERS[address.rsplit("/", 1)[1]].lower() in text.lower() for text, address in links)
    assert {"2401.08053", "2312.04810"} & {address.rsplit("/", 1)[1] for _, address in links}


def test_the_pictures_are_whole_and_small() -> None:
    total = 0
    for path in sorted(PICTURES.iterdir()):
        with Image.open(path) as image:
            image.load()
            assert image.format == "WEBP" and 300 <= image.width <= 900, path.name
        total += path.stat().st_size
    assert total < MOST_BYTES


def test_each_picture_can_be_taken_again_from_its_graph(comfy: ComfyServer) -> None:
    known = {name: compact(found) for name, found in everything(comfy).items()}
    for name, view in SHOWN.items():
        shipped = ROOT / "workflows" / f"{view.graph}.json"
        graph = form(view.graph, known) if view.graph in OWN else json.loads(shipped.read_text(encoding="utf-8"))
        there = [(node["type"], node.get("title", "")) for node in graph["nodes"]]
        assert view.nodes[0][0] == name
        assert all(any(kind == k and title in ("", t) for k, t in there) for kind, title in view.nodes), name


def fetched(url: str) -> tuple[int, bytes]:
    here = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine's server needs no proxy
    try:
        with here.open(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def address(schema: Mapping[str, Any]) -> str:
    """Where ComfyUI's page looks for the help of a custom node: "/extensions/<folder>/docs"."""
    return f"/extensions/{schema['python_module'].split('.')[1].split('@')[0]}/docs"


def test_comfyui_serves_each_page_and_picture_where_its_help_panel_asks(comfy: ComfyServer) -> None:
    for name, schema in schemas(comfy).items():
        folder = comfy.url + address(schema)
        status, _ = fetched(f"{folder}/{name}/en.md")  # asked first; the page itself is what it falls back to
        assert status == 404
        assert fetched(f"{folder}/{name}.md") == (200, (PAGES / f"{name}.md").read_bytes())
    for path in PICTURES.iterdir():
        schema = schemas(comfy)[path.stem]
        assert fetched(f"{comfy.url}{address(schema)}/pictures/{path.name}") == (200, path.read_bytes())


SELECT = """name => {
    const node = window.LiteGraph.createNode(name);
    window.app.graph.clear();
    window.app.graph.add(node);
    window.app.canvas.selectItems([node]);
}"""


@pytest.mark.long
def test_the_help_panel_shows_a_whole_page_with_its_picture(
    comfy: ComfyServer, chromium: Browser, tmp_path: Path
) -> None:
    name = "SCoFT_MakeNegatives"
    with opened(chromium, comfy, tmp_path) as editor:
        editor.page.evaluate(SELECT, name)
        button = editor.page.get_by_test_id("info-button")
        button.evaluate("button => button.click()")  # a banner of ComfyUI's may lie over it
        panel = editor.page.locator(".node-help-content")
        expect(panel.locator("h2")).to_have_text(list(help_pages.SECTIONS))
        inputs = [entry.name for entry in help_pages.inputs_of(schemas(comfy)[name])]
        expect(panel.locator("ul").first.locator("li > code:first-child")).to_have_text(inputs)
        expect(panel.locator("blockquote")).to_have_count(len(re.findall(r"^> ", page(name), re.MULTILINE)))
        editor.page.wait_for_function("() => document.querySelector('.node-help-content img')?.naturalWidth > 300")
        editor.drawn()
        assert panel.evaluate("box => box.scrollWidth <= box.clientWidth"), "something is wider than the panel"
