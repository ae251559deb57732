"""`python -m comfy_scoft demo`: run the shipped workflow in a running ComfyUI and show what changed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from ..experiments.comfy_client import ComfyClient, ComfyError
from ..experiments.demo import WORKFLOW, fetch, follow, load, table
from .options import Help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status; a failure is one sentence on stderr and status 1."""
    options = parser().parse_args(arguments)
    client = None
    try:
        client = ComfyClient(options.server)
        prompt = load(options.workflow, options.steps, options.images_per_prompt)
        run = asyncio.run(follow(client, prompt, lambda text: print(text, flush=True), options.timeout))
        results = fetch(client, prompt, run, options.out, options.base)
    except (ComfyError, OSError, ValueError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if client is not None:
            client.interrupt()
        print("\nStopped. Checkpoints of the training stay in ComfyUI's output folder.", file=sys.stderr)
        return 130
    print(f"Images and results.json are in {options.out}")
    print("\n".join(table(results)), flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m comfy_scoft demo",
        description="Run the shipped workflow in a running ComfyUI and show what changed.",
        formatter_class=Help,
    )
    found.add_argument("--server", required=True, help="address of a ComfyUI that has this pack: http://host:port")
    found.add_argument("--base", type=Path, help="its base folder, to say where the LoRA lies (default: not said)")
    found.add_argument("--out", type=Path, default=Path("output/demo"), help="where images and metrics go")
    found.add_argument(
        "--workflow",
        type=Path,
        default=WORKFLOW,
        help=f"a workflow in API form (default: {WORKFLOW.stem})",
    )
    found.add_argument("--steps", type=int, help="training steps (default: the workflow's)")
    found.add_argument("--images-per-prompt", type=int, help="images of each prompt (default: the workflow's)")
    found.add_argument("--timeout", type=float, default=3600.0, help="give up after so many seconds without an event")
    return found
