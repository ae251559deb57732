"""Caption Generically and Estimate Depth in ComfyUI: where weights are looked for, the interrupt, edited files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfy_inprocess import start
from model_folders import blip_folder, depth_anything_folder, dpt_folder
from PIL import Image

comfy = start()
import folder_paths  # noqa: E402

from comfy_scoft.comfyui import network_folders  # noqa: E402
from comfy_scoft.comfyui.nodes import captions as nodes_captions  # noqa: E402
from comfy_scoft.comfyui.nodes import data as nodes_data  # noqa: E402
from comfy_scoft.comfyui.nodes import negatives as nodes_negatives  # noqa: E402
from comfy_scoft.data.captions import CAPTIONERS  # noqa: E402
from comfy_scoft.data.dataset import load_folder  # noqa: E402
from comfy_scoft.mini_world import COMMUNITY  # noqa: E402
from comfy_scoft.models.hub import FolderLoader  # noqa: E402
from comfy_scoft.negatives.depth import DEPTH, MIDAS  # noqa: E402

ANYTHING = "Depth Anything V2 (transformers)"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> Path:
    """ComfyUI's output, temp and models folders, empty."""
    for name in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    return tmp_path


def community(limit: int = 3):
    dataset = load_folder(COMMUNITY, split="train", limit=limit)[0]
    return dataset.replace(record.__class__(**{**vars(record), "generic_captions": ()}) for record in dataset.records)


def caption(dataset, **more):
    with torch.inference_mode():
        return nodes_captions.CaptionGeneric.execute(dataset, "BLIP", 2, overwrite=False, **more).args


def test_the_node_describes_pictures_and_the_dataset_can_be_saved_with_them(folders):
    blip_folder(folders / "models/captioners/blip-image-captioning-base")
    dataset = community()
    found, report = caption(dataset)
    assert [len(record.generic_captions) for record in found.records] == [2, 2, 2]
    assert report.startswith("3 of 3 images captioned by BLIP, 3 of them newly")
    assert caption(dataset, batch_size=1)[0] == found and caption(found)[1].startswith("0 of 3 images")
    assert all(record.generic_captions == () for record in dataset.records)
    saved = nodes_data.SaveDataset.execute(found, "described")[0]
    lines = (saved.root / "train/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["blip_text"] for line in lines] == [list(r.generic_captions) for r in found.records]


def test_the_node_runs_again_when_a_caption_file_was_edited_and_not_because_it_ran(folders):
    blip_folder(folders / "models/blip/base")
    before = nodes_captions.CaptionGeneric.fingerprint_inputs()
    caption(community(1))
    assert nodes_captions.CaptionGeneric.fingerprint_inputs() == before
    (file,) = (folders / "output/scoft/captions").iterdir()
    file.write_text(file.read_text(encoding="utf-8") + "a third one\n", encoding="utf-8")
    assert nodes_captions.CaptionGeneric.fingerprint_inputs() != before
    assert caption(community(1))[0].records[0].generic_captions[2] == "a third one"


def test_the_interrupt_stops_between_words(folders, monkeypatch):
    blip_folder(folders / "models/captioners/base")
    asked = []

    def press_stop():
        asked.append(None)
        if len(asked) == 2:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(nodes_captions, "check_interrupt", press_stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        caption(community(1))
    assert not (folders / "output/scoft/captions").exists()


def test_menus_list_fitting_folders_of_this_computer_and_what_can_be_downloaded(folders):
    models = folders / "models"
    blip_folder(models / "LLM/nested/blip-large")
    dpt_folder(models / "depth_estimators/dpt-hybrid-midas")
    (models / "captioners/other").mkdir(parents=True)
    (models / "captioners/other/config.json").write_text('{"model_type": "florence2"}', encoding="utf-8")
    (models / "captioners/other/model.safetensors").write_bytes(b"")
    found = network_folders.choices("captioners", CAPTIONERS)
    assert found[:2] == ["automatic", "LLM/nested/blip-large"]
    assert found[2:] == [
        "download Salesforce/blip-image-captioning-base",
        "download Salesforce/blip-image-captioning-large",
    ]
    depth = network_folders.choices("depth_estimators", DEPTH)
    assert "depth_estimators/dpt-hybrid-midas" in depth and "download lllyasviel/Annotators" in depth


def test_a_kind_named_in_extra_model_paths_is_searched_too(folders):
    blip_folder(folders / "elsewhere/mine/base")
    folder_paths.add_model_folder_path("captioners", str(folders / "elsewhere/mine"))
    assert "mine/base" in network_folders.choices("captioners", CAPTIONERS)
    assert caption(community(1), weights="mine/base")[1].startswith("1 of 1")


def test_without_weights_the_sentence_says_what_to_put_where(folders):
    with pytest.raises(ValueError, match=r"^BLIP is not in ComfyUI's models/captioners folder: put .+ download it\.$"):
        caption(community(1))
    for entry in ("../../etc", "captioners/none", "download somebody/else", "/"):
        with pytest.raises(ValueError, match=r"does not hold BLIP: choose 'automatic', or another entry of .*\.$"):
            caption(community(1), weights=entry)
    assert network_folders.find("depth_estimators", DEPTH, "relief (mini)", "automatic") is None


def test_nothing_is_downloaded_unless_its_entry_is_chosen(folders, monkeypatch):
    asked = []
    local = blip_folder(folders / "cache")
    monkeypatch.setattr(FolderLoader, "download", lambda self, name: asked.append(name) or local)
    with pytest.raises(ValueError):
        caption(community(1))
    assert asked == []
    assert caption(community(1), weights="download Salesforce/blip-image-captioning-base")[1].startswith("1 of 1")
    assert asked == ["Salesforce/blip-image-captioning-base"]


def test_a_failed_download_is_one_sentence(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        ValueError, match=r"^lllyasviel/Annotators could not be fetched from the hub \(ConnectionError\)"
    ):
        MIDAS.download("lllyasviel/Annotators")


def estimate(dataset, name, **more):
    with torch.inference_mode():
        return nodes_negatives.EstimateDepth.execute([dataset], [name], **more).args[0]


def test_depth_comes_from_a_network_in_a_folder(folders):
    depth_anything_folder(folders / "models/depth_estimators/small")
    found = estimate(community(2), ANYTHING)
    maps = [Image.open(record.depth) for record in found.records]
    assert [m.size for m in maps] == [Image.open(r.image).size for r in found.records]
    assert [m.getextrema() for m in maps] == [(0, 255), (0, 255)]
    assert estimate(community(2), ANYTHING, weights=["depth_estimators/small"]) == found


def test_depth_images_of_a_graph_take_the_networks_place(folders):
    dataset = community(2)
    batches = [torch.full((1, 32, 32, 3), 0.2), torch.full((1, 64, 64, 3), 0.6)]
    found = estimate(dataset, ANYTHING, depth_images=batches)  # a list, sizes may differ; no weights are needed
    assert [Image.open(record.depth).getextrema() for record in found.records] == [(51, 51), (153, 153)]
    assert estimate(dataset, ANYTHING, depth_images=[torch.full((2, 32, 32, 3), 0.2)]).records[1].depth is not None
    with pytest.raises(ValueError, match=r"^There are 1 depth images for 2 records: "):
        estimate(dataset, ANYTHING, depth_images=batches[:1])
