"""What is said of names, captions and errors from outside: one printable line, never too long, and no machine path."""

from __future__ import annotations

import csv
import inspect
import json
import os
import pickle
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy_inprocess as tiny
import pydantic
import pytest
from bad_data import noise
from comfy_server import ComfyServer
from test_comfy_server import IMAGE

tiny.start()

from comfy_api.latest import io  # noqa: E402  (needs a started ComfyUI)

from comfy_scoft.comfyui import widgets  # noqa: E402
from comfy_scoft.comfyui.nodes.survey import EXAMPLE  # noqa: E402
from comfy_scoft.common.errors import NonFiniteLoss, OtherProcess, UserError, reworded  # noqa: E402
from comfy_scoft.common.text import JOINERS, MESSAGE, cell, printable, sentence, without_folders  # noqa: E402
from comfy_scoft.data.dataset import load_folder  # noqa: E402
from comfy_scoft.data.download.links import InvalidRow  # noqa: E402
from comfy_scoft.data.download.report import report_csv  # noqa: E402
from comfy_scoft.experiments.comfy_client import ComfyError  # noqa: E402
from comfy_scoft.features import load_features  # noqa: E402
from comfy_scoft.losses import PerceptualLoss  # noqa: E402
from comfy_scoft.metrics.scores import Score, Scores  # noqa: E402
from comfy_scoft.survey.responses import read_key  # noqa: E402
from comfy_scoft.survey.spec import KEY_ENDING  # noqa: E402

OLD_ZIP = os.fsdecode("한국 사진".encode("cp949"))
"""A file name from a Korean zip of the nineties, as Linux shows it: bytes that are not UTF-8, as lone surrogates."""
NASTY = f"{OLD_ZIP}\u202e\x1b[31m\n\x00"


def shown_to_all(text: str, most: int = MESSAGE) -> None:
    text.encode()
    assert all(c.isprintable() or c in JOINERS for c in text) and 0 < len(text) <= most, text[:300]


def test_text_is_made_one_printable_line_and_letters_of_every_script_stay() -> None:
    for good in ("Kora", "हिन्दी", "क्‍ष", "می‌خواهم", "ไทย", "한국", "食べ物 №1", "👩🏽‍🌾"):
        assert printable(good) == sentence(good) == good
    assert printable("美\u3000食\xa0x\r\n\ty") == "美 食 x y"  # blanks of any kind are blanks
    assert printable("a\x00b\u202ec\ud800d\x7f") == "a?b?c?d?"
    assert printable("x" * 81) == "x" * 79 + "…" and printable(Path("a/b")) == "a/b"
    assert sentence("x" * 200_000 + ": make it shorter.").endswith(": make it shorter.")
    shown_to_all(sentence(NASTY * 10_000))


@pytest.mark.parametrize(
    "text, clean",
    [
        ("/home/kim/comfy/input/food set/a.png is damaged", "input/food set/a.png is damaged"),
        ("No such file: '/home/kim/.cache/torch/x.pt'", "No such file: 'x.pt'"),
        ("/home/kim", "~"),
        ("/home/kimberley/a/b.txt", "b.txt"),
        ("PosixPath('/mnt/data/models/vae.pt')", "PosixPath('vae.pt')"),
        ("--out=/srv/x/y.png, then", "--out=y.png, then"),
        ("C:\\Users\\Kim Lee\\x.png", "Kim Lee\\x.png"),
        ("'D:\\\\ComfyUI\\\\input\\\\a.png'", "'a.png'"),
        ("open('E:\\\\Kim Lee\\\\input\\\\a b.png') or E:/Kim Lee/input/c", "open('input\\\\a b.png') or input/c"),
        ("\\\\nas\\share\\a.png", "a.png"),
        ("\\\\?\\C:\\Users\\Kim\\a.png", "a.png"),
        ("file:///home/kim/secret/x.png", "x.png"),
        ("error:/mnt/kim/secret/x.png", "error:x.png"),
        ("https://host.org/a/b.png is gone", "https://host.org/a/b.png is gone"),
        ("png/jpg and 3/4, a / b, and/or, 1:1/2", "png/jpg and 3/4, a / b, and/or, 1:1/2"),
        ("models/clip_vision", "models/clip_vision"),
    ],
)
def test_the_folders_of_a_machine_are_left_out_of_a_message(text: str, clean: str) -> None:
    folders = {"/home/kim/comfy/input": "input", "/home/kim": "~", "E:\\Kim Lee\\input": "input"}
    assert without_folders(text, folders) == clean


class Numbers(pydantic.BaseModel):
    number: int


class Odd(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one, two)

    def __str__(self) -> str:
        return f"{self.args[0]} and {self.args[1]}"


def _chained() -> None:
    try:
        open(f"/home/kim/{OLD_ZIP}")
    except OSError as error:
        raise UserError("It cannot be read.") from error


def _noted() -> None:
    error = ValueError("fine")
    error.__notes__ = [NASTY]  # what add_note does from Python 3.11 on
    raise error


RAISED: dict[str, Any] = {
    "a person's mistake": lambda: (_ for _ in ()).throw(UserError(NASTY)),
    "any error": lambda: (_ for _ in ()).throw(RuntimeError(f"/home/kim/x {NASTY}")),
    "of two texts": lambda: (_ for _ in ()).throw(Odd(NASTY, "/home/kim/x/y.png")),
    "of a file": lambda: open(f"/home/kim/{OLD_ZIP}"),
    "of two files": lambda: os.rename(f"/home/kim/{OLD_ZIP}", f"/home/kim/x/{OLD_ZIP}"),
    "of bytes": lambda: os.stat(os.fsencode(f"/home/kim/{OLD_ZIP}")),
    "of a key": lambda: {}[NASTY],
    "of syntax": lambda: compile("a b", f"/home/kim/{OLD_ZIP}.py", "exec"),
    "of JSON": lambda: json.loads(NASTY),
    "of a library in C": lambda: Numbers(number="/home/kim/x\n" * 9000),
    "a cause": _chained,
    "a note": _noted,
}


@pytest.mark.parametrize("kind", RAISED)
def test_an_error_keeps_its_type_and_traceback_and_everything_it_says_is_clean(kind: str) -> None:
    with pytest.raises(Exception) as caught:
        RAISED[kind]()
    raised, told = caught.value, reworded(caught.value, lambda text: without_folders(text, {"/home/kim": "~"}))
    assert told.__traceback__ is raised.__traceback__ and type(told).__name__ in (type(raised).__name__, "RuntimeError")
    assert isinstance(told, type(raised)) or kind == "of a library in C" and "ValidationError: 1 " in str(told)
    lines = [line for line in traceback.format_exception(told) if not line.startswith("  ")]
    for line in "".join(lines).splitlines():
        line.encode()
        assert "/home/kim" not in line and "\x1b" not in line and "\u202e" not in line and len(line) < 2 * MESSAGE
    shown_to_all(str(told))


def test_a_cell_is_no_formula_and_a_number_stays_a_number() -> None:
    for text in ("=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "+49 171", "-", "-x"):
        assert cell(text) == f"'{text}"
    for text in ("-0.5", "+3", "-1e-05", "-.5", "12 %", "a=b", "", "'=1", "–", "-3%"):
        assert cell(text) == text


def test_the_score_table_and_the_links_report_hold_no_formula() -> None:
    link = '=HYPERLINK("http://x","y")'
    rows = (Score("a", link, -0.5, -1e-9, float("nan"), 3, note="@x"), Score("-0.5", "+49 1", 1.0, 0.0, 2.0, 3))
    cells = list(csv.reader(Scores(rows, (("a", "\t=1"),)).csv().splitlines()))
    assert cells[1] == ["a", f"'{link}", "-0.5", "-1e-09", "nan", "3", "'@x", "'\t=1"]
    assert cells[2][:3] == ["-0.5", "'+49 1", "1"]
    (_, *found) = csv.reader(report_csv([], [InvalidRow("links.csv line 3", link)]).splitlines())
    assert [row[0] for row in found] == ["line 3"] and not any(c.startswith(("=", "@")) for row in found for c in row)


# --- nodes ----------------------------------------------------------------------------------------------------------


class Tells(widgets.Node):
    """A node that says what it is given, as it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.String.Input("text"),
            io.Combo.Input("choice", options=["a"], optional=True),
            io.Boolean.Input("on"),
        ]
        return io.Schema(node_id="Tells", inputs=inputs, outputs=[])

    @classmethod
    def validate_inputs(cls, text: str) -> bool | str:
        raise UserError(f"{text}{NASTY}")

    @classmethod
    def fingerprint_inputs(cls, text: str) -> Any:
        raise OSError(2, "No such file", f"{Path.home()}/x/{text}{NASTY}")

    @classmethod
    def check_lazy_status(cls, text: str) -> Any:
        raise RuntimeError(f"{widgets.__file__} {text}{NASTY}")

    @classmethod
    def execute(cls, text: str, choice: str = "a", on: bool = False) -> io.NodeOutput:
        raise UserError(f"{text}{NASTY}")


def test_whatever_a_node_says_is_fit_to_be_logged() -> None:
    for method in (Tells.execute, Tells.fingerprint_inputs, Tells.check_lazy_status):
        with pytest.raises(Exception) as caught:
            method(text="/etc/x/y")
        shown_to_all(str(caught.value))
        assert str(Path.home()) not in str(caught.value) and "/etc" not in str(caught.value)
    said = Tells.validate_inputs(text="/etc/x/y")
    shown_to_all(said)
    asked = inspect.getfullargspec(Tells.validate_inputs)  # as ComfyUI asks which inputs it takes
    assert said.startswith("y") and asked.args == ["cls", "text"] and asked.varkw is None


def test_a_menu_that_fails_says_so_in_a_line_that_can_be_logged() -> None:
    class Broken(Tells):
        @classmethod
        def define_schema(cls) -> io.Schema:
            raise OSError(5, "Input/output error", f"{Path.home()}/{OLD_ZIP}")

    with pytest.raises(OSError) as caught:
        Broken.GET_NODE_INFO_V1()
    shown_to_all(str(caught.value))
    assert caught.value.errno == 5 and str(Path.home()) not in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, True, ["a"], 0.5])
def test_a_value_by_link_is_of_the_kind_of_its_widget(value: Any) -> None:
    with pytest.raises(UserError, match=r"^choice is .+, but it must be a name: choose one from the list\.$"):
        Tells.execute(text="x", choice=value)
    with pytest.raises(UserError, match=r"^text is .+, but it must be text\.$"):
        Tells.execute(text=value)
    if value is not True:
        with pytest.raises(UserError, match=r"^on is .+, but it must be true or false\.$"):
            Tells.execute(text="x", on=value)


def test_text_that_no_file_can_hold_is_refused_before_the_work() -> None:
    with pytest.raises(UserError, match="^text has characters that are not valid Unicode, in .+: write them again.$"):
        Tells.execute(text=OLD_ZIP)
    with pytest.raises(UserError, match="^choice|^[^t]"):  # a choice may be a file's name, whatever it is made of
        Tells.execute(text="x", choice=OLD_ZIP)


# --- a badly named image, everywhere it is named ----------------------------------------------------------------------


def old_zip(folder: Path) -> Path:
    """A folder of two captioned images, one of them good, with names that are not UTF-8."""
    inside = folder / OLD_ZIP
    noise(inside / f"{OLD_ZIP}.png")
    (inside / f"{OLD_ZIP}.txt").write_text("a house in Kora")
    (inside / f"{OLD_ZIP} broken.jpg").write_bytes(b"no image")
    (inside / f"{OLD_ZIP} broken.txt").write_text("a house in Kora")
    return inside


def test_a_name_that_is_not_utf8_loads_and_every_mention_of_it_can_be_written(tmp_path: Path) -> None:
    dataset, report = load_folder(old_zip(tmp_path))
    assert len(dataset) == 1 and dataset.records[0].image.is_file() and "1 image loaded, 1 left out" in report
    for text in (*report.splitlines(), dataset.name):
        shown_to_all(text)
    with pytest.raises(UserError) as caught:
        load_folder(tmp_path / OLD_ZIP, strict=True)
    shown_to_all(str(caught.value))


def load(folder: Any) -> dict[str, Any]:
    inputs = {"folder": folder, "culture": "", "place": "", "categories": "", "split": "train", "limit": 0}
    dataset = {"class_type": "SCoFT_LoadDataset", "inputs": inputs}
    preview = {"class_type": "SCoFT_PreviewDataset", "inputs": {"dataset": ["1", 0], "rows": 3}}
    return {"1": dataset, "2": preview}


def test_a_badly_named_broken_image_does_not_stop_comfyuis_queue(comfy: ComfyServer) -> None:
    inside = old_zip(comfy.base / "input")
    (folders,) = (each for each in [comfy.client.object_info("SCoFT_LoadDataset")["SCoFT_LoadDataset"]["input"]])
    assert OLD_ZIP in folders["required"]["folder"][1].get("options", folders["required"]["folder"][0])
    assert comfy.client.run(load(OLD_ZIP), timeout=120)["outputs"]["2"]["images"]
    (inside / f"{OLD_ZIP}.png").write_bytes(b"no image either")
    with pytest.raises(ComfyError, match="No record of .+ could be loaded") as caught:
        comfy.client.run(load(OLD_ZIP), timeout=120)
    str(caught.value).encode()
    assert comfy.client.run({**IMAGE, "1": {**IMAGE["1"], "inputs": {**IMAGE["1"]["inputs"], "color": 7}}}, timeout=60)


@pytest.mark.parametrize("folder", [None, 5, "a" * 300, ".", "..", "a\nb", "x" * 200_000, "a\0b", {"a": 1}, "\ud800"])
def test_a_folder_that_is_none_is_one_short_sentence(comfy: ComfyServer, folder: Any) -> None:
    with pytest.raises(ComfyError) as caught:
        comfy.client.run(load(folder), timeout=120)
    said = str(caught.value)
    assert "Error" not in said and "NoneType" not in said and str(Path.home()) not in said and len(said) < 1500, said
    assert any(hint in said for hint in ("choose", "put it there")), said


def test_a_kohya_folder_whose_name_is_no_text_gives_no_caption(tmp_path: Path) -> None:
    noise(tmp_path / f"10_{OLD_ZIP}" / "a.png")
    noise(tmp_path / "10_a_house_in_Kora" / "b.png")
    dataset, report = load_folder(tmp_path)
    assert [record.caption for record in dataset.records] == ["a house in Kora"]
    folder = printable(f"10_{OLD_ZIP}")
    assert f"- The image {folder}/a.png has no caption: write one into a.txt beside it." in report.splitlines()


def test_what_a_node_was_given_is_shown_without_a_path(tmp_path: Path) -> None:
    """ComfyUI puts `str` of every input into the record of an error, which it sends to every page."""
    dataset, _ = load_folder(old_zip(tmp_path))
    network = replace(load_features("mini CLIP (layer 5)"), source=tmp_path / "secret.safetensors")
    for text in (str(dataset), repr(network), str((PerceptualLoss(network),))):
        assert str(tmp_path) not in text and "secret" not in text and len(text) < 200
        text.encode()


def test_files_with_half_a_character_in_their_json_are_refused(tmp_path: Path) -> None:
    survey = json.loads(next(EXAMPLE.glob(f"*{KEY_ENDING}")).read_text(encoding="utf-8"))
    (tmp_path / "a.json").write_text(json.dumps(survey | {"title": "half \ud800"}))
    with pytest.raises(UserError, match="key file is damaged: a name in it is not a text"):
        read_key(tmp_path / "a.json")


def test_a_mistake_told_by_another_process_is_the_same_mistake_here() -> None:
    for kind in (UserError, NonFiniteLoss, OtherProcess):
        told = pickle.loads(pickle.dumps(kind("It is wrong.")))  # noqa: S301 - our own
        assert type(told) is kind and str(told) == "It is wrong."
