"""Reports a run folder: the conclusion first, then what it was, how it went, and each worker's verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from horovod_byz.common.terminal import console as terminal
from horovod_byz.ledger.history import History, files, read
from horovod_byz.ledger.parsed import Binding, End, Totals
from horovod_byz.ledger.report.overview import Overview, overview
from horovod_byz.ledger.report.screen import NOT_MEASURED, print_on, screen
from horovod_byz.ledger.truth import GroundTruth
from horovod_byz.training.checkpoint import CheckpointError
from horovod_byz.training.runs import CHECKPOINTS, RunError, RunFolder

__all__ = ["Evaluated", "load", "show"]


@dataclass(frozen=True)
class Evaluated:
    """A run of `horovod-byz train` with its conclusion.

    Attributes:
        folder: the run folder.
        verdicts: how each worker was treated, up to the last checkpoint where the run is not complete; None
            where nothing was kept yet.
        shown: the conclusion: of the ledger's file where the folder has one, else of the verdicts.
    """

    folder: RunFolder
    verdicts: dict[str, Any] | None
    shown: Overview

    @property
    def plain(self) -> dict[str, Any]:
        """The evaluations and results, in plain values."""
        complete = self.folder.complete
        return {
            "configuration": _configuration(self.folder),
            "complete": complete,
            "summary": self.folder.summary if complete else None,
            "evaluations": self.folder.metrics,
            "verdicts": self.verdicts,
        }

    def lines(self) -> Iterator[RenderableType]:
        """What to print, in order."""
        if files(self.folder.path):
            yield from screen(self.shown)
        else:
            yield next(screen(self.shown))
            for named in self.shown.conclusion.culprits:
                if named.sentence != self.shown.conclusion.line:
                    yield Text(f"  {named.sentence}")
        yield Text(_configuration(self.folder))
        records = self.folder.metrics
        yield _metrics(records) if records else Text("It holds no evaluation yet.")
        if not self.folder.complete:
            yield Text("The run is not complete: continue it with --resume.")
            yield from map(Text, self.shown.history.notes)
        else:
            yield Text(_summary(self.folder.summary))
        if self.verdicts is not None:
            yield _verdicts(self.verdicts)
            yield Text(_named(self.verdicts))


def load(path: Path) -> Evaluated:
    """Reads a run folder.

    Raises:
        RunError: when there is no run in that folder, or a file is damaged.
        LedgerFileError: when its ledger.jsonl is no ledger.
    """
    folder = RunFolder(path)
    if not folder.exists:
        folder.check_whole()
        raise RunError(f"{path} holds no run: name a folder that horovod-byz train wrote")
    verdicts, notes = _kept_verdicts(folder)
    history = read(path) if files(path) else _history(folder, verdicts)
    return Evaluated(folder, verdicts, overview(replace(history, notes=(*history.notes, *notes))))


def show(path: Path, console: Console | None = None) -> None:
    """Print a run's conclusion, its configuration in one line, its evaluations, and its verdicts.

    Raises:
        RunError: when there is no run in that folder.
    """
    print_on(console if console is not None else terminal(), load(path).lines())


def _kept_verdicts(folder: RunFolder) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The verdicts of a complete run, else of its last checkpoint that is whole; and what was damaged."""
    if folder.complete:
        return folder.verdicts, ()
    notes: tuple[str, ...] = ()
    for name in CHECKPOINTS:
        try:
            state = folder.load_checkpoint(name)
            if state is not None:
                truth = GroundTruth(folder.config.workers, lambda step: ())
                truth.load_state_dict(state["ledger"])
                return truth.summary(), notes
        except (CheckpointError, KeyError, TypeError) as error:
            notes = (*notes, f"The accounts of {name} cannot be read: {error}")
    return None, notes


def _history(folder: RunFolder, verdicts: dict[str, Any] | None) -> History:
    """A run that wrote no ledger's file, as one: counts and last steps, no first ones."""
    config = folder.config
    workers = verdicts["workers"] if verdicts else []
    groups: dict[int, tuple[int, ...]] = {}
    for worker in workers:
        if worker.get("group") is not None:
            groups[worker["group"]] = (*groups.get(worker["group"], ()), worker["worker"])
    binding = Binding(
        workers=config.workers,
        rule=str(config.rule),
        collect=str(config.collect),
        groups=tuple(groups.values()) or None,
    )
    steps = verdicts["steps"] if verdicts else 0
    totals = {worker["worker"]: _totals(worker, steps) for worker in workers}
    ends = (End(0, max(steps - 1, 0), 0),) if folder.complete else ()
    return History(folder.path, (binding,), totals=totals, steps=steps, ends=ends)


def _totals(worker: dict[str, Any], steps: int) -> Totals:
    counts = {"outvoted": worker.get("outvoted_steps", 0), "non-finite": worker.get("nonfinite_steps", 0)}
    return Totals(
        worker["worker"],
        steps,
        worker.get("mean_weight"),
        None,
        {reason: count for reason, count in counts.items() if count},
        worker.get("first_suspect_step"),
        worker.get("last_suspect_step"),
        worker.get("group"),
    )


def _configuration(folder: RunFolder) -> str:
    config = folder.config
    attack = "a script" if config.script else str(config.attack)
    return (
        f"{config.data.name}{_divided(folder)}, {config.model}, {config.workers} workers, "
        f"{config.byzantine} Byzantine "
        f"({attack}), rule {config.rule}, collected {config.collect}, seed {config.seed}"
    )


def _divided(folder: RunFolder) -> str:
    """How the data were divided among the workers, where they were."""
    split = folder.config.data.partition
    if not split.divides:
        return ""
    try:
        skew = folder.environment.get("label_skew")
    except RunError:  # lost or damaged: it is written anew when the run is continued
        skew = None
    return f" by {split}" + (f" (label skew {skew:.2f})" if skew is not None else "")


def _summary(summary: dict[str, Any]) -> str:
    diverged = summary["diverged_at"]
    end = "never diverged." if diverged is None else f"an honest loss was not finite from step {diverged} on."
    return (
        f"Final accuracy {100 * summary['accuracy']:.2f} %, best {100 * summary['best_accuracy']:.2f} % "
        f"at step {summary['best_step']}; {end}"
    )


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
        table.add_row(*(_cell(heading, worker.get(columns[heading])) for heading in shown))
    return table


def _cell(heading: str, value: float | None) -> str:
    if value is None:
        return NOT_MEASURED if heading == "mean weight" else "-"
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
