"""A grid: the runs that share a results folder, as the product of labelled axes in a TOML file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from horovod_byz.common.words import known
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError, RunConfig
from horovod_byz.training.runs import RunError, RunFolder

__all__ = ["SEED", "Cell", "Grid", "Read", "Where", "matches", "read_like"]

SEED = "seed"
"""The axis of repeats; tables and figures summarise over it."""

Where = Mapping[str, str | Sequence[str]]
"""A selection of runs: for some axes a label, or several. Other axes may have any label."""

Read = Callable[[Path], Mapping[str, Any]]
"""Reads a TOML file as plain data."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid: the label of each axis by name, and its configuration."""

    grid: str
    labels: Mapping[str, str]
    config: RunConfig

    @property
    def name(self) -> str:
        """The run's folder."""
        return "_".join(_slug(label) for label in self.labels.values())

    def folder(self, results: Path) -> RunFolder:
        """The run's folder, present or not."""
        return RunFolder(results / self.grid / self.name)

    def complete(self, results: Path) -> bool:
        """Whether the run is there.

        Raises:
            RunError: if its folder holds another run.
        """
        folder = self.folder(results)
        if not folder.complete:
            return False
        written = (folder.path / "config.toml").read_text()
        if written != configs.write(self.config) and folder.config != self.config:
            raise RunError(
                f"{folder.path} holds a run with another configuration than the grid {self.grid!r} asks for: "
                "remove it to compute it anew, or undo the change of the grid"
            )
        return True


@dataclass(frozen=True)
class Grid:
    """A grid file. Its runs are made when they are asked for: most artefacts need a part of a grid only.

    Attributes:
        name: the grid's name, that of the file and of the folder in results.
        title: what it holds.
        base: the settings that all runs share.
        axes: per axis, the settings of each label, in order; the seeds are the last axis.
        without: combinations of labels that have no run.
    """

    name: str
    title: str
    base: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    without: Sequence[Where] = ()
    _made: dict[tuple[str, ...], Cell] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path, steps: int | None = None, *, read: Read = configs.read) -> Grid:
        """Reads a grid: `[base]` holds the settings of all runs, each `[axes.NAME]` those of its labels.

        `seeds = 10` makes the axis of seeds 0 to 9, `seeds = [0, 3]` that of these. `leave_out` lists
        combinations of labels, such as
        `{rule = "D-Bulyan", f = "10"}`, without a run. `like = "other"` takes over another grid of the folder
        with the changes that this one states.

        Args:
            path: the file.
            steps: run so many steps instead; the grid's name then includes the number.
            read: reads a TOML file as plain data.

        Raises:
            ConfigError: if the file is missing or not TOML, or two runs would share a folder.
        """
        data = read_like(path, read)
        axes: dict[str, Any] = dict(data.get("axes", {}))
        if "seeds" in data:
            seeds = data["seeds"]
            seeds = range(seeds) if isinstance(seeds, int) else seeds
            axes[SEED] = {str(seed): {"seed": seed} for seed in seeds}
        for axis, labels in axes.items():
            for label, other in itertools.combinations(labels, 2):
                if _slug(label) == _slug(other):
                    raise ConfigError(
                        f"{path}: the labels {label!r} and {other!r} of axis {axis!r} would share the folder "
                        f"name {_slug(label)!r}: rename one"
                    )
        name = path.stem
        base = dict(data.get("base", {}))
        if steps is not None:
            name, base = f"{name}-steps{steps}", {**base, "steps": steps}
        return cls(name, data.get("title", path.stem), base, axes, data.get("leave_out", ()))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every run."""
        return self.select({})

    def select(self, where: Where, repeats: int | None = None) -> tuple[Cell, ...]:
        """The runs that `where` means, of at most the first `repeats` seeds.

        Raises:
            ConfigError: if an axis or a label does not exist, or a run's configuration is wrong; it names it.
        """
        wanted: dict[str, list[str]] = {axis: list(labels) for axis, labels in self.axes.items()}
        try:
            for axis, labels in where.items():
                known(axis, self.axes, f"axis of grid {self.name!r}")
                chosen = [labels] if isinstance(labels, str) else labels
                for label in chosen:
                    known(label, self.axes[axis], f"label of axis {axis!r} of grid {self.name!r}")
                wanted[axis] = list(chosen)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if SEED in wanted:
            wanted[SEED] = wanted[SEED][:repeats]
        every = (dict(zip(wanted, labels, strict=True)) for labels in itertools.product(*wanted.values()))
        return tuple(
            self._cell(labels)
            for labels in every
            if not any(matches(labels, left_out) for left_out in self.without)
        )

    def _cell(self, labels: dict[str, str]) -> Cell:
        key = tuple(labels.values())
        if key not in self._made:
            self._made[key] = self._make(labels)
        return self._made[key]

    def _make(self, labels: dict[str, str]) -> Cell:
        settings = self.base
        for axis, label in labels.items():
            settings = merged(settings, self.axes[axis][label])
        try:
            return Cell(self.name, labels, configs.make(settings))
        except ConfigError as error:
            raise ConfigError(f"grid {self.name!r}, run {labels}: {error}") from error


def _slug(label: str) -> str:
    """A label as a part of a file's name, which never starts with a dash."""
    label = re.sub(r"^-(?=[\d.])", "minus", label.replace(" = ", "="))
    return re.sub(r"[^\w.=+-]+", "-", label).strip("-")


def matches(labels: Mapping[str, str], where: Where) -> bool:
    """Whether labels are what `where` means."""
    return all(
        labels.get(axis) == wanted if isinstance(wanted, str) else labels.get(axis) in wanted
        for axis, wanted in where.items()
    )


def read_like(path: Path, read: Read = configs.read) -> dict[str, Any]:
    """Reads a TOML file; with `like = "other"` it holds changes to that file of the same folder.

    Tables are merged, anything else is replaced.

    Raises:
        ConfigError: if a file is missing or not TOML.
    """
    data = dict(read(path))
    other = data.pop("like", None)
    return data if other is None else merged(read_like(path.with_name(f"{other}.toml"), read), data)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: tables are merged key by key, anything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
