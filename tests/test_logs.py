"""What ends up in the log: a second copy of the pack is named, and libraries' notes on themselves are not there."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
from pathlib import Path

import pytest

pytest.importorskip("comfy.sd")

import nodes  # noqa: E402  (ComfyUI's)
from diffusers import AutoencoderTiny  # noqa: E402

from comfy_scoft.comfyui.nodes.training import TrainLora  # noqa: E402
from comfy_scoft.common.logs import errors_only  # noqa: E402
from comfy_scoft.training.job_models import stored  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def test_a_second_copy_of_the_pack_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = str(ROOT / "__init__.py")
    spec = importlib.util.spec_from_file_location("second_copy", place, submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "second_copy", copy)
    spec.loader.exec_module(copy)
    extension = asyncio.run(copy.comfy_entrypoint())
    own = {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}
    assert not [r for r in caplog.records if "installed twice" in r.message]

    monkeypatch.setattr(TrainLora, "RELATIVE_PYTHON_MODULE", "custom_nodes.comfy_scoft-main", raising=False)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SCoFT_TrainLora", TrainLora)  # of another copy: another class
    asyncio.run(extension.get_node_list())
    (line,) = [r.getMessage() for r in caplog.records if "installed twice" in r.message]
    assert f"in comfy_scoft-main and {ROOT.name}: remove one" in line

    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "SCoFT_TrainLora", own["SCoFT_TrainLora"])
    caplog.clear()
    asyncio.run(extension.get_node_list())  # called again by the same copy
    assert not caplog.records


def test_a_stored_autoencoder_is_loaded_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    AutoencoderTiny(latent_channels=4).save_pretrained(tmp_path / "vae")
    library = logging.getLogger("diffusers")
    library.addHandler(caplog.handler)
    try:
        AutoencoderTiny.from_pretrained(tmp_path / "vae", local_files_only=True)
        assert "not expected" in caplog.text, "diffusers says nothing any more: drop errors_only"
        caplog.clear()
        stored(tmp_path, "vae", "AutoencoderTiny")
        assert not caplog.text
    finally:
        library.removeHandler(caplog.handler)


def test_only_warnings_are_kept_out_and_only_inside(caplog: pytest.LogCaptureFixture) -> None:
    part = logging.getLogger("some_library.part")
    with errors_only("some_library"):
        part.warning("cannot do something else")
        part.error("broken")
    part.warning("afterwards")
    assert [record.getMessage() for record in caplog.records] == ["broken", "afterwards"]
