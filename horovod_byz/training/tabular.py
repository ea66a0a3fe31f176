"""Run folders as tables: their settings as flat columns, for pandas users and for comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from horovod_byz.common.atomic import RunError
from horovod_byz.training.named import Named
from horovod_byz.training.runs import RunFolder

__all__ = ["Kept", "differing", "flat", "kept", "rows"]

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Kept:
    """A run, read from its folder.

    Attributes:
        name: its folder, below the one that was asked for where it is the only one.
        settings: its configuration in flat columns such as "rule.f".
        words: the same in fewer columns: a rule, an attack or a partition with its options is one word.
        metrics: one record per evaluation.
        summary: what it came to; None of a run that is not complete.
        skew: the label skew of its workers' data; None where it was not recorded.
    """

    name: str
    settings: Mapping[str, Value]
    words: Mapping[str, Value]
    metrics: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any] | None
    skew: float | None


def kept(folders: Sequence[Path]) -> list[Kept]:
    """Every run in some folders and below them, in the order of their names, each once.

    Raises:
        RunError: if a folder holds no run, or a file of one is damaged.
    """
    read: dict[Path, Kept] = {}
    for folder in folders:
        inside = sorted(path.parent for path in folder.rglob("config.toml") if _visible(path, folder))
        if not inside:
            raise RunError(f"{folder} holds no run: name a folder that horovod-byz train or reproduce wrote")
        for path in inside:
            # Below one folder its name says nothing; of several it tells runs apart.
            short = path if len(folders) > 1 or path == folder else path.relative_to(folder)
            read.setdefault(path.resolve(), _read(path, short.as_posix()))
    return list(read.values())


def _visible(path: Path, folder: Path) -> bool:
    """A run that is being computed lies in a folder whose name starts with a dot."""
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _read(path: Path, name: str) -> Kept:
    folder = RunFolder(path)
    config, metrics = folder.config, tuple(folder.metrics)
    complete = folder.complete
    environment = folder.record.get("environment", {})
    skew = environment.get("label_skew") if isinstance(environment, dict) else None
    summary = folder.summary if complete else None
    return Kept(name, flat(config.to_data()), _words(config), metrics, summary, skew)


def _words(table: BaseModel, prefix: str = "") -> dict[str, Value]:
    words: dict[str, Value] = {}
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, Named):
            words[prefix + name] = str(value)
        elif isinstance(value, BaseModel):
            words |= _words(value, f"{prefix}{name}.")
        else:
            words |= flat({prefix + name: value})
    return words


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Nested settings with dotted names; lists as JSON text."""
    columns: dict[str, Value] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            columns |= flat(value, f"{name}.")
        else:
            columns[name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return columns


def differing(runs: Sequence[Kept]) -> list[str]:
    """The settings that are not the same in all runs, in the order of the configuration."""
    names = dict.fromkeys(name for run in runs for name in run.words)
    return [name for name in names if len({repr(run.words.get(name)) for run in runs}) > 1]


def rows(runs: Iterable[Kept]) -> tuple[list[str], list[dict[str, Value]]]:
    """One row per evaluation, with the run's settings beside it: the columns, and the rows.

    A run without an evaluation gives no row.
    """
    lines: list[dict[str, Value]] = []
    columns: dict[str, None] = dict.fromkeys(("run", "complete", "diverged_at", "label_skew"))
    settings: dict[str, None] = {}
    for run in runs:
        about = {
            "run": run.name,
            "complete": run.summary is not None,
            "diverged_at": None if run.summary is None else run.summary["diverged_at"],
            "label_skew": run.skew,
        }
        settings |= dict.fromkeys(run.settings)
        for record in run.metrics:
            columns |= dict.fromkeys(record)
            lines.append({**about, **record, **run.settings})
    return [*columns, *(name for name in settings if name not in columns)], lines
