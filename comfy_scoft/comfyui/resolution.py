"""The resolution of any MODEL, and the widgets in which 0 stands for it."""

from __future__ import annotations

from typing import Any

from ..common.settings import check_number
from ..models.mini import layout
from .compat import comfy, io

OWN = "0: the model's own (Stable Diffusion 1.5: 512, XL: 1024)."


def native_resolution(model: Any) -> int:
    """The side in pixels of the squares that the model's family was trained on."""
    config = model.model.model_config.unet_config
    widths = {layout.CONTEXT: 64, 768: 512, 1024: 512, 2048: 1024, 1280: 1024}
    v_prediction = isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION)
    return 768 if config.get("context_dim") == 1024 and v_prediction else widths.get(config.get("context_dim"), 512)


def size_input(name: str, tooltip: str, *, max: int = 2048, optional: bool = False) -> Any:
    """The widget of a size in pixels; 0, the model's own, is its default."""
    return io.Int.Input(name, default=0, min=0, max=max, step=8, optional=optional, tooltip=f"{tooltip} {OWN}")


def size_of(model: Any, name: str, chosen: int, least: int = 64) -> int:
    """The size chosen in that widget, in pixels. Raises UserError for one between 0 and `least`."""
    check_number(name, chosen or least, whole=True, min=least, max=None)
    return chosen or native_resolution(model)
