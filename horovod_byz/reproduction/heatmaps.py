"""Heatmaps of the worst case: each cell the final value under the attack that harms most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.series import Series
from horovod_byz.reproduction.tables import METRICS, head, named, row
from horovod_byz.training.plots import save

__all__ = ["Worst", "draw", "table", "worst_cases"]


@dataclass(frozen=True)
class Worst:
    """The worst case of a cell: the least accuracy, or the largest loss, over all series in it.

    Attributes:
        value: mean over the repeats.
        label: the label of the axis that the worst is taken over, such as the attack.
        count: how many series it was taken over.
        chosen: the label of the axis `best` whose worst case this is; empty without such an axis.
    """

    value: float
    label: str
    count: int
    chosen: str = ""


def worst_cases(artefact: Artefact, shown: Sequence[Series]) -> dict[tuple[str, ...], Worst]:
    """Per labels of (panels, y, x) the worst case; a cell without a series has none."""
    figure, sign = artefact.figure, -1.0 if artefact.metric == "loss" else 1.0
    cells: dict[tuple[str, ...], list[Series]] = {}
    for series in shown:
        place = tuple(series.labels.get(axis, "") for axis in (*figure.panels, figure.y, figure.x))
        cells.setdefault(place, []).append(series)
    worst: dict[tuple[str, ...], Worst] = {}
    for place, inside in cells.items():
        chosen = dict.fromkeys(series.labels.get(figure.best, "") for series in inside)
        each = [
            _worst(artefact, [s for s in inside if s.labels.get(figure.best, "") == label], label)
            for label in chosen
        ]
        worst[place] = max(each, key=lambda candidate: sign * candidate.value)
    return worst


def _worst(artefact: Artefact, inside: Sequence[Series], chosen: str) -> Worst:
    sign = -1.0 if artefact.metric == "loss" else 1.0
    means = [_mean(artefact, series) for series in inside]
    least = min(range(len(inside)), key=lambda i: sign * means[i])
    return Worst(means[least], inside[least].labels.get(artefact.figure.worst, ""), len(inside), chosen)


def _mean(artefact: Artefact, series: Series) -> float:
    """Over the repeats; a loss that is not finite is the worst there is."""
    mean = float(series.final(artefact.metric).mean())
    return np.inf if np.isnan(mean) else mean


def table(artefact: Artefact, shown: Sequence[Series]) -> list[str]:
    """The worst cases in Markdown: one line per panel and y, one column per x."""
    figure, cells = artefact.figure, worst_cases(artefact, shown)
    columns = list(dict.fromkeys(place[-1] for place in cells))
    lines = head(*figure.panels, figure.y, *(named(figure.x, label) for label in columns))
    for place in dict.fromkeys(place[:-1] for place in cells):
        texts = [_text(artefact, cells.get((*place, column))) for column in columns]
        lines.append(row(*place, *texts))
    chosen = f", at the {figure.best} whose worst case is best" if figure.best else ""
    return [f"The worst case over {figure.worst}{chosen}, {METRICS[artefact.metric]}:", "", *lines]


def _text(artefact: Artefact, worst: Worst | None) -> str:
    if worst is None:
        return ""
    value = f"{worst.value:.{3 if artefact.metric == 'loss' else 1}f}"
    words = ", ".join(filter(None, [worst.label, worst.chosen and named(artefact.figure.best, worst.chosen)]))
    return f"{value} ({words})" if words else value


def draw(artefact: Artefact, shown: Sequence[Series], path: Path) -> None:
    """Draws one panel per combination of the figure's panels; the same series give the same bytes.

    Args:
        artefact: what to draw; its figure has x and y.
        shown: its series.
        path: the picture, .svg or .png.
    """
    figure, cells = artefact.figure, worst_cases(artefact, shown)
    panels = list(dict.fromkeys(place[:-2] for place in cells))
    across = list(dict.fromkeys(series.labels.get(figure.x, "") for series in shown))
    down = list(dict.fromkeys(series.labels.get(figure.y, "") for series in shown))
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    size = (max(columns * (0.85 * len(across) + 1.2), 5.0), rows * (0.6 * len(down) + 1.1) + 0.9)
    canvas = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = np.atleast_1d(canvas.subplots(rows, columns, squeeze=False)).ravel()
    finite = [worst.value for worst in cells.values() if np.isfinite(worst.value)]
    high = 100.0 if artefact.metric != "loss" else max(finite, default=1.0)
    for panel, labels in zip(axes, panels, strict=False):
        values = np.array([[_value(cells.get((*labels, y, x))) for x in across] for y in down])
        picture = panel.imshow(values, cmap="viridis", vmin=0.0, vmax=high, aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            worst = cells.get((*labels, down[y], across[x]))
            if worst is not None:
                dark = not np.isfinite(value) or value < 0.6 * high
                colour = "white" if dark else "black"
                panel.text(
                    x,
                    y,
                    _text(artefact, worst).replace(" (", "\n("),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=7,
                )
        panel.set_xticks(range(len(across)), across, fontsize=8)
        panel.set_yticks(range(len(down)), down, fontsize=8)
        panel.set_xlabel(figure.x_label or figure.x, fontsize=9)
        panel.set_ylabel(figure.y, fontsize=9)
        if labels:
            panel.set_title(", ".join(map(named, figure.panels, labels)), loc="left", fontsize=9.5)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    canvas.colorbar(picture, ax=list(axes[: len(panels)]), label=METRICS[artefact.metric], shrink=0.8)
    canvas.suptitle(
        f"{artefact.title}: worst case over {figure.worst}", x=0.01, ha="left", fontsize=11, fontweight="bold"
    )
    save(canvas, path)


def _value(worst: Worst | None) -> float:
    return np.nan if worst is None else worst.value
