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
from horovod_byz.theory.detox import worst_case_byzantine_votes
from horovod_byz.training.config import ConfigError, RunConfig
from horovod_byz.training.data import classes_of
from horovod_byz.training.runs import RunError

__all__ = ["STATISTICS", "Run", "Series", "read", "statistic"]

Floats = NDArray[np.float64]
CRASHED, GUESSING, TRAINED = 2.0, 1.2, 3.0
"""Multiples of a guess's accuracy (10 % for ten classes). A run that ends below the first counts as crashed,
at the second or below as guessing, at the third or above as trained."""


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

    @property
    def chance(self) -> float:
        """The accuracy of a guess, in percent."""
        return 100.0 / classes_of(self.config.data.name)

    @property
    def crashed(self) -> bool:
        """Whether it ended near guessing, or diverged."""
        return bool(self._end < CRASHED * self.chance) or self.diverged_at is not None

    @property
    def guesses(self) -> bool:
        """Whether it ended at guessing, or diverged: nothing is left of its training."""
        return bool(self._end <= GUESSING * self.chance) or self.diverged_at is not None

    @property
    def trained(self) -> bool:
        """Whether it ended far above guessing."""
        return bool(self._end >= TRAINED * self.chance) and self.diverged_at is None

    def trained_at(self, step: int) -> bool:
        """Whether it was far above guessing at a step."""
        return _at(self, "accuracy", {"at": step}) >= TRAINED * self.chance

    @property
    def _end(self) -> float:
        return float(self.values("accuracy")[-1])

    @cached_property
    def lost_votes(self) -> float | None:
        """Votes that Byzantine workers win, a mean over the attacked steps; None where nothing is voted on.

        It follows from the configuration alone.
        """
        wire, redundancy = self.config.make_wire(), self.config.make_redundancy()
        if redundancy.r == 1 or wire is None:
            return None
        start = self.config.attack_start
        last = start + 1 if self.config.schedule == "fixed" else self.config.steps
        groups = redundancy.groups_of(self.config.workers)
        lost = []
        for step in range(start, last):
            who = set(wire.workers(step))
            lost.append(sum(2 * len(who & set(group)) > len(group) for group in groups))
        return float(np.mean(lost))

    @property
    def may_lose_votes(self) -> bool:
        """Whether some draw of its Byzantine workers wins a vote."""
        if self.lost_votes is None:
            return False
        config = self.config
        return worst_case_byzantine_votes(config.workers, config.byzantine, config.make_redundancy().r) > 0


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

    @property
    def votes(self) -> str:
        """Votes that Byzantine workers win, for each repeat or per step; empty where nothing is voted on."""
        lost = [run.lost_votes for run in self.runs if run.lost_votes is not None]
        if not lost:
            return ""
        if self.runs[0].config.schedule != "fixed":
            return f"{np.mean(lost):.2f} per step"
        return ", ".join(f"{votes:g}" for votes in lost)

    @property
    def spared(self) -> bool:
        """Whether its votes are under attack and no repeat lost one, by luck: the labels do not say so."""
        return (
            "votes" not in self.labels
            and any(run.may_lose_votes for run in self.runs)
            and not any(run.lost_votes for run in self.runs)
        )


def read(cells: Sequence[Cell], results: Path, *, growing: bool = False) -> tuple[Series, ...]:
    """Reads complete runs, grouped into series in the order of the cells.

    Args:
        cells: the runs.
        results: the folder of results.
        growing: of each series only the seeds that are there, one at least.

    Raises:
        RunError: naming the first run that is missing.
    """
    grouped: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    missing: dict[tuple[tuple[str, str], ...], Cell] = {}
    for cell in cells:
        key = tuple((axis, label) for axis, label in cell.labels.items() if axis != SEED)
        runs = grouped.setdefault(key, [])
        if cell.complete(results):
            runs.append(_run(cell, results))
        else:
            missing.setdefault(key, cell)
    for key, cell in missing.items():
        if not growing or not grouped[key]:
            raise RunError(f"the run {cell.name!r} is missing in {results / cell.grid}: compute it first")
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
    return 100.0 * run.crashed


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
