"""Prints a run folder for a person: what it was, how it went, how each worker was treated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from horovod_byz.common.terminal import console as terminal
from horovod_byz.training.runs import RunError, RunFolder

__all__ = ["show"]


def show(path: Path, console: Console | None = None) -> None:
    """Print a run's configuration in one line, its evaluations, and its verdicts.

    Raises:
        RunError: when there is no run in that folder.
    """
    console = console if console is not None else terminal()
    folder = RunFolder(path)
    if not folder.exists:
        folder.check_whole()
        raise RunError(f"{path} holds no run: name a folder that horovod-byz train wrote")
    config = folder.config
    attack = "a script" if config.script else str(config.attack)
    console.print(
        f"{config.data.name}, {config.model}, {config.workers} workers, {config.byzantine} Byzantine "
        f"({attack}), rule {config.rule}, collected {config.collect}, seed {config.seed}",
        highlight=False,
    )
    records = folder.metrics
    console.print(_metrics(records) if records else "It holds no evaluation yet.")
    if not folder.complete:
        console.print("The run is not complete: continue it with --resume.")
        return
    summary, verdicts = folder.summary, folder.verdicts
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
    console.print(_verdicts(verdicts))
    console.print(_named(verdicts), highlight=False)


def _metrics(records: list[dict[str, Any]]) -> Table:
    """At most twelve evaluations, evenly chosen, the last among them."""
    table = Table(title="evaluations", title_justify="left")
    for heading in ("step", "accuracy", "top 3", "test loss", "train loss"):
        table.add_column(heading, justify="right")
    every = max(1, -(-len(records) // 12))
    for record in [*records[:-1:every], *records[-1:]]:
        losses = ["-" if record[name] is None else f"{record[name]:.4f}" for name in ("loss", "train_loss")]
        table.add_row(
            str(record["step"]), f"{100 * record['accuracy']:.2f} %", f"{100 * record['top3']:.2f} %", *losses
        )
    return table


def _verdicts(verdicts: dict[str, Any]) -> Table:
    """One line per worker; groups and lost votes where there was redundancy."""
    workers = verdicts["workers"]
    table = Table(title=f"workers, over {verdicts['steps']} steps", title_justify="left")
    columns = {
        "worker": "worker",
        "group": "group",
        "Byzantine": "byzantine_steps",
        "mean weight": "mean_weight",
        "outvoted": "outvoted_steps",
        "non-finite": "nonfinite_steps",
        "far": "far_steps",
        "last suspect": "last_suspect_step",
    }
    # A run without redundancy has no groups; runs of earlier versions note fewer things.
    shown = [heading for heading, key in columns.items() if any(key in worker for worker in workers)]
    if "group" not in shown and not any(worker.get("outvoted_steps") for worker in workers):
        shown = [heading for heading in shown if heading != "outvoted"]
    for heading in shown:
        table.add_column(heading, justify="right")
    for worker in workers:
        table.add_row(*(_cell(worker.get(columns[heading])) for heading in shown))
    return table


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _named(verdicts: dict[str, Any]) -> str:
    """Which workers' rows stood out, reason by reason, and what that shows."""
    reasons = {
        "Outvoted (a wrong row, or a group without a majority)": "outvoted_steps",
        "Not finite": "nonfinite_steps",
        "Far from the aggregate (honest rows may be, too)": "far_steps",
    }
    lines = []
    for reason, key in reasons.items():
        counts = {worker["worker"]: worker.get(key, 0) for worker in verdicts["workers"]}
        named = [f"worker {worker} in {count} steps" for worker, count in counts.items() if count]
        if named:
            lines.append(f"{reason}: {', '.join(named)}.")
    return "\n".join(lines) or "No worker's row stood out in any step."
