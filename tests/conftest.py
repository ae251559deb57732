"""What every test shares: the import path, one real ComfyUI per run, and how tests are split among workers."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ["COMFYUI_PATH"]).resolve() if os.environ.get("COMFYUI_PATH") else None

# Torch reads this when it is imported: what tests compare must not depend on how many cores a machine has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# ComfyUI comes first and the checkout last: both have a nodes.py, and ComfyUI's `import nodes` must find its own.
sys.path[:] = [path for path in sys.path if Path(path or os.curdir).resolve() != ROOT]
sys.path += [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests" / "recorded")]
if COMFYUI is not None and (COMFYUI / "main.py").is_file():
    sys.path.insert(0, str(COMFYUI))
    import comfy.cli_args
    import utils.install_util  # noqa: F401  (now, as main.py does: ComfyUI's nodes.py puts another `utils` ahead later)

    comfy.cli_args.args.cpu = True  # before anything of ComfyUI looks for a GPU

import comfy_queue  # noqa: E402  (needs the path above)
from comfy_server import ComfyServer  # noqa: E402

WORKER_BYTES = 3 * 1024**3
"""Memory a worker may need: torch, diffusers and a model, or the ComfyUI server that it starts."""
NEEDS_COMFYUI = "This test needs a ComfyUI: run it with `python run.py test`, or set COMFYUI_PATH to a ComfyUI folder."


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `-n auto`: one per usable core, fewer where memory is short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows and macOS
        return cores
    return max(1, min(cores, memory // WORKER_BYTES))


FIRST = ("comfy", "test_workflows_sd.py", "test_protocol_full.py")
"""The longest groups of tests: other workers take the rest meanwhile, and none waits for them at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one file run in one worker, so that module fixtures are built once. Users of `comfy` share a worker."""
    groups = {item: "comfy" if "comfy" in getattr(item, "fixturenames", ()) else item.path.name for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    if config.getoption("loadgroup", False):  # how a worker of `--dist loadgroup` is told so
        items.sort(key=lambda item: FIRST.index(groups[item]) if groups[item] in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """A pytest that pytest-xdist does not know is refused: it would build every fixture in every worker, unnoticed."""
    if node.config.getoption("dist") == "loadgroup" and not all("@" in name for name in ids):
        pytest.exit("pytest-xdist could not group the tests by file: use the pytest that is pinned.", returncode=4)


LARGE_FILE = 50 * 1024**2
"""Bytes above which a file of a test's own folder is deleted when the test has ended, also if it failed."""


@pytest.hookimpl(trylast=True)  # when nothing of the test has them open any more
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Full-size stand-ins are gigabytes: their files go with their test, since pytest keeps the folders of three runs,
    and so does their memory."""
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    for path in folder.rglob("*") if folder is not None else ():
        with suppress(OSError):  # another process deletes it too, or (Windows) still has it open
            if path.is_file() and not path.is_symlink() and path.stat().st_size > LARGE_FILE:
                path.unlink()
    if item.get_closest_marker("long"):  # else a worker keeps all the memory that its largest test took
        gc.collect()
        with suppress(AttributeError, OSError, TypeError):  # no glibc
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The folder of a real ComfyUI, which is then on the import path too: import it inside the test."""
    if COMFYUI is None or not (COMFYUI / "main.py").is_file():
        pytest.fail(NEEDS_COMFYUI, pytrace=False)
    return COMFYUI


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for the tests of a file; Playwright's loop would break other files' asyncio if it stayed open."""
    import browser

    with browser.chromium() as found:
        yield found


@pytest.fixture(scope="session")
def comfy(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI with the pack in it; `comfy.client` drives it, `comfy.base` holds its folders."""
    with ComfyServer(sys.executable, comfyui_path, tmp_path_factory.mktemp("comfyui"), timeout=800.0) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed in the middle of a run does not hold up, or fail, those after it."""
    server = request.getfixturevalue("comfy") if "comfy" in request.fixturenames else None
    yield
    if server is not None:
        comfy_queue.empty(server.client)
