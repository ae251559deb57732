"""The shape of the code: imports go one way, one package touches ComfyUI, importing costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACK = ROOT / "comfy_scoft"

# Layers from the bottom up: a module may import modules of its own layer and of those below it.
LAYERS = (
    {"command", "errors", "files", "identity", "prompts", "records", "report", "statistics"},
    {"dataset", "features", "base_model", "ldm", "schedule", "single_file", "text_encoder", "mini"},
    {
        "download",
        "losses",
        "captions",
        "false_negatives",
        "model_folder",
        "rollout",
        "lora",
        "optimizers",
        "settings",
        "scores",
        "generate",
        "negatives",
        "negatives_pipeline",
        "depth",
        "survey",
        "correct",
        "plots",
    },
    {
        "trainer",
        "objective",
        "draws",
        "memory",
        "memory_need",
        "preview",
        "processes",
        "resume",
        "validation",
        "cache",
        "evaluate",
        "checkpoint",
        "runs",
        "card",
        "card_text",
        "job",
        "job_models",
    },
    {"bridge"},
    {"benchmark", "comfy_client", "demo", "negatives_cli", "protocol", "__main__"},
)
COMFYUI_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_api_nodes",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
}
# Only these may know the picture world itself; everything else meets it as an ordinary model and data set.
WORLD_READERS = ("mini/world.py", "mini/oracle.py", "evaluate/", "benchmark/")


def sources() -> list[Path]:
    return sorted(PACK.rglob("*.py"))


def imports(path: Path, text: str = "") -> Iterator[tuple[str, int]]:
    """Every module that a file of the pack imports, as an absolute dotted name, with its line; nested imports too."""
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(text or path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def room(dotted: str) -> str | None:
    """`comfy_scoft.losses.context` -> `losses`; None for what is not of the pack."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "comfy_scoft" and len(parts) > 1 else None


def layer(name: str) -> int | None:
    return next((number for number, names in enumerate(LAYERS) if name in names), None)


def test_every_module_has_its_layer() -> None:
    rooms = {path.relative_to(PACK).parts[0].removesuffix(".py") for path in sources()} - {"__init__"}
    assert not {name for name in rooms if layer(name) is None}, "say in LAYERS where these modules belong"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACK).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    own = layer(path.relative_to(PACK).parts[0].removesuffix(".py"))
    upward = []
    for dotted, line in imports(path):
        other = layer(room(dotted) or "")
        if own is not None and other is not None and other > own:
            upward.append(f"line {line} imports {dotted}")
    assert not upward, f"{path.relative_to(ROOT)} reaches into a higher layer"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACK).as_posix())
def test_only_the_bridge_imports_comfyui(path: Path) -> None:
    if path.is_relative_to(PACK / "bridge"):
        return
    found = [f"line {line}: {name}" for name, line in imports(path) if name.split(".")[0] in COMFYUI_MODULES]
    assert not found, f"{path.relative_to(ROOT)} imports ComfyUI outside the bridge"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACK).as_posix())
def test_only_the_measuring_side_knows_the_picture_world(path: Path) -> None:
    if path.relative_to(PACK).as_posix().startswith(WORLD_READERS):
        return
    found = [f"line {line}" for name, line in imports(path) if name.startswith("comfy_scoft.mini.world")]
    assert not found, f"{path.relative_to(ROOT)} reads the answers of the picture world"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACK).as_posix())
def test_the_pack_starts_no_process_and_evaluates_no_text(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {name.split(".")[0] for name, _ in imports(path)}
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not modules & {"subprocess", "pickle", "pip"} and not calls & {"eval", "exec"}, path.relative_to(ROOT)


def test_importing_the_pack_is_quick_and_loads_nothing_heavy() -> None:
    program = """
import importlib.util, sys, time
start = time.process_time()
spec = importlib.util.spec_from_file_location("pack", sys.argv[1], submodule_search_locations=[sys.argv[2]])
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
spec.loader.exec_module(module)
seconds = time.process_time() - start
heavy = {"torch", "numpy", "diffusers", "transformers", "PIL", "comfy_scoft", "pack.nodes"} & set(sys.modules)
assert not heavy, heavy
assert seconds < 1.0, seconds
assert callable(module.comfy_entrypoint) and not hasattr(module, "NODE_CLASS_MAPPINGS")
"""
    command = [sys.executable, "-c", program, str(ROOT / "__init__.py"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_relative_nested_and_absolute_imports_are_seen() -> None:
    text = "from ..trainer import train\ndef late():\n    from . import context\n    import comfy.utils\n"
    names = {name for name, _ in imports(PACK / "losses" / "imagined.py", text)}
    assert {"comfy_scoft.trainer", "comfy_scoft.trainer.train", "comfy_scoft.losses.context", "comfy.utils"} <= names
