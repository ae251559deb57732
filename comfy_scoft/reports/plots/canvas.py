"""A blank page measured in pixels, and the looks that all plots share. matplotlib with Agg and without pyplot."""

from __future__ import annotations

import unicodedata
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...common.errors import UserError
from ...data.images import open_image, to_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1a1a1a"
MUTED = "#6b6b6b"
LINE = "#d5d5d5"
SHADE = "#f3f3f1"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette: told apart by color-blind eyes too."""

DPI = 100
ELLIPSIS = "…"
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans KR"),
    *("Noto Sans JP", "Microsoft YaHei", "Malgun Gothic", "Yu Gothic", "PingFang SC", "Hiragino Sans"),
    *("Apple SD Gothic Neo", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Noto Sans Devanagari", "Nirmala UI"),
    *("Noto Sans Arabic", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Ethiopic"),
    *("Arial Unicode MS", "Segoe UI"),
)
"""Fonts to look in for a letter, those that are installed, in this order. DejaVu comes with matplotlib."""


@lru_cache(maxsize=1)
def fonts() -> list[str]:
    """The installed ones of FONTS."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in installed] or ["DejaVu Sans"]


class Page:
    """A white page of whole pixels; (0, 0) is its upper left corner. Text sizes are in pixels too."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = int(width), int(height)
        self.figure: Figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 14,
        color: str = INK,
        *,
        bold: bool = False,
        align: str = "left",
    ) -> None:
        """One line whose baseline is about `size` below y. Dollar signs are dollar signs."""
        self.figure.text(
            x / self.width,
            1.0 - (y + 0.62 * size) / self.height,
            text,
            fontsize=size * 72 / DPI,
            color=color,
            weight="bold" if bold else "normal",
            ha=align,
            va="center_baseline",
            family=fonts(),
            parse_math=False,
        )

    def block(self, x: float, y: float, lines: list[str], size: int = 14, **look) -> None:
        """Several lines, one below the other."""
        for i, line in enumerate(lines):
            self.text(x, y + i * round(size * 1.35), line, size, **look)

    def image(self, x: int, y: int, picture: np.ndarray) -> None:
        """An image (h, w, 3) in uint8, pixel for pixel, with its upper left corner at (x, y)."""
        self.figure.figimage(picture, xo=x, yo=self.height - y - picture.shape[0], origin="upper", resize=False)

    def file(self, x: int, y: int, path: Path, side: int) -> str:
        """An image file fitted into side x side; a frame with its name where it cannot be read.

        Returns why it cannot, "" where it can.
        """
        try:
            self.image(x, y, tile(open_image(path), side))
            return ""
        except UserError as error:
            self.box(x, y, side, side, fill=SHADE, edge=LINE)
            lines = ["cannot be read", *wrap(path.name, side - 12, 3, 12)]
            for i, line in enumerate(lines):
                self.text(x + side / 2, y + side / 2 - 10 * len(lines) + 18 * i, line, 12, MUTED, align="center")
            return str(error)

    def box(self, x: float, y: float, width: float, height: float, fill: str = "none", edge: str = "none") -> None:
        """A rectangle."""
        from matplotlib.patches import Rectangle

        corner = (x / self.width, 1.0 - (y + height) / self.height)
        size = (width / self.width, height / self.height)
        self.figure.add_artist(
            Rectangle(
                corner, *size, facecolor=fill, edgecolor=edge, lw=0.8, zorder=0, transform=self.figure.transFigure
            )
        )

    def line(self, x: float, y: float, width: float, color: str = LINE, thick: float = 1.0) -> None:
        """A horizontal line."""
        self.box(x, y - thick / 2, width, thick, fill=color)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes that fill a rectangle, with quiet spines and grid."""
        found = self.figure.add_axes(
            (x / self.width, 1.0 - (y + height) / self.height, width / self.width, height / self.height)
        )
        found.spines[["top", "right"]].set_visible(False)
        found.spines[["left", "bottom"]].set_color(MUTED)
        found.grid(True, color=LINE, lw=0.6)
        found.set_axisbelow(True)
        found.tick_params(labelsize=12 * 72 / DPI, colors=MUTED, labelfontfamily=fonts()[0])
        return found

    def tensor(self) -> Tensor:
        """The page as a tensor (height, width, 3), float32 in [0, 1]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # then a box stands for the letter
            self._canvas.draw()
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        return torch.from_numpy(pixels.astype(np.float32) / 255.0)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int = 14, *, bold: bool = False) -> float:
    """Width of one line in pixels."""
    from matplotlib.font_manager import FontProperties

    properties = FontProperties(family=fonts(), size=size * 72 / DPI, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return _ruler().get_text_width_height_descent(text, properties, ismath=False)[0]


@lru_cache(maxsize=1)
def _ruler():
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(8, 8, DPI)


def clean(text: str) -> str:
    """The text on one line: white space is one space, control characters are gone."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc").split())


def wrap(text: str, width: float, lines: int, size: int = 14, *, bold: bool = False) -> list[str]:
    """Break a text into at most `lines` lines of at most `width` pixels; what is left out ends in an ellipsis.

    Breaks at spaces, and inside a word only where the word is wider than a line (so also in scripts without spaces).
    """
    out: list[str] = []
    rest = clean(text)
    while rest and len(out) < lines:
        last = len(out) == lines - 1
        if text_width(rest[:400], size, bold=bold) <= width and len(rest) <= 400:
            return [*out, rest]
        room = width - (text_width(ELLIPSIS, size, bold=bold) if last else 0)
        fits = _prefix(rest, room, size, bold=bold)
        cut = fits if last or " " not in rest[: fits + 1] else rest.rindex(" ", 0, fits + 1)
        out.append(rest[:cut].rstrip() + (ELLIPSIS if last else ""))
        rest = rest[cut:].lstrip()
    return out or [""]


def _prefix(text: str, width: float, size: int, *, bold: bool) -> int:
    """How many letters (at least one) fit into the width; by halving."""
    low, high = 1, min(len(text), 400)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle], size, bold=bold) <= width else (low, middle - 1)
    return low


def tile(picture: Image.Image | np.ndarray | Tensor, side: int) -> np.ndarray:
    """An image fitted into side x side on light gray, (side, side, 3) uint8.

    An image no larger than half the side is enlarged by a whole number, pixel by pixel, so that it stays as it is.
    Arrays are (H, W, 3), uint8 or floats in [0, 1].
    """
    if not isinstance(picture, Image.Image):
        values = torch.as_tensor(picture)
        values = values if values.dtype == torch.uint8 else to_bytes(values.nan_to_num(0.0))
        picture = Image.fromarray(values.numpy())
    image = picture.convert("RGB")
    scale = side / max(image.size)
    scale, how = (int(scale), Image.Resampling.NEAREST) if scale >= 2 else (scale, Image.Resampling.LANCZOS)
    width, height = (max(1, min(side, round(edge * scale))) for edge in image.size)
    out = Image.new("RGB", (side, side), SHADE)
    out.paste(image.resize((width, height), how), ((side - width) // 2, (side - height) // 2))
    return np.asarray(out)
