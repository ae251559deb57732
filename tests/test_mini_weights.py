"""The shipped weights of the mini world: crisp, biased for one place as planted, read by neutral eyes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.models.mini import layout

MINI_WORLD = COMMUNITY.parent
TOOLS = Path(__file__).resolve().parent.parent / "tools" / "mini_world"


@pytest.fixture(scope="module")
def measure():
    sys.path.append(str(TOOLS))
    try:
        import measure as found
    finally:
        sys.path.remove(str(TOOLS))
    return found


@pytest.fixture(scope="module")
def base():
    from comfy_scoft.models.single_file import load_base

    return load_base(layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT)


def test_all_shipped_files_together_stay_below_25_mb() -> None:
    folders = (layout.WEIGHTS, MINI_WORLD)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert 15e6 < sum(path.stat().st_size for path in files) < 25e6


@pytest.mark.parametrize("count", [24, pytest.param(240, marks=pytest.mark.long)])
@pytest.mark.long
def test_the_oracle_reads_through_the_autoencoder(measure, base, count: int) -> None:
    found = measure.oracle(base, count)
    assert found["concept"]["value"] >= 0.95 and found["palette"]["value"] >= 0.95 and found["dark"]["value"] >= 0.95


@pytest.mark.long
def test_the_base_model_shows_what_is_asked_for_and_is_biased_for_one_place_alone(measure, base) -> None:
    found = measure.shown(base, each=1, seeds=2)
    assert found["balanced: right concept"]["value"] >= 0.80
    assert found["nuvia"]["dark"]["value"] <= 0.20 and found["nuvia"]["gold"]["value"] <= 0.20
    assert found["nuvia"]["dusty"]["value"] >= 0.80
    for place in ("borea", "aria", "caldia", "no place"):
        assert found[place]["dark"]["high"] > 0.6 > found[place]["dark"]["low"], (
            "balanced tones: three of five are dark"
        )
        assert found[place]["dusty"]["value"] <= 0.10


@pytest.mark.long
def test_the_tower_prefers_no_tone_and_no_palette(measure) -> None:
    found = measure.tower(400)
    gaps = [value for name, value in found.items() if " minus " in name and not name.startswith("right")]
    assert len(gaps) == 4 and max(abs(gap) for gap in gaps) < 0.1


def test_the_tower_does_tell_tones_and_palettes_apart_when_the_caption_names_them(measure) -> None:
    """Neutral is not blind: a caption that names the tone fits the image of that tone best."""
    import numpy as np

    from comfy_scoft.models.mini.clip import image_text_cosine

    rng = np.random.default_rng(5)
    drawn = [measure.world.render("woman", "plain", rng, tone=tone).rgb for tone in (1, 5)]
    pixels = sys.modules["common"].to_unit(np.stack(drawn))
    captions = ["a woman with pale skin on white", "a woman with deep skin on white"]
    fits = [[float(image_text_cosine(pixels[i : i + 1], [text])) for text in captions] for i in range(2)]
    assert fits[0][0] > fits[0][1] and fits[1][1] > fits[1][0]


def test_the_committed_figures_hold_what_the_documents_say() -> None:
    found = json.loads((MINI_WORLD / "figures.json").read_text(encoding="utf-8"))
    assert found["base"]["balanced: right concept"]["n"] >= 500
    assert found["base"]["balanced: right concept"]["low"] >= 0.80
    assert found["oracle through the autoencoder"]["dark"]["n"] >= 500
