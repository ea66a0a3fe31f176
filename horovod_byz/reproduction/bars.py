"""The figure of a calculated artefact: horizontal bars made of calculated parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.training.config import ConfigError
from horovod_byz.training.plots import COLOURS, save

__all__ = ["draw"]


def draw(artefact: Artefact, values: Mapping[str, Any], path: Path) -> None:
    """Draws an artefact's bars, each the sum of its parts; the same values give the same bytes.

    Raises:
        ConfigError: if a part names a quantity that was not calculated.
    """
    bars = artefact.figure.bars
    for bar in bars:
        for quantity in bar.parts.values():
            if quantity not in values:
                raise ConfigError(
                    f"{artefact.name}: the figure's {quantity!r} is none of {', '.join(values)}"
                )
    canvas = Figure(figsize=(9.0, 0.5 * len(bars) + 1.6), dpi=110, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    parts = list(dict.fromkeys(part for bar in bars for part in bar.parts))
    for row, bar in enumerate(reversed(bars)):
        left = 0.0
        for part, quantity in bar.parts.items():
            width = float(values[quantity])
            axes.barh(row, width, left=left, height=0.65, color=COLOURS[parts.index(part)])
            left += width
        axes.text(left, row, f"  {left:.3g}", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
    axes.set_xlabel(artefact.figure.x_label)
    axes.set_xlim(
        0, 1.12 * max(sum(float(values[quantity]) for quantity in bar.parts.values()) for bar in bars)
    )
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    handles = [Patch(color=colour, label=part) for colour, part in zip(COLOURS, parts, strict=False)]
    canvas.legend(handles=handles, loc="outside lower center", ncols=len(parts), frameon=False)
    canvas.suptitle(artefact.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    save(canvas, path)
