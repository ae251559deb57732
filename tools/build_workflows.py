"""Writes the shipped workflows: `workflows/<name>.json` for the editor and `workflows/api/<name>.json` for the queue.

    python tools/build_workflows.py                  write both forms of all workflows
    python tools/build_workflows.py --schemas URL    first save the nodes' schemas from the ComfyUI running there

Needs only Python and the saved schemas; the same source gives the same files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial

import workflow_correct
import workflow_evaluate
import workflow_mini
import workflow_sd
import workflow_survey
from checkout import ROOT
from workflow_form import Schema, Workflow, compact, text

from comfy_scoft.experiments.comfy_client import ComfyClient

FOLDER = ROOT / "workflows"
SCHEMAS = ROOT / "tests" / "object_info_snapshot.json"
STOCK = ("CheckpointLoaderSimple", "ControlNetLoader", "PrimitiveStringMultiline", "SaveImage")
STOCK += ("CLIPTextEncode", "ControlNetApplyAdvanced", "EmptyLatentImage", "ImageScale", "KSampler")
STOCK += ("LoraLoaderModelOnly", "LoraModelLoader", "PreviewAny", "VAEDecode")

WORKFLOWS: dict[str, Callable[[Workflow], None]] = {
    "train-cultural-lora-mini": partial(workflow_mini.train_and_measure, run="nuvia-mini", careful=False),
    "train-cultural-lora-careful": partial(workflow_mini.train_and_measure, run="nuvia-careful", careful=True),
    "ablation": workflow_mini.ablation,
    **workflow_sd.WORKFLOWS,
    "evaluate": workflow_evaluate.evaluate,
    "survey": workflow_survey.survey,
    "rs-corrector": workflow_correct.rs_corrector,
}


def build(name: str, schemas: dict[str, Schema]) -> Workflow:
    workflow = Workflow(name, schemas)
    WORKFLOWS[name](workflow)
    return workflow


def save_schemas(url: str) -> None:
    info = ComfyClient(url).object_info()
    names = sorted(name for name in info if name.startswith("SCoFT_")) + sorted(STOCK)
    SCHEMAS.write_text(text({name: compact(info[name]) for name in names}), encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemas", metavar="URL", help="a running ComfyUI with this pack, to save the schemas from")
    options = parser.parse_args(arguments)
    if options.schemas:
        save_schemas(options.schemas)
    schemas = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    (FOLDER / "api").mkdir(parents=True, exist_ok=True)
    for name in WORKFLOWS:
        workflow = build(name, schemas)
        (FOLDER / f"{name}.json").write_text(text(workflow.ui()), encoding="utf-8", newline="\n")
        (FOLDER / "api" / f"{name}.json").write_text(text(workflow.api()), encoding="utf-8", newline="\n")
        print(f"{name}: {len(workflow.nodes)} nodes, {len(workflow.links())} links")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
