"""Runs read back as numbers: the repeats of one cell are a series, and statistics sum it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.common.words import known
from horovod_byz.reproduction.grid import SEED, Cell
from horovod_byz.training.config import ConfigError, RunConfig
from horovod_byz.training.runs import RunError

__all__ = ["STATISTICS", "Run", "Series", "read", "statistic"]

Floats = NDArray[np.float64]
CRASHED = 20.0
"""Accuracy in percent below which a run on ten classes counts as crashed."""


@dataclass(frozen=True, eq=False)
class Run:
    """One complete run.

    Attributes:
        labels: its label on each axis.
        config: its configuration.
        metrics: what `metrics.jsonl` holds: one record per evaluation.
        record: what `run.json` holds: summary, environment, verdicts, notes.
    """

    labels: Mapping[str, str]
    config: RunConfig
    metrics: Sequence[Mapping[str, Any]]
    record: Mapping[str, Any]

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """The steps of the evaluations."""
        return np.array([record["step"] for record in self.metrics], np.int64)

    def values(self, metric: str) -> Floats:
        """A metric at each evaluation; accuracies in percent, NaN where it was not finite."""
        factor = 100.0 if metric in ("accuracy", "top3") else 1.0
        values = [record[metric] for record in self.metrics]
        return np.array([np.nan if value is None else factor * value for value in values], np.float64)

    @property
    def diverged_at(self) -> int | None:
        """The first step with an honest loss that was not finite; None if there was none."""
        step: int | None = self.record["summary"]["diverged_at"]
        return step


@dataclass(frozen=True, eq=False)
class Series:
    """The repeats of one cell: the same labels but for the seed.

    Attributes:
        labels: label by axis, without the seed.
        runs: one per seed, in their order.
    """

    labels: Mapping[str, str]
    runs: tuple[Run, ...]

    @property
    def steps(self) -> NDArray[np.int64]:
        """The steps of the evaluations, the same in all repeats."""
        return self.runs[0].steps

    def values(self, metric: str) -> Floats:
        """A metric, `(repeats, evaluations)`."""
        return np.stack([run.values(metric) for run in self.runs])

    def final(self, metric: str) -> Floats:
        """A metric at the end of each repeat, `(repeats,)`."""
        return np.array([run.values(metric)[-1] for run in self.runs])


def read(cells: Sequence[Cell], results: Path) -> tuple[Series, ...]:
    """Reads complete runs, grouped into series in the order of the cells.

    Raises:
        RunError: naming the first run that is missing.
    """
    grouped: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for cell in cells:
        if not cell.complete(results):
            raise RunError(f"the run {cell.name!r} is missing in {results / cell.grid}: compute it first")
        key = tuple((axis, label) for axis, label in cell.labels.items() if axis != SEED)
        grouped.setdefault(key, []).append(_run(cell, results))
    return tuple(Series(dict(key), tuple(runs)) for key, runs in grouped.items())


def _run(cell: Cell, results: Path) -> Run:
    folder = cell.folder(results)
    return Run(cell.labels, cell.config, folder.metrics, folder.record)


Options = Mapping[str, Any]


def _final(run: Run, metric: str, options: Options) -> float:
    return float(run.values(metric)[-1])


def _at(run: Run, metric: str, options: Options) -> float:
    """At the last evaluation up to a step."""
    index = int(np.searchsorted(run.steps, options["at"], side="right")) - 1
    return float(run.values(metric)[max(index, 0)])


def _drop(run: Run, metric: str, options: Options) -> float:
    """From the last evaluation before the attack to the end; without an attack, from the same step."""
    start = options.get("at", run.config.attack_start)
    return _at(run, metric, {"at": start}) - _final(run, metric, options)


def _crashed(run: Run, metric: str, options: Options) -> float:
    """100 if the run ended near guessing or diverged, else 0: the mean is the percentage of such runs."""
    return 100.0 * (_final(run, metric, options) < CRASHED or run.diverged_at is not None)


def _reaches(run: Run, metric: str, options: Options) -> float:
    """The first evaluated step at or above a level; infinite if there is none."""
    above = np.flatnonzero(run.values(metric) >= options["level"])
    return float(run.steps[above[0]]) if len(above) else float("inf")


STATISTICS: dict[str, Callable[[Run, str, Options], float]] = {
    "final": _final,
    "at": _at,
    "drop": _drop,
    "crashed": _crashed,
    "reaches": _reaches,
}


def statistic(name: str, series: Series, metric: str, options: Options) -> Floats:
    """A statistic of each repeat, `(repeats,)`.

    Raises:
        ConfigError: if there is no such statistic.
    """
    try:
        known(name, STATISTICS, "statistic")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return np.array([STATISTICS[name](run, metric, options) for run in series.runs])
