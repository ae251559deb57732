"""The pack in a real ComfyUI over HTTP: its nodes, the shipped workflow from end to end, faults, and the interrupt."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import build_workflows
import pytest
from comfy_server import ComfyServer
from workflow_form import compact

from comfy_scoft.cli.demo import main as demo_verb
from comfy_scoft.experiments import demo
from comfy_scoft.experiments.comfy_client import ComfyClient, ComfyError, ComfyInterrupted, Prompt
from comfy_scoft.models.mini import layout
from comfy_scoft.training import checkpoint
from comfy_scoft.training import run_folder as runs

SCHEMAS = json.loads(build_workflows.SCHEMAS.read_text(encoding="utf-8"))
OURS = "SCoFT_"
PATIENCE = 900.0


def shortened(run_name: str, workflow: Path = demo.WORKFLOW, **changes: Any) -> Prompt:
    """A workflow with few images and steps; every node of it is still there."""
    prompt = demo.load(workflow, steps=2, images_per_prompt=1)
    short = {
        "SCoFT_LoadDataset": {"limit": 4},
        "SCoFT_MakeNegatives": {"per_image": 2, "steps": 2},
        "SCoFT_RolloutOptions": {"every": 1, "steps": 2},
        "SCoFT_LoraOptions": {"rank": 2, "alpha": 2.0},
        "SCoFT_TrainLora": {"batch_size": 2, "run_name": run_name, **changes},
        "SCoFT_SaveLora": {"filename_prefix": run_name},
        "SCoFT_GenerateSet": {"steps": 2},
        "PrimitiveStringMultiline": {"value": "a cook in nuvia\na hero in borea\na judge"},
    }
    for node in prompt.values():
        node["inputs"] |= short.get(node["class_type"], {})
    return prompt


def only(prompt: Prompt, kind: str) -> str:
    (number,) = demo.of_kind(prompt, kind)
    return number


def until(prompt: Prompt, kind: str) -> Prompt:
    """The part of a workflow that a node of this kind needs, with the node."""
    wanted, found = [only(prompt, kind)], {}
    while wanted:
        number = wanted.pop()
        found[number] = prompt[number]
        wanted += [v[0] for v in prompt[number]["inputs"].values() if isinstance(v, list)]
    return found


@pytest.fixture(scope="module")
def finished(comfy: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The demo, run on the shortened workflow: its folder of results and its exit status."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "short.json").write_text(json.dumps(shortened("first")), encoding="utf-8")
    options = ["--server", comfy.url, "--base", str(comfy.base), "--out", str(folder / "out")]
    return folder / "out", demo_verb([*options, "--workflow", str(folder / "short.json")])


def test_every_node_is_there_with_the_sockets_that_workflows_rely_on(comfy: ComfyServer) -> None:
    info = comfy.client.object_info()
    ours = {name: compact(entry) for name, entry in info.items() if name.startswith(OURS)}
    assert ours == {name: schema for name, schema in SCHEMAS.items() if name.startswith(OURS)}, (
        "Node ids and sockets are for ever. If an input was added, run tools/build_workflows.py with --schemas."
    )
    for name in build_workflows.STOCK:
        assert set(SCHEMAS[name]["inputs"]) <= set(compact(info[name])["inputs"])
    for name in ours:
        parts = [*info[name]["input"].get("required", {}).items(), *info[name]["input"].get("optional", {}).items()]
        assert info[name]["description"] and info[name]["category"].startswith("SCoFT/")
        assert not [part for part, (_, *options) in parts if not (options and options[0].get("tooltip"))]


def test_the_shipped_models_and_pictures_are_in_the_menus(comfy: ComfyServer) -> None:
    for kind, name, file in (
        ("CheckpointLoaderSimple", "ckpt_name", layout.CHECKPOINT),
        ("ControlNetLoader", "control_net_name", layout.CONTROLNET),
    ):
        assert file in comfy.client.object_info(kind)[kind]["input"]["required"][name][0]


def test_the_demo_runs_the_workflow_and_brings_back_pictures_and_figures(finished: tuple[Path, int]) -> None:
    folder, status = finished
    assert status == 0
    for name in demo.PICTURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert set(results["figures"]) == {"nuvia", "borea", "no place"}
    for rows in results["figures"].values():
        for name in ("dark skin", "gold palette", "right concept"):
            assert rows[name]["before"]["n"] == rows[name]["after"]["n"] == 1
    assert results["seconds"]["total"] >= results["seconds"]["training"] > 0
    lines = demo.table(results)
    assert lines[-1].startswith("times: negatives") and Path(results["lora"]).is_file()


def test_the_lora_and_its_card_are_in_the_lora_menu_without_a_restart(
    comfy: ComfyServer, finished: tuple[Path, int]
) -> None:
    folder = comfy.base / "output" / "loras"
    (lora,) = folder.glob("first_*.safetensors")
    assert lora.with_suffix(".md").read_text(encoding="utf-8").strip()
    for kind, name in (("LoraLoader", "lora_name"), ("SCoFT_ReadCard", "lora")):
        kinds, *options = comfy.client.object_info(kind)[kind]["input"]["required"][name]
        assert lora.name in (kinds if isinstance(kinds, list) else options[0]["options"])


def test_the_saved_lora_draws_in_stock_nodes_what_it_drew_in_training(
    comfy: ComfyServer, finished: tuple[Path, int]
) -> None:
    """LoraLoader and KSampler on the saved file against the model that Train LoRA gave."""
    prompt = shortened("first")
    after = next(n for n in demo.of_kind(prompt, "SCoFT_GenerateSet") if prompt[n]["inputs"]["label"] == "after")
    base, set_ = only(prompt, "CheckpointLoaderSimple"), prompt[after]["inputs"]
    set_ |= {"prompts": "a cook in nuvia", "sampler_name": "euler", "steps": 4}
    (lora,) = (comfy.base / "output" / "loras").glob("first_*.safetensors")
    sampling = {key: set_[key] for key in ("seed", "cfg", "steps", "sampler_name", "scheduler")}
    stock = {
        "lora": _node("LoraLoaderModelOnly", model=[base, 0], lora_name=lora.name, strength_model=1.0),
        "words": _node("CLIPTextEncode", clip=[base, 1], text="a cook in nuvia"),
        "none": _node("CLIPTextEncode", clip=[base, 1], text=""),
        "empty": _node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampled": _node(
            "KSampler",
            model=["lora", 0],
            positive=["words", 0],
            negative=["none", 0],
            latent_image=["empty", 0],
            denoise=1.0,
            **sampling,
        ),
        "decoded": _node("VAEDecode", samples=["sampled", 0], vae=[base, 2]),
        "theirs": _node("SaveImage", images=["decoded", 0], filename_prefix="theirs"),
        "ours": _node("SaveImage", images=[after, 1], filename_prefix="ours"),
    }
    training = until(prompt, "SCoFT_TrainLora")
    entry = comfy.client.run({**training, after: prompt[after], **stock}, PATIENCE)
    images = [_pixels(comfy.client, entry["outputs"][name]["images"][0]) for name in ("ours", "theirs")]
    differences = [abs(a - b) for a, b in zip(*images, strict=True)]
    assert max(differences) <= 2 and max(images[0]) - min(images[0]) > 20
    log = comfy.log.read_text(encoding="utf-8", errors="replace")
    assert "lora key not loaded" not in log


@pytest.mark.long
def test_the_ablation_draws_and_measures_its_five_models(comfy: ComfyServer) -> None:
    prompt = shortened("ablation", demo.WORKFLOW.with_name("ablation.json"))
    outputs = comfy.client.run(prompt, PATIENCE)["outputs"]
    rows = demo.figures(demo.shown_text(outputs, demo.of_kind(prompt, "SCoFT_ScoreTable")))["nuvia"]["dark skin"]
    assert list(rows) == ["base", "LDM", "'+M", "'+MP", "'+MPC"]  # for a spreadsheet + would begin a formula
    assert all(outputs[number]["images"] for number in demo.of_kind(prompt, "SaveImage"))


@pytest.mark.long
def test_the_careful_workflow_holds_other_places_and_corrects_beside_the_lora(comfy: ComfyServer) -> None:
    prompt = shortened("careful", demo.WORKFLOW.with_name("train-cultural-lora-careful.json"))
    prompt[only(prompt, "SCoFT_LearnPreference")]["inputs"]["steps"] = 2
    outputs = comfy.client.run(prompt, PATIENCE)["outputs"]
    assert outputs[only(prompt, "SCoFT_SaveLora")]["text"]
    trained = runs.read_metrics(comfy.base / "output" / "scoft" / "runs" / "careful")
    assert {"diffusion", "memorization", "contrastive", "prior"} <= {name for row in trained for name in row}
    assert list((comfy.base / "output" / "scoft" / "preferences").glob("nuvia-careful*.safetensors"))
    rows = demo.figures(demo.shown_text(outputs, demo.of_kind(prompt, "SCoFT_ScoreTable")))["nuvia"]["dark skin"]
    assert {"before", "after", "corrected too"} <= set(rows)


@pytest.mark.long
def test_training_works_again_in_the_same_server_and_gives_the_same_lora(
    comfy: ComfyServer, finished: tuple[Path, int]
) -> None:
    from safetensors.torch import load_file

    prompt = shortened("second")
    entry = comfy.client.run(until(prompt, "SCoFT_SaveLora"), PATIENCE)
    assert entry["outputs"][only(prompt, "SCoFT_SaveLora")]["text"]
    one, two = (
        load_file(next((comfy.base / "output" / "loras").glob(f"{name}_*.safetensors"))) for name in ("first", "second")
    )
    assert one.keys() == two.keys() and all((one[key] == two[key]).all() for key in one)


@pytest.mark.long
def test_an_interrupt_stops_training_and_leaves_a_checkpoint_to_go_on_from(comfy: ComfyServer) -> None:
    long = until(shortened("stopped", steps=5_000), "SCoFT_TrainLora")
    number = comfy.client.queue(long)
    metrics = comfy.base / "output" / "scoft" / "runs" / "stopped" / "metrics.jsonl"
    _wait_for(lambda: any(row["step"] > 0 for row in runs.read_metrics(metrics.parent)))
    asked = time.monotonic()
    comfy.client.interrupt()
    with pytest.raises(ComfyInterrupted):
        comfy.client.wait(number, PATIENCE)
    assert time.monotonic() - asked < 60
    done = checkpoint.newest_step(metrics.parent)
    assert done >= 1 and comfy.client.running() == []
    go_on = copy.deepcopy(long)
    go_on[only(go_on, "SCoFT_TrainLora")]["inputs"] |= {"steps": 5_000, "resume": "latest"}
    number = comfy.client.queue(go_on)
    _wait_for(lambda: any(row["step"] > done for row in runs.read_metrics(metrics.parent)))
    comfy.client.interrupt()
    with pytest.raises(ComfyInterrupted):
        comfy.client.wait(number, PATIENCE)


def test_a_fault_in_the_input_is_refused_before_anything_runs(comfy: ComfyServer) -> None:
    prompt = until(shortened("faulty"), "SCoFT_TrainLora")  # ComfyUI would run the outputs without a fault
    for number in demo.of_kind(prompt, "SCoFT_LoadDataset"):
        prompt[number]["inputs"]["folder"] = "../../etc"
    with pytest.raises(ComfyError, match=r"SCoFT_LoadDataset \(node \d+\).*\.\./\.\./etc"):
        comfy.client.queue(prompt)
    with pytest.raises(ComfyError, match=r"SCoFT_TrainLora \(node \d+\).*The run name '\.\./up' leads out of"):
        comfy.client.queue(until(shortened("../up"), "SCoFT_TrainLora"))
    prompt = until(shortened("faulty"), "SCoFT_TrainLora")
    del prompt[only(prompt, "SCoFT_TrainLora")]["inputs"]["dataset"]
    with pytest.raises(ComfyError, match=r"SCoFT_TrainLora \(node \d+\).*dataset"):
        comfy.client.queue(prompt)


def test_a_fault_found_while_running_is_one_sentence(comfy: ComfyServer) -> None:
    prompt = until(shortened("faulty"), "SCoFT_TrainLora")
    for number in demo.of_kind(prompt, "SCoFT_LoadDataset"):
        prompt[number]["inputs"]["categories"] = "nothing"
    with pytest.raises(ComfyError, match=r"SCoFT_LoadDataset \(node \d+\): None of the \d+ records") as raised:
        comfy.client.run(prompt, PATIENCE)
    assert len(str(raised.value).splitlines()) == 1
    assert not (comfy.base / "output" / "scoft" / "runs" / "faulty").exists()


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def _pixels(client: ComfyClient, image: dict[str, str]) -> list[int]:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(client.view(image))) as picture:
        return list(picture.convert("RGB").tobytes())


def _wait_for(true: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
