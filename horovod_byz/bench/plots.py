"""Figures of a benchmark: time over the floor against n, and time against d with its slope."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from horovod_byz.bench.clock import MEAN, READ
from horovod_byz.bench.scaling import slope
from horovod_byz.training.plots import save

__all__ = ["draw"]

_WAYS = (
    MEAN,
    "median",
    "trimmed mean",
    "mean around median",
    "BrSGD",
    "Multi-Krum",
    "geometric median",
    "DETOX, median",
)
# Okabe and Ito (2008).
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A7A00")


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Writes rows.png (against n) and coordinates.png (against d) into a folder."""
    sizes = sorted({cell["d"] for cell in result["cells"]})
    middle = min(sizes, key=lambda d: abs(d - 1e6))
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['level']}, {machine['threads']} thread(s), {result['dtype']}"
    figure, axes = _figure(f"Time over reading every value once, d = {middle:,}", where)
    for way, colour in zip(_WAYS, _COLOURS, strict=True):
        points = {
            cell["n"]: timing["over_floor"]
            for cell in result["cells"]
            for timing in cell["timings"]
            if cell["d"] == middle and timing["name"] == way
        }
        if points:
            n = sorted(points)
            axes.plot(n, [points[k]["mid"] for k in n], "o-", color=colour, label=way, markersize=4)
            low, high = [points[k]["low"] for k in n], [points[k]["high"] for k in n]
            axes.fill_between(n, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(1, color="#888888", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="rows n", ylabel="x read floor")
    _save(figure, axes, folder / "rows.png")

    counts: dict[int, int] = {}
    for cell in result["cells"]:
        counts[cell["n"]] = counts.get(cell["n"], 0) + 1
    rows = max(counts, key=lambda k: (counts[k], k == 45, k))
    figure, axes = _figure(f"Time against d, n = {rows}", where)
    for way, colour in zip((READ, *_WAYS), ("#888888", *_COLOURS), strict=True):
        times = {
            cell["d"]: timing["cpu_ms"]
            for cell in result["cells"]
            for timing in cell["timings"]
            if cell["n"] == rows and timing["name"] == way
        }
        if times:
            fitted = slope(times)
            label = way if fitted is None else f"{way}: d^{fitted:.2f}"
            axes.plot(
                sorted(times),
                [times[d] for d in sorted(times)],
                "o-",
                color=colour,
                label=label,
                markersize=4,
            )
    axes.set(xscale="log", yscale="log", xlabel="coordinates d", ylabel="processor time, ms")
    _save(figure, axes, folder / "coordinates.png")


def _figure(title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    axes.set_title(subtitle, loc="left", fontsize=8, color="#555555")
    axes.grid(True, which="major", color="#e5e5e5", linewidth=0.6)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)
