"""Prints a run folder for a person: what it was, how it went, how each worker was treated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from horovod_byz.experiments.runs import RunError, RunFolder

__all__ = ["show"]


def show(path: Path, console: Console | None = None) -> None:
    """Print a run's configuration in one line, its evaluations, and its verdicts.

    Raises:
        RunError: when there is no run in that folder.
    """
    console = console if console is not None else Console()
    folder = RunFolder(path)
    if not folder.exists:
        raise RunError(f"{path} holds no run: name a folder that horovod-byz train wrote")
    config = folder.config
    attack = "a script" if config.script else str(config.attack)
    console.print(
        f"{config.data.name}, {config.model}, {config.workers} workers, {config.byzantine} Byzantine "
        f"({attack}), rule {config.rule}, collected {config.collect}, seed {config.seed}",
        highlight=False,
    )
    console.print(_metrics(folder.metrics))
    if not folder.complete:
        console.print("The run is not complete: continue it with --resume.")
        return
    summary = folder.read_json("summary.json")
    diverged = summary["diverged_at"]
    console.print(
        f"Final accuracy {100 * summary['accuracy']:.2f} %, best {100 * summary['best_accuracy']:.2f} % "
        f"at step {summary['best_step']}; "
        + (
            "never diverged."
            if diverged is None
            else f"an honest loss was not finite from step {diverged} on."
        ),
        highlight=False,
    )
    console.print(_verdicts(folder.read_json("verdicts.json")))


def _metrics(records: list[dict[str, Any]]) -> Table:
    """At most twelve evaluations, evenly chosen, the last among them."""
    table = Table(title="evaluations", title_justify="left")
    for heading in ("step", "accuracy", "top 3", "test loss", "train loss"):
        table.add_column(heading, justify="right")
    every = max(1, -(-len(records) // 12))
    for one in [*records[:-1:every], *records[-1:]]:
        losses = ["-" if one[name] is None else f"{one[name]:.4f}" for name in ("loss", "train_loss")]
        table.add_row(
            str(one["step"]), f"{100 * one['accuracy']:.2f} %", f"{100 * one['top3']:.2f} %", *losses
        )
    return table


def _verdicts(verdicts: dict[str, Any]) -> Table:
    table = Table(title=f"workers, over {verdicts['steps']} steps", title_justify="left")
    for heading in ("worker", "Byzantine", "mean weight", "non-finite", "far"):
        table.add_column(heading, justify="right")
    for one in verdicts["workers"]:
        table.add_row(
            str(one["worker"]),
            str(one["byzantine_steps"]),
            f"{one['mean_weight']:.4f}",
            str(one["nonfinite_steps"]),
            str(one["far_steps"]),
        )
    return table
