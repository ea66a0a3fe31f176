"""Pictures of runs: each a pure function of run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from horovod_byz.training.runs import RunFolder

__all__ = ["Curve", "draw_curves", "save", "spread"]

# Okabe and Ito (2008): eight colours that the common kinds of colour blindness tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A7A00", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Curve:
    """One run in a figure.

    Args:
        label: its name, written beside the end of the line.
        folder: where its metrics are.
        reference: whether it is what the others are compared with, drawn dashed and black.
    """

    label: str
    folder: Path
    reference: bool = False

    def points(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric.

        Raises:
            FileNotFoundError: naming the run, when it has no metrics.
        """
        records = RunFolder(self.folder).metrics
        if not records:
            raise FileNotFoundError(f"the run {self.label!r} has no metrics in {self.folder}: run it first")
        values = [float("nan") if one[metric] is None else float(one[metric]) for one in records]
        return [int(one["step"]) for one in records], values


def draw_curves(curves: Sequence[Curve], path: Path, *, title: str, subtitle: str = "") -> None:
    """Draw test accuracy against steps, each line named at its end, and write a PNG or SVG.

    Args:
        curves: the runs.
        path: the picture; its folder must exist.
        title: what the figure shows.
        subtitle: the conditions, in smaller print.

    Raises:
        FileNotFoundError: naming the first run that has no metrics.
    """
    figure = Figure(figsize=(9, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends: dict[str, tuple[float, str]] = {}
    last = 0
    plain = [one for one in curves if not one.reference]
    for curve in curves:
        steps, values = curve.points("accuracy")
        percent = [100 * value for value in values]
        last = max(last, steps[-1])
        index = 0 if curve.reference else plain.index(curve)
        colour = "#000000" if curve.reference else COLOURS[index % len(COLOURS)]
        axes.plot(
            steps,
            percent,
            color=colour,
            linestyle="--" if curve.reference else "-",
            linewidth=1.8,
            marker=None if curve.reference else MARKERS[index % len(MARKERS)],
            markevery=(2 * index % 5, 5),
            markersize=5,
            clip_on=False,
            zorder=3 if curve.reference else 2,
            label=curve.label,
        )
        ends[curve.label] = (percent[-1], colour)
    _finish(axes, title, subtitle)
    axes.set_xlim(0, last)
    _name_ends(axes, last, ends)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG or SVG as a whole; the same drawing gives the same bytes."""
    temporary = path.with_name(f".{path.name}.tmp")
    with matplotlib.rc_context({"svg.hashsalt": path.parent.name}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    temporary.replace(path)


def _finish(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=24 if subtitle else 8)
    if subtitle:
        axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=9.5, color="#444444")
    axes.set_xlabel("step")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 100)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name_ends(axes: Axes, x: float, ends: Mapping[str, tuple[float, str]]) -> None:
    places = spread([value for value, _ in ends.values()], gap=4.6, low=1.5, high=99.0)
    for (label, (value, colour)), place in zip(ends.items(), places, strict=True):
        axes.annotate(
            f"{label}  {value:.1f} %",
            xy=(x, value),
            xytext=(1.045, place / 100),
            textcoords="axes fraction",
            color=_darker(colour),
            fontsize=10,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 0,
            },
        )


def _darker(colour: str) -> tuple[float, ...]:
    """The colour as text can bear it on white."""
    return tuple(0.75 * part for part in to_rgb(colour))


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move values apart until neighbours are `gap` apart, in their order, within low..high, moving little.

    Args:
        values: where labels would like to be; NaN counts as `low`.
        gap: least distance; smaller where they would not fit otherwise.
        low: least place.
        high: greatest place.
    """
    wanted = [min(max(value, low), high) if value == value else low for value in values]
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    groups: list[list[int]] = []
    places: dict[int, float] = {}
    for index in order:  # pool adjacent labels that would touch, centre each pool on its mean
        groups.append([index])
        while True:
            pool = groups[-1]
            centre = sum(wanted[one] for one in pool) / len(pool)
            first = min(max(centre - gap * (len(pool) - 1) / 2, low), high - gap * (len(pool) - 1))
            for position, one in enumerate(pool):
                places[one] = first + gap * position
            if len(groups) < 2 or places[groups[-2][-1]] + gap <= places[pool[0]] + 1e-9:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
    return [places[index] for index in range(len(wanted))]
