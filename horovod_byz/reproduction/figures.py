"""Figures of artefacts: panels of curves, sweeps or pairs of dots, each a pure function of series."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.series import Series
from horovod_byz.reproduction.tables import METRICS, named
from horovod_byz.training.plots import COLOURS, MARKERS, save

__all__ = ["draw"]

_HIGHEST = 10.0  # cross-entropy; that of guessing one of ten classes is 2.3
_BEFORE, _AFTER = "#D55E00", "#0072B2"


def draw(artefact: Artefact, shown: Sequence[Series], references: Mapping[str, Series], path: Path) -> None:
    """Draws an artefact's figure and writes it as SVG or PNG; the same series give the same bytes.

    Args:
        artefact: what to draw.
        shown: its series.
        references: by name, what they are compared with.
        path: the picture; its ending, .svg or .png, is its format.
    """
    figure = artefact.figure
    metrics = figure.metrics or (artefact.metric,)
    groups = _groups(shown, figure.panels)
    kinds = list(itertools.product(groups, metrics))
    if len(figure.panels) == 2 or len(metrics) > 1:
        columns = len({labels[-1:] for labels in groups}) if len(metrics) == 1 else len(metrics)
        columns *= 2 if len(metrics) == 2 and len(groups) % 2 == 0 else 1
    else:
        columns = min(len(kinds), 4 if len(kinds) % 4 == 0 or len(kinds) > 6 else 3)
    rows = -(-len(kinds) // columns)
    size = (9.0, 5.4) if len(kinds) == 1 else (4.2 * columns, 3.3 * rows + 1.4)
    canvas = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(canvas)
    panels = np.atleast_1d(canvas.subplots(rows, columns, squeeze=False)).ravel()
    styles = _styles(shown, figure.lines)
    for axes, (labels, metric) in zip(panels, kinds, strict=False):
        inside = groups[labels]
        if not inside:
            axes.set_axis_off()
            continue
        if figure.kind == "sweep":
            _sweep(axes, artefact, inside, references, metric, styles)
        elif figure.kind == "pairs":
            _pairs(axes, artefact, inside, references)
        else:
            _curves(axes, artefact, inside, references, metric, styles)
        if labels:
            title = ", ".join(map(named, figure.panels, labels))
            axes.set_title(title, loc="left", fontsize=10.5)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    _name(canvas, artefact, panels[0])
    save(canvas, path)


def _groups(shown: Sequence[Series], axes: Sequence[str]) -> dict[tuple[str, ...], list[Series]]:
    """Series by their labels on some axes: every combination, in the order of first appearance per axis."""
    orders = [dict.fromkeys(series.labels.get(axis, "") for series in shown) for axis in axes]
    panels: dict[tuple[str, ...], list[Series]] = {labels: [] for labels in itertools.product(*orders)}
    for series in shown:
        panels[tuple(series.labels.get(axis, "") for axis in axes)].append(series)
    return panels


def _styles(shown: Sequence[Series], axis: str) -> dict[str, tuple[str, str]]:
    """Colour and marker by label, the same in all panels."""
    labels = dict.fromkeys(series.labels.get(axis, "") for series in shown)
    return {
        label: (COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        for number, label in enumerate(labels)
    }


def _curves(
    axes: Axes,
    artefact: Artefact,
    shown: Sequence[Series],
    references: Mapping[str, Series],
    metric: str,
    styles: Mapping[str, tuple[str, str]],
) -> None:
    for number, series in enumerate(shown):
        label = series.labels.get(artefact.figure.lines, "")
        colour, marker = styles[label]
        values = series.values(metric)
        every = max(len(series.steps) // 6, 1)
        axes.plot(
            series.steps,
            values.mean(axis=0),
            color=colour,
            marker=marker,
            markersize=4,
            markevery=(number % every, every),
            linewidth=1.6,
            label=named(artefact.figure.lines, label),
        )
        if len(values) > 1:
            mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
            axes.fill_between(series.steps, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    for (name, series), dash in zip(references.items(), itertools.cycle(("--", ":", "-.")), strict=False):
        axes.plot(series.steps, series.values(metric).mean(axis=0), "k" + dash, linewidth=1.4, label=name)
    starts = {run.config.attack_start for series in shown for run in series.runs} - {0}
    for start in starts:
        axes.axvline(start, color="#888888", linewidth=0.8)
    axes.set_xlabel("step")
    axes.set_xlim(0, max(int(series.steps[-1]) for series in shown))
    _finish(axes, metric)


def _sweep(
    axes: Axes,
    artefact: Artefact,
    shown: Sequence[Series],
    references: Mapping[str, Series],
    metric: str,
    styles: Mapping[str, tuple[str, str]],
) -> None:
    figure = artefact.figure
    places = list(dict.fromkeys(item.labels[figure.x] for item in shown))
    by_line = _groups(shown, (figure.lines,))
    for number, ((label,), series) in enumerate(by_line.items()):
        colour, marker = styles[label]
        shift = 0.05 * (number - (len(by_line) - 1) / 2)
        x = [places.index(item.labels[figure.x]) + shift for item in series]
        finals = [item.final(metric) for item in series]
        axes.plot(
            x, [values.mean() for values in finals], color=colour, marker=marker, linewidth=1.4, label=label
        )
        for place, values in zip(x, finals, strict=True):
            axes.plot([place] * len(values), values, ".", color=colour, alpha=0.45, markersize=4)
    for (name, item), dash in zip(references.items(), itertools.cycle(("--", ":", "-.")), strict=False):
        axes.axhline(item.final(metric).mean(), color="k", linestyle=dash, linewidth=1.2, label=name)
    axes.set_xticks(range(len(places)), places)
    axes.set_xlabel(figure.x_label or figure.x)
    _finish(axes, metric)
    if (
        metric not in ("loss", "train_loss")
        and min(item.final(metric).min() for item in shown) >= figure.lowest
    ):
        axes.set_ylim(figure.lowest, 100)


def _pairs(axes: Axes, artefact: Artefact, shown: Sequence[Series], references: Mapping[str, Series]) -> None:
    """Each label of the x axis a pair of dots per pairing, with the standard error over the repeats."""
    figure = artefact.figure
    places = list(dict.fromkeys(item.labels[figure.x] for item in shown))
    rows = [(place, pair) for place in places for pair in figure.pairs]
    for height, (place, pair) in enumerate(reversed(rows)):
        for label, colour, marker, shift in (
            (pair[0], _BEFORE, "o", 0.15),
            (pair[1], _AFTER, "s", -0.15),
        ):
            wanted = {figure.x: place, figure.lines: label}
            matching = [item for item in shown if wanted.items() <= item.labels.items()]
            if not matching:
                axes.text(50, height + shift, "does not hold", fontsize=7.5, va="center", ha="center")
                continue
            values = matching[0].final(artefact.metric)
            mean = values.mean()
            if len(values) > 1:
                error = values.std(ddof=1) / np.sqrt(len(values))
                axes.plot([mean - error, mean + error], [height + shift] * 2, color=colour, linewidth=1.2)
            axes.plot(mean, height + shift, marker, color=colour, markersize=5)
    names = [f"{pair[0]}, {place}" for place, pair in reversed(rows)]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    for item in references.values():
        axes.axvline(item.final(artefact.metric).mean(), color="k", linestyle="--", linewidth=1)
    axes.set_xlim(0, 100)
    axes.set_xlabel(METRICS[artefact.metric])
    _clean(axes)


def _finish(axes: Axes, metric: str) -> None:
    axes.set_ylabel(METRICS[metric], fontsize=9)
    if metric == "train_loss":  # a run that diverges leaves the panel
        axes.set_ylim(0, min(axes.get_ylim()[1], _HIGHEST))
    elif metric != "loss":
        axes.set_ylim(0, 100)
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name(canvas: Figure, artefact: Artefact, first: Axes) -> None:
    lines = [artefact.title, f"REDUCED: {artefact.reduction}"] if artefact.reduction else [artefact.title]
    fitting = int(10 * canvas.get_figwidth())  # bold letters of this size to an inch, about
    title = "\n".join(line for part in lines for line in textwrap.wrap(part, fitting))
    canvas.suptitle(title, fontsize=11.5, x=0.01, ha="left", fontweight="bold")
    if artefact.figure.kind == "pairs":
        first.plot([], [], "o", color=_BEFORE, label="without redundancy")
        first.plot([], [], "s", color=_AFTER, label="with DETOX")
        first.plot([], [], "k--", label="mean, no attack")
    handles = {
        label: handle
        for axes in canvas.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    canvas.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(len(handles), 5),
        frameon=False,
        fontsize=9,
    )
