"""What holds for every node: it explains itself, and it refuses numbers that no widget would take."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import comfy_inprocess as tiny
import pytest
from every import every

tiny.start()

from comfy_api.latest import io, ui  # noqa: E402  (needs a started ComfyUI)

from comfy_scoft.comfyui import nodes, widgets  # noqa: E402
from comfy_scoft.common.errors import UserError  # noqa: E402

MODULES = sorted(path.stem for path in Path(str(nodes.__file__)).parent.glob("[!_]*.py"))
NODES = tiny.nodes_of(*(importlib.import_module(f"{nodes.__name__}.{name}") for name in MODULES))


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_node_and_socket_explains_itself(node: Any) -> None:
    assert issubclass(node, widgets.Node)
    schema = node.GET_SCHEMA()  # finalized and validated: unique names, no unknown defaults
    assert schema.node_id.startswith("SCoFT_") and schema.category.startswith("SCoFT/") and schema.display_name
    assert len(schema.description) > 30 and schema.description.endswith(".")
    for socket in (*schema.inputs, *schema.outputs):
        assert socket.tooltip and socket.tooltip.endswith((".", "…")), socket.id
    assert all(output.display_name for output in schema.outputs)


def numbers() -> list[Any]:
    every = [(node, each) for node in NODES for each in node.define_schema().inputs]
    return [
        pytest.param(n, i, id=f"{n.__name__}-{i.id}") for n, i in every if isinstance(i, io.Int.Input | io.Float.Input)
    ]


@pytest.mark.parametrize("node, number", numbers())
def test_numbers_by_link_are_checked_before_anything_runs(node: Any, number: Any) -> None:
    """ComfyUI checks the range of what is typed into a widget, and not of what comes by a link; NaN is in any range."""
    wrong = [float("nan"), float("inf"), number.min - 1, number.max * 2 + 1, 4611686018427387904**2, "3", True, None]
    wrong += [[number.min], {}] + [number.min + 0.5] * isinstance(number, io.Int.Input)
    for value in wrong:
        given = [value] if node.define_schema().is_input_list else value
        with pytest.raises(UserError, match=rf"^{number.id} is .+, but it must be a (whole )?number from .+ to .+\.$"):
            node.execute(**{number.id: given})


SIZES = {"resolution", "width", "height"}


@every("size", [each for node in NODES for each in node.define_schema().inputs if each.id in SIZES])
def test_every_size_in_pixels_is_the_models_own_by_default(size: Any) -> None:
    assert (size.default, size.min) == (0, 0) and "0: the model's own" in size.tooltip


@every("seed", [each for node in NODES for each in node.define_schema().inputs if each.id == "seed"])
def test_every_seed_takes_what_a_stock_seed_takes(seed: Any) -> None:
    assert (seed.min, seed.max) == (0, 2**64 - 1)


REPORTING = [node for node in NODES if "report" in [each.display_name for each in node.define_schema().outputs]]


@pytest.mark.parametrize("node", REPORTING, ids=lambda node: node.__name__)
def test_every_report_is_text_on_its_own_node_beside_what_else_it_shows(node: Any) -> None:
    values = [f"the {each.display_name}" for each in node.define_schema().outputs]
    for shown, expected in ((None, {}), ({"images": ["a"]}, {"images": ["a"]}), (ui.PreviewText("old"), {})):

        class Finished(node):
            @classmethod
            def execute(cls, shown: Any = shown) -> io.NodeOutput:
                return io.NodeOutput(*values, ui=shown)

        result = Finished.execute()
        assert result.ui == {**expected, "text": ("the report",)} and list(result.args) == values


def test_the_nodes_that_report_are_known() -> None:
    names = "LoadDataset DownloadLinks CaptionGeneric FilterNegatives LearnPreference LoadPreference LoadResponses"
    assert {node.__name__ for node in REPORTING} == {*names.split(), "AggregateSurvey"}


def test_the_widget_of_a_setting_is_its_declaration() -> None:
    from comfy_scoft.features import FeatureOptions
    from comfy_scoft.models.lora import LoraSettings
    from comfy_scoft.training.settings import OptimizerSettings, TrainSettings

    rate = widgets.widget(OptimizerSettings, "learning_rate")
    assert (rate.default, rate.min, rate.max, rate.step, rate.round) == (1e-4, 1e-8, 1.0, 1e-5, False)
    assert rate.tooltip == "Peak learning rate. Released code: 0.0001. Prodigy: 1." and not rate.optional
    seed = widgets.widget(TrainSettings, "seed", optional=True)
    assert (seed.default, seed.control_after_generate, seed.step, seed.optional) == (1024, False, None, True)
    targets = widgets.widget(LoraSettings, "targets", tooltip="another")
    assert targets.options[:2] == ["attention", "attention + feed-forward"] and targets.default == "attention"
    assert all(type(option) is str for option in targets.options) and targets.tooltip == "another"
    assert isinstance(widgets.widget(TrainSettings, "flip"), io.Boolean.Input)
    assert widgets.widget(FeatureOptions, "views", id="count").id == "count"


def test_comfyui_shows_a_persons_mistake_without_the_packs_path_and_any_other_error_by_its_own_name() -> None:
    import execution

    assert execution.full_type_name(UserError) == "comfy_scoft.UserError"
    assert [execution.full_type_name(kind) for kind in (RuntimeError, ValueError)] == ["RuntimeError", "ValueError"]
