"""Plots are images with the right content: never an exception, never a number that the data does not hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfy_scoft.data.records import CATEGORIES, CultureRecord, Dataset
from comfy_scoft.metrics.scores import Score
from comfy_scoft.reports import plots
from comfy_scoft.reports.plots import charts, tables
from comfy_scoft.reports.plots.canvas import ELLIPSIS, Page, text_width, tile, wrap

LONG = "a person who stands in a very long caption that never seems to find its end, costs $5 and $6, " * 9


def is_image(image: torch.Tensor) -> bool:
    assert image.dtype == torch.float32 and image.ndim == 3 and image.shape[2] == 3
    assert 0.0 <= float(image.min()) and float(image.max()) == 1.0
    assert float(image.min()) < 0.3, "an empty page"
    return True


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six images of six flat colors; the first has a depth map and two negatives, the second one."""
    colors = [(255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 0, 255), (0, 255, 255), (120, 60, 0)]
    files = []
    for i, color in enumerate(colors):
        files.append(tmp_path / f"{i}.png")
        Image.new("RGB", (64, 64), color).save(files[-1])
    records = [
        CultureRecord(files[i], f"image {i}", ("an image",), "nuvia", "nuvia", CATEGORIES[i % 2], era)
        for i, era in enumerate(["traditional", "modern", "modern"])
    ]
    records[0] = replace(records[0], negatives=(files[3], files[4]), depth=files[5])
    records[1] = replace(records[1], negatives=(files[3],))
    return Dataset(tmp_path, tuple(records), "six colors")


def pixels_of(image: torch.Tensor, color: tuple[int, int, int]) -> int:
    return int(((image * 255 - torch.tensor(color)).abs().amax(2) < 1).sum())


def test_contact_sheet_shows_every_picture_whole(dataset: Dataset) -> None:
    image = plots.contact_sheet(dataset)
    assert is_image(image)
    area = 128 * 128
    counts = [pixels_of(image, c) for c in [(255, 0, 0), (0, 200, 0), (0, 0, 255), (120, 60, 0), (0, 255, 255)]]
    assert counts == [area] * 5
    assert pixels_of(image, (255, 0, 255)) == 2 * area


def test_contact_sheet_keeps_to_its_limits(dataset: Dataset) -> None:
    image = plots.contact_sheet(dataset, limit=1, negatives=1)
    assert pixels_of(image, (255, 0, 255)) == 128 * 128
    assert pixels_of(image, (0, 255, 255)) == pixels_of(image, (0, 200, 0)) == 0


@pytest.mark.parametrize("caption", [LONG, "x" * 3000, "", "$", "a\nb\tc\x00", "노비아의 학생", "मकान", "🏠 בית"])
def test_contact_sheet_bears_any_caption(dataset: Dataset, caption: str) -> None:
    records = [replace(dataset.records[2], caption=caption, generic_captions=(caption,), category=caption[:80])]
    image = plots.contact_sheet(replace(dataset, name=caption[:80]).replace(records))
    assert is_image(image)
    assert float(image[:, -18:].min()) == 1.0, "words reach the page's edge"


def test_contact_sheet_of_nothing_says_so(dataset: Dataset) -> None:
    assert is_image(plots.contact_sheet(dataset.replace([])))


def test_contact_sheet_goes_on_where_pictures_cannot_be_read_and_names_all_of_them(dataset: Dataset) -> None:
    whole = plots.contact_sheet(dataset)
    dataset.records[1].image.write_bytes(b"not a picture")
    dataset.records[0].negatives[1].unlink()
    unreadable: list[str] = []
    image = plots.contact_sheet(dataset, unreadable=unreadable)
    assert is_image(image) and image.shape == whole.shape
    assert ["4.png is not in" in unreadable[0], "1.png is not an image" in unreadable[1]] == [True, True]
    assert len(unreadable) == 2 and pixels_of(image, (0, 200, 0)) == pixels_of(image, (0, 255, 255)) == 0
    assert pixels_of(image, (255, 0, 0)) == pixels_of(image, (0, 0, 255)) == 128 * 128


def test_count_table_counts_the_dataset(dataset: Dataset) -> None:
    columns, rows = tables.count_rows(dataset)
    assert columns == [*CATEGORIES, "total"]
    rest = [0] * 7
    assert rows == [
        ("nuvia", "traditional", [1, 0, *rest, 1]),
        ("nuvia", "modern", [1, 1, *rest, 2]),
        ("nuvia", "total", [2, 1, *rest, 3]),
    ]
    assert is_image(plots.count_table(dataset))


def test_count_table_leaves_no_record_out(dataset: Dataset) -> None:
    odd = replace(dataset.records[0], culture="borea", era="", category="prosthetics")
    bare = replace(dataset.records[0], culture="", category="")
    wider = dataset.replace([*dataset.records, odd, bare])
    columns, rows = tables.count_rows(wider)
    assert columns == [*CATEGORIES, "prosthetics", "not said", "total"]
    cells = {(culture, era): values for culture, era, values in rows}
    assert cells["borea", "not said"][-3:] == [1, 0, 1]
    assert cells["not said", "traditional"][-3:] == [0, 1, 1]
    assert cells["all", "total"] == [2, 1, *[0] * 7, 1, 1, 5]
    assert plots.count_table(wider).shape[1] > plots.count_table(dataset).shape[1]


def test_count_table_prints_the_numbers_it_counted(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(Page, "text", lambda self, x, y, text, *args, **look: printed.append(text))
    plots.count_table(dataset.replace([*dataset.records * 7]))
    assert printed.count("21") == 1 and printed.count("14") == 2 and printed.count("7") == 5


def test_count_table_of_nothing_says_so(dataset: Dataset) -> None:
    assert is_image(plots.count_table(dataset.replace([])))


def color_image(r: float, g: float, b: float, side: int = 64) -> torch.Tensor:
    return torch.tensor([r, g, b]).expand(side, side, 3)


def test_compare_grid_puts_each_set_in_its_row_and_each_prompt_in_its_column() -> None:
    base = torch.stack([color_image(1, 0, 0), color_image(0, 1, 0)])
    ours = [color_image(0, 0, 1), color_image(1, 1, 0, side=200)]
    image = plots.compare_grid([("base", base), ("ours", ours)], ["a farmer", LONG], [3, 4], title=LONG)
    assert is_image(image)

    def middle(color: tuple[int, int, int]) -> tuple[float, float]:
        hits = ((image * 255 - torch.tensor(color)).abs().amax(2) < 1).nonzero().float()
        assert len(hits) == 128 * 128
        return tuple(hits.mean(0).tolist())

    red, green, blue, yellow = middle((255, 0, 0)), middle((0, 255, 0)), middle((0, 0, 255)), middle((255, 255, 0))
    assert red[0] == green[0] < blue[0] == yellow[0]
    assert red[1] == blue[1] < green[1] == yellow[1]


def test_compare_grid_shows_no_more_than_asked() -> None:
    images = torch.rand(30, 16, 16, 3)
    prompts, seeds = ["a"] * 30, list(range(30))
    assert plots.compare_grid([("x", images)], prompts, seeds, columns=4).shape[1] < 800
    assert is_image(plots.compare_grid([(LONG, images[:1])], [""], [0]))


def test_compare_grid_refuses_sets_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"'b' has 1 images for 2 prompts and 2 seeds"):
        plots.compare_grid([("a", torch.zeros(2, 8, 8, 3)), ("b", torch.zeros(1, 8, 8, 3))], ["x", "y"], [0, 1])
    with pytest.raises(ValueError, match="nothing to compare"):
        plots.compare_grid([], [], [])


def training_rows(count: int) -> list[dict]:
    rows = [{"step": k + 1, "diffusion": 1 / (k + 1), "grad_norm": 2.0, "learning_rate": 1e-4} for k in range(count)]
    for row in rows[::10]:
        row.update(contrastive=0.5, kappa=-0.01 * row["step"])
    return rows


@pytest.mark.parametrize("count", [1, 12, 200])
def test_loss_chart_has_a_panel_for_every_term(count: int) -> None:
    image = plots.loss_chart(training_rows(count))
    assert is_image(image)
    assert charts.term_names(training_rows(count)) == ["diffusion", "contrastive"]
    assert image.shape[0] == 54 + 2 * 250  # five panels, three abreast
    alone = plots.loss_chart([{"step": k, "diffusion": 1.0} for k in range(count)])
    assert alone.shape[0] == 54 + 250


def test_loss_chart_plots_what_was_logged_and_no_more() -> None:
    rows = [
        {"step": 1, "loss": 2.0, "kappa": [-1.0, -3.0]},
        {"step": 2, "loss": float("nan"), "kappa": None},
        {"step": 3, "loss": 4.0},
    ]
    steps, values = charts.series(rows, "loss")
    assert steps.tolist() == [1, 3] and values.tolist() == [2.0, 4.0]
    steps, values = charts.series(rows, "kappa")
    assert steps.tolist() == [1] and values.tolist() == [-2.0]
    assert is_image(plots.loss_chart(rows))


def test_loss_chart_of_nothing_says_so() -> None:
    assert is_image(plots.loss_chart([]))
    assert is_image(plots.loss_chart([{"step": 1, "loss": float("nan")}], title=LONG))


def test_running_mean_keeps_the_mean_and_the_ends() -> None:
    assert charts.smoothed(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    values = np.arange(11.0)
    assert charts.smoothed(values)[5] == pytest.approx(5.0)
    assert charts.smoothed(values)[0] == pytest.approx(0.5)  # the mean of 0 and 1


def test_score_table_prints_figures_intervals_counts_and_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    scores = [
        Score("dark in nuvia", "base", 0.05, 0.021, 0.118, 100),
        Score("dark in nuvia", "SCoFT", 0.9, 0.826, 0.945, 100),
        Score("KID", "base", 0.0176, 0.0153, 0.0199, 50, note="lower is better"),
        Score("KID", "+M", 0.02, 0.0153, 0.0247, 50, note="lower is better"),
    ]
    assert is_image(plots.score_table(scores, "Scores", [LONG]))
    monkeypatch.setattr(Page, "text", lambda self, x, y, text, *args, **look: printed.append(text))
    plots.score_table(scores)
    for text in ("0.05", "[0.02, 0.12]", "0.90", "0.018", "[0.015, 0.020]  n 50", "–", "base", "SCoFT"):
        assert text in printed, text
    assert printed.count("n 100") == 2 and printed.count("lower is better") == 1


def test_score_table_bars_grow_with_the_share() -> None:
    def blue(value: float) -> int:
        return pixels_of(plots.score_table([Score("a", "g", value, value, 1.0, 10)]), (0, 114, 178))

    assert blue(0.0) == 0 and 0 < blue(0.25) < blue(0.5) < blue(1.0)


def test_score_table_bears_missing_figures() -> None:
    nan = float("nan")
    scores = [
        Score(LONG, LONG, nan, nan, nan, 0),
        Score("b", "g", -1e-9, nan, nan, 1),
        Score("c", "", 1e12, 1, 2e12, 3),
    ]
    assert is_image(plots.score_table([]))
    assert is_image(plots.score_table(scores))
    with pytest.raises(ValueError, match="two metrics for 'a' in 'g'"):
        plots.score_table([Score("a", "g", 1, 1, 1, 1), Score("a", "g", 2, 2, 2, 1)])


def test_decimals_follow_the_narrowest_interval() -> None:
    assert tables.decimals_of([Score("a", "g", 0.5, 0.45, 0.55, 9), Score("a", "h", 0.5, 0.2, 0.8, 9)]) == 2
    assert tables.decimals_of([Score("a", "g", 250.0, 210.0, 290.0, 9)]) == 0
    assert tables.decimals_of([Score("a", "g", 2.0, 2.0, 2.0, 9)]) is None


@pytest.mark.parametrize("text", [LONG, "x" * 900, "노비아의 학생 " * 60, "short", ""])
def test_wrapped_lines_fit(text: str) -> None:
    lines = wrap(text, 200, 3, 14)
    assert 1 <= len(lines) <= 3 and all(text_width(line, 14) <= 200 for line in lines)
    complete = " ".join(lines) == " ".join(text.split())
    assert complete or lines[-1].endswith(ELLIPSIS)


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert (tile(image, 128)[::2, 1::2] == image).all()
    wide = tile(np.zeros((50, 100, 3)), 128)
    assert wide.shape == (128, 128, 3) and (wide[64] == 0).all() and (wide[0] > 200).all()
