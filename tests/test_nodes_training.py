"""The nodes of losses and training, on a tiny model of ComfyUI's own classes in this process."""

from __future__ import annotations

import importlib.util
import math
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy_inprocess as tiny
import pytest
import torch
from safetensors.torch import save_file
from toys import toy_dataset, toy_features, toy_run

comfy = tiny.start()

import folder_paths  # noqa: E402  (needs a started ComfyUI)
from comfy_api.latest import io  # noqa: E402
from comfy_execution.graph_utils import ExecutionBlocker  # noqa: E402

from comfy_scoft import features  # noqa: E402
from comfy_scoft.comfyui import training  # noqa: E402
from comfy_scoft.comfyui.nodes import losses as nodes_losses  # noqa: E402
from comfy_scoft.comfyui.nodes import options as nodes_options  # noqa: E402
from comfy_scoft.comfyui.nodes import training as nodes_training  # noqa: E402
from comfy_scoft.comfyui.training_progress import TrainingProgress  # noqa: E402
from comfy_scoft.common.errors import UserError  # noqa: E402
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss  # noqa: E402
from comfy_scoft.losses.rollout import RolloutSettings  # noqa: E402
from comfy_scoft.models.lora import LoraSettings  # noqa: E402
from comfy_scoft.models.stable_diffusion import BaseModel  # noqa: E402
from comfy_scoft.training import job  # noqa: E402
from comfy_scoft.training import run_folder as runs  # noqa: E402

KNOBS = {"steps": 2, "batch_size": 1, "accumulation": 1, "resolution": 64, "precision": "fp32", "seed": 5}
KNOBS |= {
    "checkpoint_every": 100,
    "rollout": RolloutSettings(every=2, steps=2),
    "lora": LoraSettings(rank=2, alpha=2.0),
}


class Clip:
    """A CLIP of random embeddings, decided by the text."""

    def tokenize(self, text: str, disable_weights: bool) -> dict:
        assert disable_weights
        return {"l": [text]}

    def encode_from_tokens(self, tokens: dict, return_pooled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(sum(tokens["l"][0].encode()))
        return torch.randn(1, 77, 24, generator=generator), torch.zeros(1, 24)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's output folder, empty; its lora folder in it; and the toy feature network on the menu."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    kinds = folder_paths.folder_names_and_paths
    monkeypatch.setitem(kinds, "loras", ([str(tmp_path / "output" / "loras")], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setitem(features.FEATURES, "toy", lambda path: toy_features())
    return tmp_path


@pytest.fixture
def estimated() -> None:
    """A test that takes this has the real memory estimate and the real chart."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory estimate and no chart, which take longer than the training; both have tests of their own."""
    if "estimated" not in request.fixturenames:
        monkeypatch.setattr(nodes_training.training, "fits", lambda run, options, free: (options, ""))
        monkeypatch.setattr(nodes_training, "loss_chart", lambda rows, title: torch.zeros(8, 8, 3))


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "model": tiny.tiny_model("sd1"),
        "clip": Clip(),
        "vae": tiny.tiny_taesd(),
        "dataset": toy_dataset(tmp_path_factory.mktemp("data"), negatives=(1, 0)),
        "losses": (DiffusionLoss(), MemorizationLoss(), ContrastiveLoss(toy_features())),
    }


def execute(node: type, **given: Any) -> tuple:
    """Run a node as ComfyUI does: in inference mode, on a copy of its class that holds the hidden inputs."""
    prompt = {"9": {"inputs": {"model": ["8", 0]}}, "8": {"inputs": {"ckpt_name": "tiny.safetensors"}}}
    ready = type(node.__name__, (node,), {"hidden": SimpleNamespace(unique_id="9", prompt=prompt, extra_pnginfo=None)})
    with torch.inference_mode():
        return ready.execute(**given).args


def train(sockets: dict, **changes: Any) -> tuple:
    return execute(nodes_training.TrainLora, **{**sockets, **KNOBS, "run_name": "run", "resume": "off", **changes})


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_widgets_take_defaults_and_choices_from_the_settings() -> None:
    (rank, _, targets, *_) = nodes_options.LoraOptions.define_schema().inputs
    assert (rank.default, targets.default) == (LoraSettings().rank, "attention")
    assert targets.options[1] == "attention + feed-forward" and isinstance(rank, io.Int.Input)
    rate = nodes_options.OptimizerOptions.define_schema().inputs[1]
    assert (rate.id, rate.default) == ("learning_rate", 1e-4) and isinstance(rate, io.Float.Input)


@pytest.mark.parametrize("node", tiny.nodes_of(nodes_losses)[:5])
def test_a_bypassed_loss_passes_the_chain_through(node: type) -> None:
    """ComfyUI's bypass joins an output to the input of its type: there must be just one of each."""
    schema = node.define_schema()
    assert [i.id for i in schema.inputs if i.io_type == "SCOFT_LOSSES"] == ["losses"] and schema.inputs[-1].optional
    assert [o.io_type for o in schema.outputs] == ["SCOFT_LOSSES"]


def test_losses_are_chained_in_order_and_an_earlier_chain_is_not_changed() -> None:
    network = toy_features()
    (first,) = execute(nodes_losses.DiffusionLossNode, weight=0.5, min_snr_gamma=5.0)
    (second,) = execute(nodes_losses.MemorizationLossNode, weight=0.2, reference="base", losses=first)
    (third,) = execute(nodes_losses.PerceptualLossNode, features=network, weight=0.1, losses=second)
    terms = {"features": network, "weight": 0.1, "margin": 0.3, "negative_weight": 0.5, "form": "difference"}
    (last,) = execute(nodes_losses.ContrastiveLossNode, **terms)
    assert first == (DiffusionLoss(0.5, 5.0),) and second == (*first, MemorizationLoss(0.2, "base"))
    assert [loss.name for loss in third] == ["diffusion", "memorization", "perceptual"]
    assert last == (ContrastiveLoss(network, 0.1, 0.3, 0.5, "difference"),)


def test_a_feature_network_is_loaded_outside_inference_mode_and_only_from_the_list(place: Path) -> None:
    (network,) = execute(nodes_losses.LoadFeatures, network="toy", checkpoint="built in")
    assert not any(p.is_inference() for p in network.module.parameters()) and network.source is None
    with pytest.raises(ValueError, match="choose one from the list"):
        execute(nodes_losses.LoadFeatures, network="toy", checkpoint="../secret.pt")


@pytest.mark.parametrize("network", list(features.FEATURES))
def test_a_file_of_other_weights_is_named_in_one_sentence(network: str, tmp_path: Path) -> None:
    other, junk = tmp_path / "other.safetensors", tmp_path / "junk.safetensors"
    save_file({"lora_down.weight": torch.zeros(1, 1)}, other)
    junk.write_bytes(b"junk")
    for path in (other, junk):
        with pytest.raises(ValueError) as found:
            features.load_features(network, path)
        assert str(found.value) == f"{path.name} does not hold the weights of {network}: choose that network's file."


def test_options_become_settings_and_bad_ones_a_sentence() -> None:
    given = {"optimizer": "AdamW", "learning_rate": 1e-3, "schedule": "linear", "warmup": 2, "clip": 0.0}
    (found,) = execute(nodes_options.OptimizerOptions, **given, weight_decay=0.0)
    assert (found.learning_rate, found.schedule, found.warmup) == (1e-3, "linear", 2)
    with pytest.raises(UserError, match="^optimizer is 'SGD', but it must be one of AdamW, AdamW8bit, Prodigy, "):
        execute(nodes_options.OptimizerOptions, **{**given, "optimizer": "SGD"}, weight_decay=0.0)
    with pytest.raises(UserError, match=r"^alpha is 0\.0, but it must be a number from 0\.01 to 4096\.$"):
        execute(nodes_options.LoraOptions, rank=1, alpha=0.0, targets="attention", dropout=0.0)


def test_training_twice_gives_the_same_lora_and_leaves_the_model_alone(place: Path, sockets: dict) -> None:
    before = {key: value.clone() for key, value in sockets["model"].model.state_dict().items()}
    lora, model, loss_map, chart, steps = train(sockets)
    again = train(sockets)[0]
    assert same(lora, again) and steps == 2
    assert same(before, sockets["model"].model.state_dict()) and not sockets["model"].patches
    assert len(model.patches) == len(lora) // 3 and chart.ndim == 4 and chart.shape[0] == 1
    assert len(set(loss_map["loss"])) == 2 and all(math.isfinite(x) for x in loss_map["loss"])
    root = place / "output" / "scoft" / "runs"
    assert sorted(path.name for path in root.iterdir()) == ["run", "run-2"]
    assert [row["step"] for row in runs.read_metrics(root / "run")] == [1, 2]
    assert lora.record["base"]["name"] == "tiny.safetensors" and again.record["run"] == "run-2"


@pytest.mark.long
def test_an_interrupt_leaves_a_checkpoint_that_goes_on_to_the_same_lora(
    place: Path, sockets: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(sockets, run_name="whole")[0]
    management, real = comfy.model_management, BaseModel.predict
    made: list[int] = []

    def stopping(self: BaseModel, *given: Any) -> Any:
        made.append(self.calls)
        if len(made) == 4:  # of 5: in the second step
            management.interrupt_current_processing(True)
        return real(self, *given)

    monkeypatch.setattr(BaseModel, "predict", stopping)
    with pytest.raises(management.InterruptProcessingException):
        train(sockets)
    assert len(made) == 4, "stopped before the next UNet call"
    monkeypatch.setattr(BaseModel, "predict", real)
    folder = place / "output" / "scoft" / "runs" / "run"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-00000001"]
    found = train(sockets, resume="latest")
    assert same(found[0], whole) and found[4] == 2 and len(found[2]["loss"]) == 2


@pytest.mark.long
def test_an_exported_job_trains_the_nodes_lora_to_the_bit(place: Path, sockets: dict) -> None:
    expected = train(sockets)[0]
    (path,) = execute(nodes_training.ExportJob, **sockets, **KNOBS, job_name="tiny", checkpoint="stored in the job")
    assert Path(path) == place / "output" / "scoft" / "jobs" / "tiny" / "job.json"
    # what the command line would do
    sockets["losses"][2].features.to(torch.device("cpu"))
    _, result, _ = job.run_job(job.read_job(Path(path)), place / "elsewhere")
    assert same(result.lora, expected)


@pytest.mark.long
def test_train_lora_exports_its_job_and_shows_the_command_that_trains_it(
    place: Path, sockets: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(sockets)[0]
    output = place / "it's an output"
    monkeypatch.setattr(folder_paths, "output_directory", str(output))
    node = type("TrainLora", (nodes_training.TrainLora,), {"hidden": SimpleNamespace(unique_id="9", prompt={})})
    with torch.inference_mode():
        found = node.execute(**sockets, **KNOBS, run_name="my job", resume="off", export_job=True)
    assert all(isinstance(each, ExecutionBlocker) for each in found.args) and len(found.args) == 5
    assert not (output / "scoft" / "runs").exists()
    program, pack, *words = shlex.split(found.ui.as_dict()["text"][0].splitlines()[-1])
    path = output / "scoft/jobs/my job/job.json"
    assert (program, words) == (sys.executable, ["train", str(path)])
    command = [program, "-I", pack, "--version"]  # isolated, as the Python of ComfyUI's Windows portable always is
    assert b"comfy_scoft" in subprocess.run(command, cwd=place, capture_output=True, timeout=300, check=True).stdout
    sockets["losses"][2].features.to(torch.device("cpu"))
    _, result, _ = job.run_job(job.read_job(path), place / "elsewhere")
    assert same(result.lora, expected)


@pytest.mark.parametrize(
    "system, path, first, shown",
    [
        ("posix", "/home/a b/job.json", False, "'/home/a b/job.json'"),
        ("posix", "/home/a b/python", True, "'/home/a b/python'"),
        ("posix", "/x/it's/job.json", False, "'/x/it'\"'\"'s/job.json'"),
        ("nt", "C:\\a b\\(1)\\job.json", False, '"C:\\a b\\(1)\\job.json"'),
        ("nt", "C:\\a\\job.json", False, "C:\\a\\job.json"),
        ("nt", "C:\\John Doe\\py (1)\\python.exe", True, 'C:\\"John Doe"\\"py (1)"\\python.exe'),
    ],
)
def test_the_command_is_quoted_for_the_systems_shells(
    system: str, path: str, first: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Windows for cmd and PowerShell, which would take a line that begins with a quote for a text."""
    monkeypatch.setattr(training, "os", SimpleNamespace(name=system))
    assert training._quoted(path, first=first) == shown


class Windows(Clip):
    """The same with a window for each 75 words."""

    def tokenize(self, text: str, disable_weights: bool) -> dict:
        words = text.split()
        return {"l": [" ".join(words[i : i + 75]) for i in range(0, max(1, len(words)), 75)]}

    def encode_from_tokens(self, tokens: dict, return_pooled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        windows = [super(Windows, self).encode_from_tokens({"l": [part]}, True) for part in tokens["l"]]
        return torch.cat([hidden for hidden, _ in windows], dim=1), windows[0][1]


@pytest.mark.long
@pytest.mark.parametrize("how", ["all windows", "first window"])
def test_long_captions_are_read_as_the_widget_says_in_the_node_and_in_its_job(
    place: Path, sockets: dict, how: str
) -> None:
    loras = []
    for end in ("day", "night"):
        records = [replace(record, caption=f"{'word ' * 80}{end}") for record in sockets["dataset"].records]
        given = {**sockets, "clip": Windows(), "dataset": sockets["dataset"].replace(records)}
        given |= {**KNOBS, "losses": (DiffusionLoss(),), "steps": 1, "long_captions": how}
        loras.append(execute(nodes_training.TrainLora, **given, run_name=end, resume="off")[0])
        (path,) = execute(nodes_training.ExportJob, **given, job_name=end, checkpoint="stored in the job")
        assert same(job.run_job(job.read_job(Path(path)), place / f"again {end}")[1].lora, loras[-1])
    assert same(*loras) is (how == "first window")


def test_the_last_line_on_the_node_says_how_many_captions_are_long(tmp_path: Path) -> None:
    lines: list[str] = []
    bar = SimpleNamespace(total=9, update=lambda done, text, image: lines.append(text))
    run = toy_run(tmp_path, [DiffusionLoss()])
    TrainingProgress(run, bar, SimpleNamespace(begun=True, send=lambda state: None)).end(3, [])
    long = replace(run.dataset.records[0], caption="word " * 80)
    run = toy_run(tmp_path, [DiffusionLoss()], dataset=run.dataset.replace([long, *run.dataset.records[1:]]))
    TrainingProgress(run, bar, SimpleNamespace(begun=True, send=lambda state: None)).end(3, [])
    told = "Captions of more than 75 tokens: 1, read in full."
    assert lines == ["run: 3 steps done.", f"run: 3 steps done. {told}"]


def test_faults_are_one_sentence_and_leave_no_empty_run(
    place: Path, sockets: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(**changes: Any) -> None:
        execute(nodes_training.ExportJob, **{**sockets, **KNOBS, "checkpoint": nodes_training.STORED, **changes})

    def fault(match: str, run_name: str = "run", **changes: Any) -> None:
        with pytest.raises(ValueError, match=match):
            train({**sockets, **changes}, run_name=run_name)

    fault("leads out of", run_name="../../up")
    fault("no records", dataset=sockets["dataset"].replace([]))
    fault("No loss is connected", losses=())
    test = sockets["dataset"].replace(r.__class__(r.image, r.caption, split="test") for r in sockets["dataset"].records)
    fault("has no image of the split 'train'", dataset=test)
    bare = sockets["dataset"].replace(r.__class__(r.image, r.caption) for r in sockets["dataset"].records)
    monkeypatch.setattr(training, "prepare", lambda *given: pytest.fail("refused only after the images were encoded"))
    for losses, words in ((MemorizationLoss(), "generic captions"), (ContrastiveLoss(toy_features()), "negatives")):
        fault(words, dataset=bare, losses=(losses,))
        with pytest.raises(ValueError, match=words):
            export(job_name="job", dataset=bare, losses=(losses,))
    with pytest.raises(ValueError, match="The job name '../up' leads out of 'jobs'"):
        export(job_name="../up")
    assert not (place / "output" / "scoft" / "jobs").exists()
    root = place / "output" / "scoft" / "runs"
    assert not root.exists() or list(root.iterdir()) == []


@pytest.mark.long
def test_a_saved_lora_passes_stock_nodes_and_is_listed_with_its_card(place: Path, sockets: dict) -> None:
    from comfy_extras import nodes_train

    lora = train(sockets)[0]
    words = {"title": "T", "trigger_phrase": "", "authors": "", "licence": "", "consent": "All agreed."}
    (path,) = execute(nodes_training.SaveLora, lora=lora, filename_prefix="toys", **words)
    assert Path(path) == place / "output" / "loras" / "toys_00001.safetensors"
    assert "toys_00001.safetensors" in folder_paths.get_filename_list("loras")
    (text,) = execute(nodes_training.ReadCard, lora="toys_00001.safetensors")
    assert "- Consent and provenance: All agreed." in text and "Base model: tiny.safetensors" in text
    with pytest.raises(ValueError, match="choose one from the list"):
        execute(nodes_training.ReadCard, lora="../toys_00001.safetensors")
    execute(nodes_train.SaveLoRA, lora=lora, prefix="stock")
    (patched,) = execute(nodes_train.LoraModelLoader, model=sockets["model"], lora=lora, strength_model=1.0)
    assert len(patched.patches) == len(lora) // 3
    from_disk = comfy.utils.load_torch_file(path)
    assert same(from_disk, lora)


def test_the_loss_map_is_safe_for_the_stock_graph(place: Path) -> None:
    from comfy_extras import nodes_train

    losses = [DiffusionLoss(weight=1.0)]
    for rows in ([], [{"step": 1, "diffusion": 0.5}], [{"step": 1, "diffusion": 0.5}, {"step": 2, "diffusion": 0.5}]):
        found = training.loss_map(rows, losses)
        assert len(set(found["loss"])) == 2
        assert max(found["loss"]) - min(found["loss"]) < 1e-12
        execute(nodes_train.LossGraphNode, loss=found, filename_prefix="x")
    varied = [{"step": 1, "diffusion": 0.5}, {"step": 2, "diffusion": 0.25}]
    assert training.loss_map(varied, losses) == {"loss": [0.5, 0.25]}


def test_the_base_models_name_is_found_in_the_graph() -> None:
    graph = {
        "1": {"inputs": {"ckpt_name": "base.safetensors"}},
        "2": {"inputs": {"model": ["1", 0], "lora_name": "x"}},
        "3": {"inputs": {"model": ["2", 0]}},
        "4": {"inputs": {"model": ["4", 0]}},
    }
    assert training.model_name(graph, "3") == "base.safetensors"
    assert training.model_name(graph, "4") == training.model_name(None, "3") == "unknown"


def test_the_table_of_contents_lists_every_node_of_the_bridge_once() -> None:
    root = Path(nodes_training.__file__).resolve().parents[3]
    spec = importlib.util.spec_from_file_location(
        "pack_here", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["pack_here"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack_here"])
    contents = importlib.import_module("pack_here.nodes").Extension.nodes
    listed = [node.define_schema().node_id for node in contents]
    assert len(set(listed)) == len(listed) and all(name.startswith("SCoFT_") for name in listed)
    found = []
    for path in sorted((root / "comfy_scoft" / "comfyui" / "nodes").glob("[!_]*.py")):
        module = importlib.import_module(f"pack_here.comfy_scoft.comfyui.nodes.{path.stem}")
        found += [node.define_schema().node_id for node in tiny.nodes_of(module)]
    assert sorted(found) == sorted(listed)
