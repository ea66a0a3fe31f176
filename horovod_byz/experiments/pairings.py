"""`make detox-pairings`: each DETOX pairing beside its vanilla rule, as a table and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from horovod_byz.experiments.grid import Grid
from horovod_byz.experiments.runs import RunFolder, replace_file

PAIRS = (("Median", "D-Median"), ("Multi-Krum", "D-Multi-Krum"), ("Bulyan", "D-Bulyan"))
_VANILLA, _DETOX = "#D55E00", "#0072B2"
Accuracies = dict[tuple[str, ...], list[float]]


def accuracies(grid: Grid, results: Path) -> Accuracies:
    """Final test accuracies in percent by (rule, attack, f), one per seed.

    Raises:
        RunError: naming the first run that is not complete.
    """
    found: Accuracies = {}
    for cell in grid.cells:
        key = tuple(label for axis, label in cell.labels.items() if axis != "seed")
        summary = RunFolder(results / grid.name / cell.name).read_json("summary.json")
        found.setdefault(key, []).append(100 * float(summary["accuracy"]))
    return found


def table(grid: Grid, found: Accuracies, clean: float) -> str:
    """A Markdown table: mean accuracy over seeds, lowest to highest in brackets, and DETOX's gain."""
    lines = [
        f"# {grid.title}",
        "",
        f"Final test accuracy in percent: mean over {len(grid.axes['seed'])} seeds (lowest to highest). "
        f"The mean of 45 honest workers reaches {clean:.1f}.",
        "",
        "| f | attack | rule | vanilla | DETOX | gain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for f in grid.axes["f"]:
        for attack in grid.axes["attack"]:
            for vanilla, detox in PAIRS:
                before, after = found[vanilla, attack, f], found.get((detox, attack, f))
                shown = "does not hold" if after is None else _spread(after)
                gain = "" if after is None else f"{np.mean(after) - np.mean(before):+.1f}"
                lines.append(f"| {f} | {attack} | {vanilla} | {_spread(before)} | {shown} | {gain} |")
    return "\n".join([*lines, "", _losses(found)]) + "\n"


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _losses(found: Accuracies) -> str:
    """Where DETOX does not win, from the numbers."""
    lost = [
        f"{vanilla} under {attack} with f = {f}"
        for vanilla, detox in PAIRS
        for rule, attack, f in found
        if rule == vanilla
        and (detox, attack, f) in found
        and np.mean(found[detox, attack, f]) < np.mean(found[vanilla, attack, f])
    ]
    return "DETOX does not win for " + "; ".join(lost) + "." if lost else "DETOX wins in every cell."


def draw(grid: Grid, found: Accuracies, clean: float, path: Path) -> None:
    """One panel per pairing and f; each attack a pair of dots joined by a line, thin lines for the seeds."""
    rows, attacks = grid.axes["f"], grid.axes["attack"]
    figure = Figure(figsize=(11, 6.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), len(PAIRS), sharex=True, sharey=True)
    figure.suptitle(
        f"{grid.title}\nfinal test accuracy, mean and range of seeds", fontsize=12, x=0.01, ha="left"
    )
    for line, f in zip(panels, rows, strict=True):
        for axes, pair in zip(line, PAIRS, strict=True):
            _panel(axes, found, pair, f, attacks)
            axes.axvline(clean, color="#000000", linestyle="--", linewidth=1)
            axes.set_title(f"{pair[0]}, {f} of 45 Byzantine", loc="left", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("test accuracy (%)")
    handles = [
        *(panels[0][0].plot([], [], "o", color=_VANILLA, label="without redundancy")),
        *(panels[0][0].plot([], [], "s", color=_DETOX, label="DETOX, r = 3")),
        *(panels[0][0].plot([], [], "--", color="#000000", label="mean, no attack")),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format=path.suffix[1:])
    temporary.replace(path)


def _panel(axes: Axes, found: Accuracies, pair: tuple[str, str], f: str, attacks: tuple[str, ...]) -> None:
    places = np.arange(len(attacks))[::-1].astype(float)
    for place, attack in zip(places, attacks, strict=True):
        for rule, colour, marker, shift in ((pair[0], _VANILLA, "o", 0.14), (pair[1], _DETOX, "s", -0.14)):
            values = found.get((rule, attack, f))
            if values is None:
                axes.text(
                    50, place + shift, "does not hold for 5 of 15 votes", fontsize=8, va="center", ha="center"
                )
                continue
            axes.plot([min(values), max(values)], [place + shift] * 2, color=colour, linewidth=1.2)
            axes.plot(np.mean(values), place + shift, marker, color=colour, markersize=6)
    axes.set_yticks(places, attacks)
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(attacks) - 0.4)
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    """Computes what is missing, then writes the table and the figure beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=Path, default=Path("launch/experiments"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--jobs", type=int, default=None)
    given = parser.parse_args()
    grids = [
        Grid.read(given.experiments / f"{name}.toml") for name in ("detox-pairings-clean", "detox-pairings")
    ]
    for grid in grids:
        grid.compute(given.results / grid.name, given.data_dir, given.jobs)
    reference, grid = grids
    clean = float(
        np.mean([value for found in accuracies(reference, given.results).values() for value in found])
    )
    found = accuracies(grid, given.results)
    text = table(grid, found, clean)
    replace_file(given.results / grid.name / "README.md", text.encode())
    draw(grid, found, clean, given.results / grid.name / "figure.png")
    print(text)


if __name__ == "__main__":
    main()
