"""Settings are declared once: their checks, their JSON and the options of the command line follow the declaration."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import pytest

from comfy_scoft.cli.options import Help, add_settings
from comfy_scoft.common.errors import UserError
from comfy_scoft.common.settings import KEY, Choice, check, declaration, identity_fields, setting
from comfy_scoft.corrector.training import PreferenceSettings
from comfy_scoft.data.captions import CaptionSettings
from comfy_scoft.features import FeatureOptions
from comfy_scoft.losses import DiffusionLoss, MemorizationLoss, PriorLoss
from comfy_scoft.losses.rollout import RolloutSettings
from comfy_scoft.metrics.kid import KidSettings
from comfy_scoft.models.lora import LoraSettings
from comfy_scoft.negatives.generate import NegativeSettings
from comfy_scoft.survey.build import SurveySettings
from comfy_scoft.training.settings import Checkpointing, OptimizerSettings, TrainSettings

EVERY = (
    *(TrainSettings, OptimizerSettings, LoraSettings, RolloutSettings, NegativeSettings, CaptionSettings),
    *(FeatureOptions, KidSettings, PreferenceSettings, SurveySettings, DiffusionLoss, MemorizationLoss, PriorLoss),
)


class Color(Choice):
    RED = "red"
    BLUE = "dark blue"


@dataclass(frozen=True)
class Toy:
    count: int = setting(2, "How many. 100% of it.", min=1, max=10)
    share: float = setting(0.5, min=0.0, max=1.0, identity=False)
    color: Color = setting(Color.RED, "Which.")
    name: str = setting("x")
    on: bool = setting(False)
    free: int = 7
    new: int = setting(1, min=0, max=9, later=True)

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("count", 11, "count is 11, but it must be a whole number from 1 to 10."),
        ("count", 2.0, "count is 2.0, but it must be a whole number from 1 to 10."),
        ("count", True, "count is True, but it must be a whole number from 1 to 10."),
        ("share", float("nan"), "share is nan, but it must be a number from 0 to 1."),
        ("share", float("-inf"), "share is -inf, but it must be a number from 0 to 1."),
        ("share", None, "share is None, but it must be a number from 0 to 1."),
        ("color", "green", "color is 'green', but it must be one of red, dark blue."),
        ("color", 3, "color is 3, but it must be one of red, dark blue."),
        ("name", 3, "name is 3, but it must be text."),
        ("on", 1, "on is 1, but it must be true or false."),
        ("name", b"x" * 10_000, "name is b'xxxxxxxxxxx...xxxxxxxxxxxxx', but it must be text."),
    ],
)
def test_a_bad_value_is_one_sentence_with_name_value_and_range(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        Toy(**{field: value})
    assert str(error.value) == sentence


def test_ends_of_a_range_are_in_it_and_what_is_not_declared_is_not_checked() -> None:
    assert (Toy(count=1).count, Toy(count=10, share=1).share, Toy(free=-3).free) == (1, 1, -3)


def test_a_choice_is_its_string_in_code_json_and_messages() -> None:
    toy = Toy(color="dark blue")  # type: ignore[arg-type]  # as JSON and widgets give it
    assert toy.color is Color.BLUE and toy.color == "dark blue" and {"dark blue": 1}[toy.color] == 1
    assert f"{toy.color} {toy.color!r}" == "dark blue 'dark blue'" and str(toy.color) == "dark blue"
    assert json.dumps(asdict(toy)) == json.dumps({**asdict(toy), "color": "dark blue"})
    assert json.loads(json.dumps(asdict(toy))) == asdict(toy)


def test_the_identity_leaves_out_what_does_not_change_what_is_learned() -> None:
    assert identity_fields(Toy()) == {"count": 2, "color": "red", "name": "x", "on": False, "free": 7}
    aside = {"checkpoint_every", "micro_batch", "checkpointing", "keep", "validate_every", "preview_every"}
    aside |= {"preview_prompt", "tracker", "long_captions"}
    assert identity_fields(Toy(new=2))["new"] == 2, "what came later counts where it is not at its default"
    assert set(asdict(TrainSettings())) - set(identity_fields(TrainSettings())) == aside


@pytest.mark.parametrize("owner", EVERY, ids=lambda owner: owner.__name__)
def test_every_declared_number_of_the_pack_is_checked(owner: Any) -> None:
    declared = [each for each in fields(owner) if KEY in each.metadata]
    assert declared and owner()
    for each in declared:
        if type(each.default) in (int, float):
            least, most = each.metadata[KEY].min, each.metadata[KEY].max
            wrong = [float("nan"), float("inf"), -float("inf")] + [
                x for x in (least - 1, most and most + 1) if x is not None
            ]
            for value in wrong:
                with pytest.raises(UserError, match=f"^{each.name} is "):
                    owner(**{each.name: value})


def test_checkpointing_says_what_it_covers() -> None:
    assert [(each.unet, each.decoder) for each in Checkpointing] == [(False, False), (True, False), (True, True)]


def test_options_of_the_command_line_follow_the_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(formatter_class=Help)
    add_settings(parser.add_argument_group("toy"), Toy, "count", "share", "color", "name")
    parser.add_argument("--out", default="here", help="where")
    parser.add_argument("--again", action="store_true", help="once more")
    assert vars(parser.parse_args([])) == {
        **{k: asdict(Toy())[k] for k in ("count", "share", "color", "name")},
        "out": "here",
        "again": False,
    }
    assert parser.parse_args(["--color", "dark blue", "--count", "3"]).count == 3
    text = " ".join(parser.format_help().split())
    assert "How many. 100% of it. Default: 2." in text and "{red,dark blue}" in text and "where (default: here)" in text
    assert "once more (default" not in text
    with pytest.raises(SystemExit):
        parser.parse_args(["--count", "many"])
    assert "--count: invalid int value: 'many'" in capsys.readouterr().err


def test_a_field_that_is_not_declared_has_no_declaration() -> None:
    with pytest.raises(AssertionError, match="not declared"):
        declaration(Toy, "free")
