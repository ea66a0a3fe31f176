"""An experiment: a grid of runs from a TOML file, computed where missing, on all cores."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from horovod_byz.experiments import config as configs
from horovod_byz.experiments.config import ConfigError, RunConfig
from horovod_byz.experiments.runs import RunFolder

# What the figures and tables need, and what is committed: a checkpoint can be trained again.
_NOT_KEPT = ("checkpoint.pt",)


@dataclass(frozen=True)
class Cell:
    """One run of a grid: the value of each axis by name, and its configuration."""

    labels: Mapping[str, str]
    config: RunConfig

    @property
    def name(self) -> str:
        """The run's folder."""
        return "_".join(label.replace(" ", "-") for label in self.labels.values())


@dataclass(frozen=True)
class Grid:
    """An experiment file.

    Attributes:
        name: the experiment's name, that of the file.
        title: what it shows.
        axes: per axis, its labels in order.
        cells: the runs.
    """

    name: str
    title: str
    axes: Mapping[str, tuple[str, ...]]
    cells: tuple[Cell, ...]

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Reads a grid: `[base]` holds what all runs share, each `[axes.NAME]` labels with what they set.

        `leave_out` lists combinations of labels, such as `{rule = "D-Bulyan", f = "10"}`, without a run.

        Raises:
            ConfigError: if the file is not TOML, or a run's configuration is wrong; it names the run.
        """
        data = configs.read(path)
        axes: dict[str, dict[str, Any]] = data.get("axes", {})
        without = data.get("leave_out", [])
        cells = []
        for labels in _combinations(axes):
            if any(all(labels.get(axis) == label for axis, label in one.items()) for one in without):
                continue
            settings: dict[str, Any] = dict(data.get("base", {}))
            for axis, label in labels.items():
                settings = _merged(settings, axes[axis][label])
            try:
                cells.append(Cell(labels, configs.make(settings)))
            except ConfigError as error:
                raise ConfigError(f"{path}, run {labels}: {error}") from error
        named = {axis: tuple(values) for axis, values in axes.items()}
        return cls(path.stem, data.get("title", path.stem), named, tuple(cells))

    def missing(self, out: Path) -> list[Cell]:
        """The runs that are not complete in `out`."""
        return [cell for cell in self.cells if not RunFolder(out / cell.name).complete]

    def compute(self, out: Path, data_dir: Path | None = None, jobs: int | None = None) -> None:
        """Trains every missing run, one thread each; an interruption loses the runs in flight only."""
        missing = self.missing(out)
        jobs = jobs or len(os.sched_getaffinity(0))
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns) as progress, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            task = progress.add_task(
                self.name, total=len(self.cells), completed=len(self.cells) - len(missing)
            )
            futures = [
                pool.submit(_train, cell.config.to_data(), out / cell.name, data_dir) for cell in missing
            ]
            for future in as_completed(futures):
                future.result()
                progress.advance(task)


def _train(data: dict[str, Any], folder: Path, data_dir: Path | None) -> None:
    from horovod_byz.experiments.train import Launch, train

    train(configs.make(data), Launch(folder, data_dir, resume=True))
    for name in _NOT_KEPT:
        (folder / name).unlink(missing_ok=True)


def _combinations(axes: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for labels in itertools.product(*axes.values()):
        yield dict(zip(axes, labels, strict=True))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
