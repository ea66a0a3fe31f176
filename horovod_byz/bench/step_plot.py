"""The figure of the step benchmark: the ratio of each variant, one panel a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from horovod_byz.bench.step_page import title
from horovod_byz.training.plots import save

__all__ = ["draw"]

# Okabe and Ito (2008).
_WHOLE, _ALONE = "#0072B2", "#E69F00"
_MOST = 4  # panels
_LONGEST = 4  # beyond so many times the baseline a bar is cut, and says its number


def draw(jobs: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes the figure: bars of the medians with the quartiles, the baseline at 1.

    Of many jobs it shows those of the large model on 4 ranks; the page's tables have all.
    """
    jobs = list(jobs)
    jobs = [job for job in jobs if (job["model"], job["ranks"]) == ("large", 4)] or jobs[:_MOST]
    heights = [0.6 + 0.32 * len(job["variants"]) for job in jobs]
    figure = Figure(figsize=(9, 0.8 + sum(heights)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        "Time of a step over that of the framework's own optimizer", x=0.01, ha="left", fontsize=12
    )
    panels = figure.subplots(len(jobs), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, job in zip(panels[:, 0], jobs, strict=True):
        entries = job["variants"][::-1]
        for key, label, colour, shift in (
            ("ratio", "whole step", _WHOLE, 0.2),
            ("communication_ratio", "synchronize() alone", _ALONE, -0.2),
        ):
            places = [i + shift for i, entry in enumerate(entries) if entry[key]]
            spreads = [entry[key] for entry in entries if entry[key]]
            middles = [min(spread["mid"], _LONGEST) for spread in spreads]
            low = [max(0.0, middle - spread["low"]) for middle, spread in zip(middles, spreads, strict=True)]
            high = [
                max(0.0, min(spread["high"], _LONGEST) - middle)
                for middle, spread in zip(middles, spreads, strict=True)
            ]
            axes.barh(
                places,
                middles,
                0.36,
                xerr=(low, high),
                color=colour,
                label=label,
                error_kw={"linewidth": 0.8},
            )
            for place, spread in zip(places, spreads, strict=True):
                axes.text(
                    _LONGEST * 1.01, place, f"{spread['mid']:.2f}", va="center", fontsize=7, color=colour
                )
        axes.set_yticks(range(len(entries)), [entry["name"] for entry in entries], fontsize=8)
        axes.axvline(1, color="#888888", linewidth=1, linestyle="--")
        loaded = " (machine loaded)" if job["loaded"] else ""
        axes.set_title(title(job) + loaded, loc="left", fontsize=8, color="#555555")
        axes.set_xlim(0, _LONGEST)
        axes.grid(True, axis="x", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="upper right", ncols=2)
    save(figure, path)
