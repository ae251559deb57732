"""`survey`: the page from folders of images, and the report from the answer files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from survey_answers import EXAMPLE
from survey_toys import image_sets

from comfy_scoft.__main__ import main
from comfy_scoft.data.images import write_png
from comfy_scoft.metrics.image_set import ImageSet
from comfy_scoft.survey.folders import sets_of_folders
from comfy_scoft.survey.spec import from_json


def written(
    sets: list[ImageSet], folder: Path, captions: bool = True, form: str = "{label}/{i:03}.png"
) -> dict[str, Path]:
    """Each set as a folder; the prompts lie beside the images of the first one."""
    for number, each in enumerate(sets):
        for i, image in enumerate(each.images):
            path = folder / form.format(label=each.label, i=i)
            write_png(image, path)
            if captions and number == 0:
                path.with_suffix(".txt").write_text(each.prompts[i], encoding="utf-8")
    return {each.label: (folder / form.format(label=each.label, i=0)).parent for each in sets}


def test_folders_of_images_are_the_sets_that_they_were_written_from(tmp_path: Path) -> None:
    sets = image_sets(3, seeds=2)
    found = sets_of_folders(written(sets, tmp_path))
    for one, other in zip(found, sets, strict=True):
        assert (one.label, one.prompts) == (other.label, other.prompts)
        assert torch.allclose(one.images, other.images, atol=0.6 / 255)
    assert found[0].seeds == found[1].seeds == (0, 1) * 4, "images of one prompt are told apart"


def test_images_of_one_name_belong_together_however_its_accents_are_composed(tmp_path: Path) -> None:
    one, other = image_sets(2)
    written([one], tmp_path, form="{label}/caf\u00e9{i:03}.png")
    written([other], tmp_path, captions=False, form="{label}/cafe\u0301{i:03}.png")
    found = sets_of_folders({each.label: tmp_path / each.label for each in (one, other)})
    assert [each.prompts for each in found] == [one.prompts, one.prompts]


def test_ten_comes_after_two_and_what_macos_adds_is_no_image(tmp_path: Path) -> None:
    """Whose names have no zeros in front would else get each other's prompts."""
    one, other = image_sets(2, seeds=3)
    assert len(one.prompts) == 12
    written([one], tmp_path, captions=False, form="{label}/{i}.png")
    written([other], tmp_path, captions=False, form="{label}/{i:03}.PNG")
    (tmp_path / one.label / "._0.png").write_bytes(b"AppleDouble")
    found = sets_of_folders({each.label: tmp_path / each.label for each in (one, other)}, one.prompts)
    for read, original in zip(found, (one, other), strict=True):
        assert torch.allclose(read.images, original.images, atol=0.6 / 255)
    again = {label: tmp_path / label for label in (one.label, other.label)}
    for path in again[other.label].iterdir():
        path.rename(path.with_name(f"IMG {int(path.stem)}.PNG"))
    for path in again[one.label].glob("[0-9]*"):
        path.rename(path.with_name(f"img {path.stem}.png"))
        path.with_name(f"img {path.stem}.txt").write_text(one.prompts[int(path.stem)])
    assert sets_of_folders(again)[1].prompts == one.prompts, "however their case is written"


def test_prompts_in_a_file_let_names_differ(tmp_path: Path) -> None:
    sets = image_sets(2)
    folders = written(sets, tmp_path, captions=False, form="{label}/{label}_{i:05}_.png")
    assert sets_of_folders(folders, sets[0].prompts)[1].prompts == sets[0].prompts
    with pytest.raises(ValueError, match="There are 1 prompts for 4 images of a folder"):
        sets_of_folders(folders, ["one"])
    with pytest.raises(ValueError, match="hold 4 and 4 images, or images of other names"):
        sets_of_folders(folders)


def test_folders_that_do_not_belong_together_are_refused_in_a_sentence(tmp_path: Path) -> None:
    folders = written(image_sets(2), tmp_path / "bare", captions=False)
    with pytest.raises(ValueError, match=r"4 image\(s\) have no prompt \('000' is the first\)"):
        sets_of_folders(folders)
    write_png(torch.zeros(8, 8, 3), folders["generator-beta"] / "003.png")
    with pytest.raises(ValueError, match="003.png in 'generator-beta' is 8 × 8 pixels, but the first image is 64 × 64"):
        sets_of_folders(folders, ["a"] * 4)
    (tmp_path / "empty").mkdir()
    for missing, sentence in ((tmp_path / "empty", "holds no image"), (tmp_path / "no", "There is no folder")):
        with pytest.raises(ValueError, match=sentence):
            sets_of_folders({"base": missing})


def test_the_command_line_builds_the_page_and_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = written(image_sets(2), tmp_path)
    given = [f"{label}={folder}" for label, folder in zip(("base", "工作"), folders.values(), strict=True)]
    out, title = (
        str(tmp_path / "surveys"),
        ["--title", "한국의 시장?", "--culture", "Korean culture", "--language", "ko"],
    )
    assert main(["survey", "build", *given, "--out", out, *title]) == 0
    page, count = capsys.readouterr().out.splitlines()
    assert page == str(tmp_path / "surveys" / "한국의-시장.html") and count.startswith("5 pages, 4 questions, ")
    key = from_json(json.loads(Path(page).with_suffix(".survey.json").read_text(encoding="utf-8")))
    assert key.generators == ("base", "工作") and key.language == "ko" and "Korean culture" in Path(page).read_text()
    assert {each.prompt for each in key.pages} == set(image_sets(2)[0].prompts)
    for wrong, sentence in (
        (given[:1], "1 model(s) cannot be ranked: give LABEL=FOLDER for each of 2 to 6 models."),
        ([given[0], given[0]], "write LABEL=FOLDER, each label once."),
        (["folder"], "'folder' is not a model and its folder"),
        ([*given, "--pages", "9"], "asks for 9 pages, but the sets hold 4"),
        ([*given, "--prompts", str(tmp_path / "no.txt")], "cannot be read: give a text file in UTF-8."),
    ):
        assert main(["survey", "build", *wrong, "--out", out]) == 1 and sentence in capsys.readouterr().err


@pytest.mark.long
def test_the_command_line_reports_a_folder_of_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["survey", "report", str(EXAMPLE), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("24 answer files read") and any("24 people" in line for line in lines)
    page, scores = map(Path, lines[-2:])
    assert "<img" in page.read_text(encoding="utf-8") and scores.read_text(encoding="utf-8").startswith("name,group,")
    assert main(["survey", "report", str(tmp_path / "no")]) == 1
    assert "give the one with the participants' files" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["survey", "report", str(tmp_path / "empty")]) == 1
    assert "holds no answer file" in capsys.readouterr().err
