"""The filter of false negatives: which are dropped, what is said and shown, and the threshold it suggests."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from comfy_scoft.data.records import CultureRecord, Dataset
from comfy_scoft.features import FeatureNetwork
from comfy_scoft.negatives.filter import filter_negatives, suggest_threshold
from comfy_scoft.reports.plots import filter_page


def colors():
    """A feature network by hand: the color of the image's pixels; D is 1 − cosine of colors."""
    return FeatureNetwork("colours", nn.Identity(), 8, (0.0,) * 3, (1.0,) * 3, lambda x: x)


@pytest.fixture
def painted(tmp_path):
    """One red image with a red, an orange and a blue negative, and one green image without any."""

    def one(name, color):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
        return tmp_path / name

    negatives = (one("a.png", (255, 0, 0)), one("b.png", (255, 128, 0)), one("c.png", (0, 0, 255)))
    red = CultureRecord(one("red.png", (255, 0, 0)), "red", negatives=negatives)
    return Dataset(tmp_path, (red, CultureRecord(one("green.png", (0, 255, 0)), "green")), "colours")


def test_negatives_like_their_picture_are_dropped_and_named(painted):
    found = filter_negatives(painted, colors(), 0.05)
    assert [path.name for path in found.dataset.records[0].negatives] == ["b.png", "c.png"]
    assert found.dataset.records[1] == painted.records[1] and len(painted.records[0].negatives) == 3
    lines = found.report().splitlines()
    assert lines[0] == "2 of 3 negatives kept, 1 dropped"
    assert lines[1] == "Reason: closer than 0.05 to their own image, by colours"
    assert lines[-1] == "- red.png, negative 1: distance 0.000"
    distance = 1 - 255 / (255**2 + 128**2) ** 0.5
    assert f"half below {distance:.3f}, largest 1.000" in lines[2]


def test_a_record_may_lose_all_its_negatives_and_a_threshold_of_zero_keeps_all(painted):
    assert filter_negatives(painted, colors(), 0.0).dataset == painted
    found = filter_negatives(painted, colors(), 2.0)
    assert found.dataset.records[0].negatives == ()
    assert "Images left without negatives: 1 " in found.report()


@pytest.mark.parametrize("threshold", [-0.1, float("inf"), float("nan")])
def test_a_threshold_that_is_no_distance_is_one_sentence(painted, threshold):
    with pytest.raises(ValueError, match=r"^The threshold is .+, but no distance is below 0: [^.]+\.$"):
        filter_negatives(painted, colors(), threshold)


def test_nothing_to_filter_is_one_sentence(painted):
    with pytest.raises(ValueError, match=r"^The dataset has no negatives to filter: connect .+\.$"):
        filter_negatives(painted.replace(painted.records[1:]), colors(), 0.1)


def test_the_suggestion_lies_in_the_gap_below_tukeys_fence():
    crowd = [0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 0.64]
    # with 0.1 and 0.2: quartiles at 0.505 and 0.595, so the fence is at 0.505 − 1.5 · 0.09 = 0.37
    assert suggest_threshold([*crowd, 0.1, 0.2]) == pytest.approx((0.2 + 0.5) / 2)
    assert suggest_threshold([0.2, *reversed(crowd), 0.1]) == suggest_threshold([*crowd, 0.1, 0.2])
    assert suggest_threshold(crowd) is None
    assert suggest_threshold([0.5] * 20) is None
    assert suggest_threshold([0.0, *crowd[:6]]) is None  # too few to tell


def test_using_the_suggestion_drops_what_it_says(tmp_path):
    shades = [(255, 255 - 3 * n, 0) for n in range(9)] + [(9, 0, 255)]  # nine near yellow, one blue like the image
    files = []
    for n, color in enumerate([(0, 0, 255), *shades]):
        files.append(tmp_path / f"{n}.png")
        Image.new("RGB", (8, 8), color).save(files[-1])
    dataset = Dataset(tmp_path, (CultureRecord(files[0], "blue", negatives=tuple(files[1:])),), "one")
    first = filter_negatives(dataset, colors(), 0.0)
    assert first.dropped() == [] and "which 1 distances far below the others come under" in first.report()
    second = filter_negatives(dataset, colors(), first.suggestion)
    assert [c.path for c in second.dropped()] == [files[-1]]
    assert [c.distance for c in second.kept()] == sorted(c.distance for c in second.kept())
    usual = filter_negatives(dataset, colors())
    assert usual.dataset == second.dataset and usual.threshold == first.suggestion
    assert usual.report().splitlines()[1].endswith("to their own image, by colours, the suggested threshold")


def test_where_the_distances_suggest_no_threshold_all_negatives_stay(painted):
    found = filter_negatives(painted, colors())  # three are too few to tell
    assert found.dataset == painted and found.suggestion is None and "suggested" not in found.report().splitlines()[1]


def test_the_page_shows_dropped_pictures_beside_their_own_and_grows_with_them(painted):
    network = colors()
    few, all_ = (filter_page(filter_negatives(painted, network, threshold)) for threshold in (0.05, 2.0))
    for page in (few, all_):
        assert page.dtype == torch.float32 and page.ndim == 3 and 0 <= page.min() and page.max() <= 1

    def area(page, color):
        return int((page - torch.tensor(color)).abs().amax(-1).lt(0.01).sum())

    tile = 120 * 120
    assert area(few, (1.0, 0.0, 0.0)) == 4 * tile  # the image in each of three pairs, and the red negative
    assert area(few, (0.0, 0.0, 1.0)) == area(few, (1.0, 128 / 255, 0.0)) == tile
    one = filter_page(filter_negatives(painted, network, 0.05), most=1)
    assert area(one, (0.0, 0.0, 1.0)) == 0 and area(one, (1.0, 128 / 255, 0.0)) == tile
