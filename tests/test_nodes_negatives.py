"""The nodes that give datasets depth and negatives: ComfyUI's own sampler, its folders, its interrupt."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfy_inprocess import start, tiny_controlnet, tiny_model, tiny_taesd
from node_datasets import batches, empty_folders, from_images, load, one_sentence, with_depth
from PIL import Image

comfy = start()

from comfy_scoft.comfyui.depth_sampler import DepthSampler, size_multiple  # noqa: E402
from comfy_scoft.comfyui.nodes import data as nodes_data  # noqa: E402
from comfy_scoft.comfyui.nodes import negatives as nodes_negatives  # noqa: E402
from comfy_scoft.comfyui.resolution import native_resolution  # noqa: E402
from comfy_scoft.features import FeatureNetwork  # noqa: E402
from comfy_scoft.models.mini import layout  # noqa: E402
from comfy_scoft.negatives.depth import DEPTH, DepthEstimator  # noqa: E402
from comfy_scoft.negatives.generate import NegativeSettings, Request  # noqa: E402


@pytest.fixture(autouse=True)
def comfy_folders(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


def test_estimated_depth_lies_in_the_output_folder(comfy_folders, monkeypatch):
    gray = DepthEstimator("grey", "1", lambda x: torch.full_like(x[:, :1], 0.5))
    monkeypatch.setitem(DEPTH, "grey", lambda: gray)
    dataset = load(nodes_data.SHIPPED, limit=2)[0]
    (found,) = nodes_negatives.EstimateDepth.execute([dataset], ["grey"]).args
    assert all(r.depth.is_relative_to(comfy_folders / "output/scoft/depth") for r in found.records)
    assert all(record.depth is None for record in dataset.records)


class Words:
    """A CLIP of random words: enough of its manners for the sampler."""

    layer_idx = None
    patcher = SimpleNamespace(get_key_patches=dict)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def tokenize(self, text: str, disable_weights: bool = False) -> dict:
        assert disable_weights
        return {"l": [text, *["another window"] * (len(text) // 300)]}

    def encode_from_tokens(self, tokens: dict, return_pooled: bool, return_dict: bool) -> dict:
        text, *more = tokens["l"]
        self.seen.append(text)
        noise = torch.Generator().manual_seed(len(text))
        cond = torch.randn(1, 77 * (1 + len(more)), 24, generator=noise)
        return {"cond": cond, "pooled_output": torch.zeros(1, 24)}


@pytest.fixture(scope="module")
def parts():
    """MODEL, VAE and CONTROL_NET of random weights."""
    return tiny_model("sd1"), tiny_taesd(), tiny_controlnet("sd1")


@pytest.fixture
def images(comfy_folders):
    dataset = load(nodes_data.SHIPPED, limit=2)[0]
    return with_depth(dataset, comfy_folders)


def make(parts, dataset, clip=None, **changes):
    chosen = {"per_image": 2, "steps": 2, "cfg": 2.0, "strength": 1.0, "seed": 7, "resolution": 64}
    chosen |= {"prompt_template": "{generic} in {place}", **changes}
    model, vae, control = parts
    with torch.inference_mode():
        return nodes_negatives.MakeNegatives.execute(model, clip or Words(), vae, control, dataset, **chosen)[0]


def contents(dataset):
    return {record.image.name: [path.read_bytes() for path in record.negatives] for record in dataset.records}


@pytest.mark.long
def test_comfyuis_sampler_draws_negatives_that_stay_the_same_whatever_the_order(parts, images, comfy_folders):
    clip = Words()
    found = make(parts, images, clip)
    assert clip.seen[0] == "a farmer in nuvia" and "" in clip.seen
    assert all(len(set(files)) == 2 for files in contents(found).values())
    assert {Image.open(path).size for r in found.records for path in r.negatives} == {(64, 64)}
    assert all(
        path.is_relative_to(comfy_folders / "output/scoft/negatives") for r in found.records for path in r.negatives
    )
    first = contents(found)
    for path in [path for record in found.records for path in record.negatives]:
        path.unlink()
    assert contents(make(parts, images.replace(images.records[::-1]))) == first
    clip = Words()
    assert contents(make(parts, images, clip)) == first and clip.seen == []


def draw(parts, request, strength=1.0):
    """One request drawn by ComfyUI's sampler, two steps at 64 px."""
    model, vae, control = parts
    settings = NegativeSettings(len(request.seeds), 2, 2.0, strength, resolution=64)
    progress = SimpleNamespace(update=lambda done: None, total=9)
    with torch.inference_mode():
        return DepthSampler(model, Words(), vae, control, settings, progress)(request)


def hint(seed=0):
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_the_depth_map_holds_the_drawing_and_strength_zero_lets_go(parts):
    one, other = (Request(("a house",), (5,), hint(seed)) for seed in (0, 1))
    free, held = draw(parts, one, 0.0), draw(parts, one)
    assert torch.equal(free, draw(parts, other, 0.0))
    assert (held - free).abs().max() > 1e-3 and (held - draw(parts, other)).abs().max() > 1e-3
    assert held.shape == (1, 64, 64, 3) and held.min() >= 0 and held.max() <= 1


def test_a_negative_of_a_batch_is_the_one_it_is_alone(parts):
    both = draw(parts, Request(("a house", "two houses"), (5, 6), hint()))
    second = draw(parts, Request(("two houses",), (6,), hint()))
    assert (both[1] - second[0]).abs().max() < 0.01  # a batch of another size rounds otherwise
    assert (both[0] - both[1]).abs().max() > 0.1


def test_without_depth_the_node_says_what_to_connect(parts):
    with pytest.raises(ValueError, match="connect Estimate Depth before Make Negatives") as error:
        make(parts, load(nodes_data.SHIPPED, limit=1)[0])
    one_sentence(error)


def test_the_interrupt_stops_between_steps_and_the_next_run_goes_on(parts, images, comfy_folders, monkeypatch):
    whole = contents(make(parts, images))
    shutil.rmtree(comfy_folders / "output")
    asked = []

    def press_stop():
        asked.append(None)
        if len(asked) == 6:  # each image asks before, at each of its two steps, and after
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr("comfy_scoft.comfyui.depth_sampler.check_interrupt", press_stop)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            make(parts, images)
    assert len(list((comfy_folders / "output/scoft/negatives").rglob("*.png"))) == 2
    clip = Words()
    assert contents(make(parts, images, clip)) == whole
    assert len(clip.seen) == 3  # two prompts of the second image, and the empty one


def test_models_are_told_apart_by_weights_patches_and_schedule(parts):
    model, vae, control = parts

    def identity(model=model, vae=vae, control=control, clip=None):
        return DepthSampler(model, clip or Words(), vae, control, NegativeSettings(), None).identity()

    patched = model.clone()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    patched.add_patches({key: ("diff", (torch.ones(32, 24),))}, 0.5)
    stronger = model.clone()
    stronger.add_patches({key: ("diff", (torch.ones(32, 24),))}, 0.6)
    skipped = Words()
    skipped.layer_idx = -2
    others = [identity(patched), identity(stronger), identity(tiny_model("sd1", num_heads=8)), identity(clip=skipped)]
    others.append(identity(control=tiny_controlnet("sd2")))
    assert identity() == identity(model.clone(), control=control.copy())
    assert len({identity(), *others}) >= 5


def test_sizes_follow_the_model():
    assert (size_multiple(tiny_model("sd1")), size_multiple(tiny_model("sdxl"))) == (64, 32)
    widths = {768: 512, 2048: 1024, layout.CONTEXT: 64, 24: 512}
    for width, side in widths.items():
        model = SimpleNamespace(
            model=SimpleNamespace(model_config=SimpleNamespace(unet_config={"context_dim": width})),
            get_model_object=lambda name: None,
        )
        assert native_resolution(model) == side


def test_filtering_reports_and_returns_another_dataset(comfy_folders):
    dataset = from_images(batches((2, 8, 8)), ["a", "b"])
    same = [nodes_data.as_image(record.image) for record in dataset.records]
    (dataset,) = nodes_data.AttachNegatives.execute([dataset], same).args
    pixels = FeatureNetwork("pixels", torch.nn.Identity(), 8, (0.0,) * 3, (1.0,) * 3, lambda x: x)
    found, report, page = nodes_negatives.FilterNegatives.execute(dataset, pixels, 0.01).args
    assert report.startswith("0 of 2 negatives kept, 2 dropped") and page.ndim == 4
    assert [len(record.negatives) for record in found.records] == [0, 0]
    assert [len(record.negatives) for record in dataset.records] == [1, 1]
    (threshold,) = (one for one in nodes_negatives.FilterNegatives.define_schema().inputs if one.id == "threshold")
    assert (threshold.default, threshold.min) == (-1.0, -1.0), "the one that the distances suggest"
    dataset = from_images(batches((10, 8, 8)), list("abcdefghij"))
    others = [nodes_data.as_image(record.image) for record in dataset.records]
    (dataset,) = nodes_data.AttachNegatives.execute([dataset], [others[0], *others[2:], others[1]]).args
    found, report, _ = nodes_negatives.FilterNegatives.execute(dataset, pixels, threshold.default).args
    assert [len(record.negatives) for record in found.records] == [0, *[1] * 9] and "the suggested threshold" in report
