"""The shape of the code: imports go one way, one package touches ComfyUI, importing costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACK = ROOT / "comfy_scoft"

# The rooms of the pack from the bottom up: a module may import from its own room and from those before it.
LAYERS = (
    "common",
    "models",
    "mini_world",
    "data",
    "features",
    "losses",
    "negatives",
    "training",
    "metrics",
    "corrector",
    "survey",
    "reports",
    "experiments",
    "cli",
    "comfyui",
    "__main__",
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
# Only these may know the mini world itself; everything else meets it as an ordinary model and dataset.
WORLD_READERS = ("mini_world/", "metrics/", "experiments/")


def sources() -> list[Path]:
    return sorted(PACK.rglob("*.py"))


@cache
def imports(path: Path, text: str = "") -> tuple[tuple[str, int], ...]:
    """Every module that a file of the pack imports, as an absolute dotted name, with its line; nested imports too."""
    return tuple(_imports(path, text))


def _imports(path: Path, text: str) -> Iterator[tuple[str, int]]:
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


def offenders(wrong: Callable[[str, str], bool]) -> list[str]:
    """`file:line module` of each import for which `wrong(file inside the pack, module)`."""
    files = [(path, path.relative_to(PACK).as_posix()) for path in sources()]
    return [f"{file}:{line} {name}" for path, file in files for name, line in imports(path) if wrong(file, name)]


def test_every_room_has_its_layer() -> None:
    entries = {entry.stem for entry in PACK.iterdir() if entry.name not in ("__init__.py", "__pycache__")}
    assert entries == set(LAYERS), "say in LAYERS where a new room belongs"
    assert len(entries) + 1 <= 18, "too many rooms to find one's way: put the new one into an old one"


def test_json_files_are_read_as_bytes_so_that_a_byte_order_mark_is_no_fault() -> None:
    """`json.loads` tells UTF-8 with and without a mark, UTF-16 and UTF-32 apart; `read_text` leaves the mark in."""
    wrong = re.compile(r"json\.load\(|json\.loads\([^\n]*read_text")
    assert [f.name for f in sources() if wrong.search(f.read_text(encoding="utf-8"))] == []


def test_imports_go_one_way() -> None:
    def upward(file: str, name: str) -> bool:
        other = room(name)
        own = file.split("/")[0].removesuffix(".py")
        return own in LAYERS and other in LAYERS and LAYERS.index(other) > LAYERS.index(own)

    assert offenders(upward) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for type checkers count too."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sources()
    }
    needs = {name: {found for found, _ in imports(path) if found in modules} for name, path in modules.items()}
    for name in needs:  # `from .package import module` names both: the module is meant
        needs[name] -= {found for found in needs[name] if any(other.startswith(f"{found}.") for other in needs[name])}
    order = list(TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle
    assert set(order) == set(modules)


def test_only_one_room_imports_comfyui() -> None:
    assert offenders(lambda file, name: name.split(".")[0] in COMFYUI_MODULES and not file.startswith("comfyui/")) == []


def test_only_the_measuring_side_knows_the_mini_world() -> None:
    def reads(file: str, name: str) -> bool:
        return name.startswith("comfy_scoft.mini_world.world") and not file.startswith(WORLD_READERS)

    assert offenders(reads) == []


def test_the_pack_starts_no_process_and_evaluates_no_text() -> None:
    assert offenders(lambda file, name: name.split(".")[0] in ("subprocess", "pickle", "pip")) == []
    calls = [
        f"{path.relative_to(PACK)}:{node.lineno} {node.func.id}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
    ]
    assert calls == []


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
    text = "from ..training.trainer import train\ndef late():\n    from . import context\n    import comfy.utils\n"
    names = {name for name, _ in imports(PACK / "losses" / "imagined.py", text)}
    assert {
        "comfy_scoft.training.trainer",
        "comfy_scoft.training.trainer.train",
        "comfy_scoft.losses.context",
        "comfy.utils",
    } <= names
