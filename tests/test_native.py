"""What makes the nodes native and is held nowhere else. The whole list, with the test of each point: docs/native.md."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import build_workflows
import comfy_inprocess as tiny
import pytest
import torch
from comfy_server import ComfyServer
from mini_lora import save_random_lora
from test_layers import PACK, ROOT, imports

comfy_package = tiny.start()

from comfy_api.latest import io  # noqa: E402  (needs a started ComfyUI)

from comfy_scoft.comfyui import compat, runtime  # noqa: E402
from comfy_scoft.comfyui.nodes import data as nodes_data  # noqa: E402

BRIDGE = sorted((PACK / "comfyui").rglob("*.py"))
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "node_helpers"}
COMFYUI |= {"latent_preview", "server"}
SCHEMAS = json.loads(build_workflows.SCHEMAS.read_text(encoding="utf-8"))
OURS = {name: schema for name, schema in SCHEMAS.items() if name.startswith("SCoFT_")}

COMMON = {"id", "display_name", "optional", "tooltip", "lazy"}
NUMBER = {"default", "min", "max", "step", "control_after_generate", "display_mode", "socketless", "force_input"}
FLOOR = {
    "Int.Input": COMMON | NUMBER,
    "Float.Input": (COMMON | NUMBER | {"round"}) - {"control_after_generate"},
    "String.Input": COMMON | {"multiline", "placeholder", "default", "dynamic_prompts", "socketless", "force_input"},
    "Boolean.Input": COMMON | {"default", "label_on", "label_off", "socketless", "force_input"},
    "Combo.Input": COMMON
    | {"options", "default", "control_after_generate", "upload", "image_folder", "remote", "socketless"},
    "Input": COMMON | {"extra_dict"},
    "Output": {"id", "display_name", "tooltip", "is_output_list"},
    "Schema": {"node_id", "display_name", "category", "inputs", "outputs", "hidden", "description", "is_input_list"}
    | {"is_output_node", "is_deprecated", "is_experimental", "is_api_node", "not_idempotent", "enable_expand"},
}
"""Keywords that ComfyUI 0.3.75 knows. One that it does not know fails the whole pack's import there."""


def parameters(thing: Any) -> set[str]:
    return set(inspect.signature(thing.__init__).parameters) - {"self", "args", "kwargs"}


def schema_calls(path: Path) -> Iterator[tuple[str, set[str], int]]:
    """Calls of the node API in a file: `Int.Input`, `Input` of a socket, `Output` or `Schema`; keywords; line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, getattr(node.func.value, "attr", "")
            if name in ("Input", "Output", "Schema"):
                kind = f"{owner}.{name}" if f"{owner}.{name}" in FLOOR else name
                yield kind, {word.arg for word in node.keywords if word.arg}, node.lineno


def test_every_node_is_of_the_v3_api_and_nothing_of_the_old_one_is_left() -> None:
    for path in BRIDGE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            assert not methods & {"INPUT_TYPES", "IS_CHANGED", "VALIDATE_INPUTS"}, (path.name, node.name)
            if "define_schema" in methods:
                assert "execute" in methods or node.bases, (path.name, node.name)
    words = re.compile(r"(?<!nodes\.)NODE_CLASS_MAPPINGS|NODE_DISPLAY_NAME_MAPPINGS|RETURN_TYPES")
    found = [
        path for path in (*BRIDGE, ROOT / "nodes.py", ROOT / "__init__.py") if words.search(path.read_text("utf-8"))
    ]
    assert not found  # ComfyUI's own list, by compat.registered, aside
    assert all(issubclass(node, io.ComfyNode) for node in tiny.nodes_of(nodes_data))


def test_one_module_alone_imports_comfyui() -> None:
    found = [
        f"{path.name}, line {line}: {name}"
        for path in BRIDGE
        if path.name != "compat.py"
        for name, line in imports(path)
        if name.split(".")[0] in COMFYUI
    ]
    assert not found
    assert {name for name in compat.__all__} == {"ComfyExtension", "ExecutionBlocker", "PromptServer"} | {
        *("comfy", "folder_paths", "io", "registered", "ui")
    }


def test_no_keyword_of_the_node_api_is_newer_than_the_floor() -> None:
    calls = [(path, *call) for path in BRIDGE for call in schema_calls(path)]
    assert len(calls) > 200
    newer = {
        f"{path.name}, line {line}: {words - FLOOR[kind]}" for path, kind, words, line in calls if words - FLOOR[kind]
    }
    assert not newer


def test_the_keywords_of_the_floor_are_known_to_this_comfyui(comfyui_path: Path) -> None:
    """Equal to its own on 0.3.75; a later one may know more, and must not have dropped any."""
    version = re.search(r'__version__ = "(.+?)"', (comfyui_path / "comfyui_version.py").read_text("utf-8"))
    assert version is not None
    for kind, words in FLOOR.items():
        owners = {"Input": io.Model.Input, "Output": io.Model.Output, "Schema": io.Schema}
        thing = owners[kind] if kind in owners else getattr(io, kind.split(".")[0]).Input
        known = parameters(thing)
        assert words == known if version[1] == "0.3.75" else words <= known, kind


def test_no_text_widget_takes_a_path() -> None:
    """Folders and files are chosen from menus. Texts name what is made, and each of those refuses a path."""
    paths = re.compile(r"path|folder|file|dir(ectory)?$|url|checkpoint", re.I)
    texts = {
        f"{name}.{part}"
        for name, schema in OURS.items()
        for part, entry in schema["inputs"].items()
        if entry["type"] == "STRING" and entry["widget"] and paths.search(part)
    }
    assert texts == {"SCoFT_SaveLora.filename_prefix", "SCoFT_SavePreference.filename_prefix"}


def adds_a_route(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("routes", "add_routes", "add_static")


def unpickles(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "torch.load":
        return False
    return {word.arg: ast.unparse(word.value) for word in node.keywords}.get("weights_only") != "True"


def names_a_device(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "cuda" and ast.unparse(node.value) == "torch"
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and re.fullmatch(r"(cuda|mps|xpu)(:\d+)?", text) is not None


def offenders(paths: Iterable[Path], *wrong: Callable[[ast.AST], bool]) -> list[str]:
    """`file:line` of every expression for which one of `wrong` is true."""
    return sorted(
        f"{path.name}:{getattr(node, 'lineno', 0)}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(is_wrong(node) for is_wrong in wrong)
    )


def test_no_route_is_added_and_nothing_is_unpickled() -> None:
    assert offenders(sorted(PACK.rglob("*.py")), adds_a_route, unpickles) == []


LOADING = """
import asyncio, compileall, importlib.util, socket, sys, time
sys.path.insert(0, sys.argv[1])
import comfy.cli_args
comfy.cli_args.args.cpu = True
import utils.install_util, comfy.controlnet, comfy.sd, folder_paths, server, torch
from comfy_api.latest import io
from torch.utils._python_dispatch import TorchDispatchMode
def refuse(*given, **more): raise AssertionError("a connection was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
class Count(TorchDispatchMode):
    calls = []
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append(str(function))
        return function(*args, **(kwargs or {}))
compileall.compile_dir(sys.argv[2] + "/comfy_scoft", quiet=2)  # once, and no part of an import after it
known = set(sys.modules)
start = time.process_time()
with Count():
    places = [sys.argv[2]]
    spec = importlib.util.spec_from_file_location("pack", places[0] + "/__init__.py", submodule_search_locations=places)
    sys.modules["pack"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    nodes = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
seconds = time.process_time() - start
assert len(nodes) > 40
assert not torch.cuda.is_initialized()
assert not Count.calls, Count.calls
heavy = {"diffusers", "peft", "open_clip", "timm", "matplotlib", "controlnet_aux", "bitsandbytes", "accelerate"}
loaded = {name.split(".")[0] for name in set(sys.modules) - known} & heavy
assert not loaded, loaded
assert seconds < 1.0, seconds
"""


@pytest.mark.long
def test_listing_the_nodes_computes_nothing_and_asks_nobody(comfyui_path: Path) -> None:
    command = [sys.executable, "-c", LOADING, str(comfyui_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_images_and_words_that_a_node_is_given_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat.folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(compat.folder_paths, "input_directory", str(tmp_path / "input"))
    drawn = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 16, 24, 3, generator=drawn), torch.rand(2, 16, 16, 3, generator=drawn)]
    captions, before = ["one", "two", "three"], [image.clone() for image in images]
    with torch.inference_mode():
        dataset = nodes_data.DatasetFromImages.execute(images, captions, ["c"], ["p"], generic_captions=None)[0]
        negatives = [torch.rand(1, 16, 24, 3, generator=drawn), torch.rand(2, 16, 16, 3, generator=drawn)]
        given = [image.clone() for image in negatives]
        records = dataset.records
        nodes_data.AttachNegatives.execute([dataset], negatives)
    assert captions == ["one", "two", "three"] and dataset.records == records
    assert all(torch.equal(a, b) for a, b in zip([*images, *negatives], [*before, *given], strict=True))


def test_the_device_is_the_one_that_comfyui_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    management = comfy_package.model_management
    monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("meta"))
    monkeypatch.setattr(management, "get_free_memory", lambda device: asked.append(device) or 7.0)
    assert runtime.device() == torch.device("meta")
    assert runtime.free_bytes() == 7 and asked == [torch.device("meta")]


def test_no_node_names_a_device_of_its_own() -> None:
    assert offenders(BRIDGE, names_a_device) == []


def test_offenders_are_found(tmp_path: Path) -> None:
    lines = "app.routes.get; torch.load(a); torch.load(a, weights_only=True); torch.cuda; x = 'mps'; 'cud'"
    file = tmp_path / "wrong.py"
    file.write_text(lines.replace("; ", "\n"))
    assert offenders([file], adds_a_route, unpickles) == ["wrong.py:1", "wrong.py:2"]
    assert offenders([file], names_a_device) == ["wrong.py:4", "wrong.py:5"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["survey", "rs-corrector"])
def test_a_workflow_of_the_mini_model_runs_to_its_end(name: str, comfy: ComfyServer) -> None:
    """Shortened; the other workflows run in test_end_to_end, test_evaluate_workflow and test_workflows_sd."""
    save_random_lora(comfy)
    prompt = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    short: dict[str, dict[str, Any]] = {"SCoFT_GenerateSet": {"steps": 2, "images_per_prompt": 1}}
    short |= {"SCoFT_LearnPreference": {"steps": 20}, "SCoFT_BuildSurvey": {"pages": 2}}
    for node in prompt.values():
        node["inputs"] |= short.get(node["class_type"], {})
        if node["class_type"] == "PrimitiveStringMultiline":
            node["inputs"]["value"] = "\n".join(node["inputs"]["value"].splitlines()[:4])
    outputs = comfy.client.run(prompt, 900.0)["outputs"]
    ends = {number for number, node in prompt.items() if SCHEMAS[node["class_type"]]["output_node"]}
    assert ends and not {number for number in ends if not outputs.get(number)}
