"""Files are written whole by one room, and only regular files are opened: a rule for every line of the pack."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent / "comfy_scoft"
WRITES = {
    *("write_text", "write_bytes", "writelines", "truncate", "touch", "tofile", "savez", "savez_compressed", "savetxt"),
    *("copyfile", "copyfileobj", "copy2", "copytree", "move", "rename", "renames", "link", "symlink_to", "hardlink_to"),
    *("save_file", "save_pretrained", "mkdir", "makedirs", "mkdtemp", "mkstemp", "NamedTemporaryFile", "rmtree"),
    *("unlink", "rmdir", "removedirs", "to_csv", "imsave"),
}
OF_A_MODULE = {"os.replace", "os.remove", "os.open", "os.fdopen", "shutil.copy", "torch.save", "np.save", "json.dump"}
READS = {"read_text", "read_bytes", "safe_open", "load_file", "load_torch_file", "torch.load", "Image.open", "np.load"}


def opens(call: ast.Call) -> str:
    """The mode of a call of `open`: what is given, or "r"."""
    values = [e.value for e in [*call.args, *(k.value for k in call.keywords)] if isinstance(e, ast.Constant)]
    return next((mode for mode in values if isinstance(mode, str) and set(mode) <= set("rwaxb+tU")), "r")


def is_checked(call: ast.Call) -> bool:
    """Whether the file is asked for as `regular(path)`."""
    own = [call.func.value] if isinstance(call.func, ast.Attribute) else []
    return any("regular(" in ast.unparse(each) for each in [*own, *call.args[:1]])


def calls(text: str) -> Iterator[tuple[str, str]]:
    """("writes" or "reads", the function) of each call that does so to a file, but for reads of a `regular` one."""
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute | ast.Name):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
        dotted = ast.unparse(call.func)
        if name in WRITES or dotted in OF_A_MODULE:
            yield "writes", name
        elif name == "save" and isinstance(call.func, ast.Attribute):
            yield "writes", name
        elif name == "open" and set(opens(call)) & set("wax+"):
            yield "writes", name
        elif (name == "open" or name in READS or dotted in READS) and not is_checked(call):
            yield "reads", name


def places(kind: str) -> dict[str, set[str]]:
    """File of the pack -> the functions it calls that write, or read, a file."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACK.rglob("*.py")):
        names = {name for what, name in calls(path.read_text(encoding="utf-8")) if what == kind}
        if names:
            found[path.relative_to(PACK).as_posix()] = names
    return found


def test_only_the_files_room_writes_files() -> None:
    """A new place that writes belongs into `common/files.py`, or here with the reason why a cut does no harm."""
    own = places("writes")
    assert own.pop("common/files.py") >= {"link", "replace", "open"}
    assert own == {
        # into a `part_folder`, which is published whole
        "data/dataset/save.py": {"copyfile", "mkdir", "save", "write_text"},
        "training/checkpoint.py": {"save_file", "write_text", "rmtree"},
        "training/job.py": {"save_file", "save_pretrained", "write_text"},
        # downloads in progress, which every start throws away
        "data/download/collect.py": {"unlink"},
        "data/download/fetch.py": {"open"},
        "data/download/store.py": {"mkdir", "rmtree", "unlink", "open"},
        # into memory
        "data/images.py": {"save"},
        "survey/images.py": {"save"},
        "experiments/mini_world/generate.py": {"savez_compressed"},
        # the system's null device, in place of a console or a reader that is not there
        "common/console.py": {"open"},
        "cli/exit_status.py": {"open"},
        # functions of this pack that write by the room's own
        "training/resume.py": {"save"},
        "training/trainer.py": {"save"},
        "experiments/mini_world/correction.py": {"save"},
        # locks, and what is made again
        "training/run_folder.py": {"unlink", "rmdir"},
        "experiments/engine/training.py": {"rmtree"},
        "experiments/mini_world/training.py": {"rmtree"},
    }


def test_only_regular_files_are_opened() -> None:
    """A pipe in a folder of the input must not be waited for: `regular(path)` refuses it, and so does `is_file()`."""
    assert places("reads") == {
        # shipped with the pack
        "common/fingerprints.py": {"read_text"},
        "mini_world/world.py": {"read_bytes", "open"},
        "models/mini/clip.py": {"load_file"},
        "models/mini/depth_net.py": {"load_file"},
        "models/single_file.py": {"read_bytes"},
        "survey/languages.py": {"read_bytes"},
        "survey/render.py": {"read_text"},
        # after `is_file()`, which ComfyUI asks too
        "comfyui/small_vae.py": {"load_torch_file"},
        "data/images.py": {"open"},
        "data/captions.py": {"read_text"},
        # functions of this pack that open no file themselves
        "cli/paper_tables.py": {"open"},
        "data/download/collect.py": {"open"},
    }


def test_the_rule_sees_each_way_to_write_and_to_read() -> None:
    text = """
path.open("w"); open(path, mode="ab"); path.open("rb"); open(path); os.replace(a, b); text.replace(a, b)
regular(path).open("rb"); load_file(regular(path)); load_file(path); image.save(path)
"""
    found = list(calls(text))
    assert found.count(("writes", "open")) == 2 and found.count(("reads", "open")) == 2
    assert found.count(("writes", "replace")) == 1 and ("writes", "save") in found
    assert found.count(("reads", "load_file")) == 1
