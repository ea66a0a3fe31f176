"""Runs beside one another: their final accuracies, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from horovod_byz.training.tabular import Kept, differing

__all__ = ["compared", "plain"]

_COMMON = ("data.name", "data.partition", "model", "workers", "byzantine", "rule", "attack", "steps", "seed")


def plain(runs: Sequence[Kept]) -> dict[str, Any]:
    """The comparison in plain values."""
    names = differing(runs)
    return {
        "differing": names,
        "runs": [
            {
                "run": run.name,
                "settings": {name: run.words.get(name) for name in names},
                "complete": run.summary is not None,
                "step": run.metrics[-1]["step"] if run.metrics else None,
                "accuracy": run.metrics[-1]["accuracy"] if run.metrics else None,
                "best_accuracy": max((record["accuracy"] for record in run.metrics), default=None),
                "diverged_at": None if run.summary is None else run.summary["diverged_at"],
                "label_skew": run.skew,
            }
            for run in runs
        ],
    }


def compared(runs: Sequence[Kept]) -> Iterator[RenderableType]:
    """What to print, in order."""
    data = plain(runs)
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    table.add_column("run", overflow="fold")
    for name in data["differing"]:
        table.add_column(escape(name), overflow="fold")
    for heading in ("accuracy", "best", "at step"):
        table.add_column(heading, justify="right")
    for run in data["runs"]:
        settings = [_shown(run["settings"][name]) for name in data["differing"]]
        marks = "" if run["complete"] else " (not complete)"
        if run["diverged_at"] is not None:
            marks += f" (diverged at {run['diverged_at']})"
        step = "-" if run["step"] is None else f"{run['step']}{marks}"
        table.add_row(
            escape(run["run"]), *settings, _percent(run["accuracy"]), _percent(run["best_accuracy"]), step
        )
    yield table
    equal = [f"{name} = {runs[0].words[name]}" for name in _COMMON if name not in data["differing"]]
    if equal and len(runs) > 1:
        yield Text(f"Equal in all: {', '.join(equal)}.")


def _shown(value: Any) -> str:
    return "-" if value is None else escape(str(value))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
