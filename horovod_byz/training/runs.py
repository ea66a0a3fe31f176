"""The run folder: configuration, metrics, record and checkpoint, each file replaced as a whole."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from horovod_byz.common.atomic import RunError, replace_file, sweep
from horovod_byz.common.sealed import previous_of, write
from horovod_byz.training import checkpoint
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError, RunConfig

__all__ = ["CHECKPOINTS", "RunError", "RunFolder", "finite", "replace_file"]

CHECKPOINTS = ("checkpoint.pt", previous_of(Path("checkpoint.pt")).name)
"""The last checkpoint, and the one before it."""

_RECORD = "run.json"
_KEPT = ("metrics.jsonl", _RECORD)  # with config.toml, the files that tables and figures need
# 0.2.0 and earlier: a file for each part of the record, or packed metrics beside run.json.
_EARLIER = ("summary.json", "verdicts.json", "environment.json", "metrics.jsonl.gz")
_FILES = (*_KEPT, "timings.jsonl", *CHECKPOINTS, *_EARLIER)
_LEDGER = "ledger*.jsonl"  # that of rank 0, and one of each rank that ended by an error


def finite(value: float) -> float | None:
    """The number itself, or None (JSON's null) for NaN and infinities, which JSON cannot hold."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    `config.toml` is its identity; `metrics.jsonl` (one evaluation per line) holds nothing that depends on the
    clock, so the same seed gives the same bytes. `run.json` is its record: the environment it ran in, and, of
    a complete run, its summary and how each worker was treated. `reproduce` keeps these three (see `keep`),
    which are committed by the hundred. `timings.jsonl` holds seconds; `checkpoint.pt` continues the run, and
    `checkpoint.previous.pt` where that one is damaged; `ledger.jsonl` is the file of an operator's ledger.

    Steps are counted from 0, as by scripts of faults, the ledger and error messages. An evaluation at step k
    is of the parameters that step k starts from. Runs written before `first_step` was noted in summary and
    verdicts counted from 1 there: `summary` and `verdicts` read both, as all else reads the files of earlier
    versions.

    Args:
        path: the folder; it need not exist yet.
    """

    path: Path

    @property
    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / "config.toml").is_file()

    @property
    def complete(self) -> bool:
        """Whether the run came to its end, and what it came to is there and can be read."""
        try:
            return {"summary", "verdicts"} <= self.record.keys() and self._metrics().is_file()
        except RunError:
            return False

    @property
    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            RunError: when there is none, or this version does not understand it.
        """
        try:
            return configs.make(configs.read(self.path / "config.toml"))
        except ConfigError as error:
            raise RunError(
                f"{self.path / 'config.toml'} is not the configuration of a run: {error}. Put a good copy "
                "there, or choose another folder with --out"
            ) from error

    def begin(self, config: RunConfig, environment: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder for a new run.

        Of an earlier run the run's own files are removed, and nothing else.

        Raises:
            RunError: when it holds a run already and `overwrite` is false, or files that are not a run's, or
                cannot be written.
        """
        if not overwrite:
            self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        own = self._files()
        if self.exists and not own:
            _ = self.config  # a config.toml of something else is not overwritten
        sweep(self.path)
        for path in reversed(own):
            path.unlink()
        self._write("config.toml", configs.write(config))
        self._write_record({"environment": environment})

    def check_free(self) -> None:
        """Check that a new run may begin here.

        Raises:
            RunError: when the folder holds a run, or is no folder.
        """
        if self.exists:
            raise RunError(
                f"{self.path} already holds a run: continue it with --resume, replace it with --overwrite, "
                "or choose another folder with --out"
            )
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file, not a folder: choose another folder with --out")
        self.check_whole()

    def check_whole(self) -> None:
        """Check that a run's files do not lie here without its configuration.

        Raises:
            RunError: when they do.
        """
        rest = self._files()
        if rest and not self.exists:
            raise RunError(
                f"{self.path} holds {rest[0].name} of a run, and no config.toml: put that back, remove the "
                "files with --overwrite, or choose another folder with --out"
            )

    def extend(self, config: RunConfig, environment: Mapping[str, Any]) -> None:
        """Take up the run, perhaps with another number of steps: it is no longer complete."""
        sweep(self.path)
        self._write_record({"environment": environment})
        for name in _EARLIER:
            (self.path / name).unlink(missing_ok=True)
        self._write("config.toml", configs.write(config))

    def finish(self, summary: Mapping[str, Any], verdicts: Mapping[str, Any]) -> None:
        """Record what the run came to, which completes it."""
        self._write_record({**self.record, "summary": summary, "verdicts": verdicts})

    @property
    def record(self) -> dict[str, Any]:
        """Environment, summary, verdicts and notes: the parts that were written so far.

        Raises:
            RunError: when it is damaged.
        """
        if (self.path / _RECORD).is_file():
            return _read_json(self.path / _RECORD)
        parts = ("environment", "summary", "verdicts")
        paths = {name: self.path / f"{name}.json" for name in parts}
        return {name: _read_json(path) for name, path in paths.items() if path.is_file()}

    @property
    def environment(self) -> dict[str, Any]:
        """What the run was computed on: versions, commit, processor."""
        return self._part("environment")

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted beside the run, such as the seconds it took; empty where nothing was."""
        notes: dict[str, Any] = self.record.get("notes", {})
        return notes

    @property
    def summary(self) -> dict[str, Any]:
        """What the run came to, steps counted from 0."""
        summary = self._part("summary")
        if "first_step" not in summary and summary["diverged_at"] is not None:
            summary["diverged_at"] -= 1
        return summary

    @property
    def verdicts(self) -> dict[str, Any]:
        """How each worker was treated, steps counted from 0."""
        verdicts = self._part("verdicts")
        for worker in verdicts["workers"]:
            last = worker.get("last_suspect_step")
            if "first_step" not in verdicts and last is not None:
                worker["last_suspect_step"] = last - 1
        return verdicts

    def write_lines(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records as JSON lines."""
        self._write(name, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Read JSON lines; a file that does not exist has none.

        Raises:
            RunError: when the file is damaged.
        """
        return _read_lines(self.path / name)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record per evaluation: step, accuracy, top3, loss, train_loss, lr."""
        return _read_lines(self._metrics())

    def keep(self, notes: Mapping[str, Any]) -> None:
        """Reduce a complete run to what tables and figures need: checkpoints, timings and ledger go.

        Args:
            notes: what is added to its record, such as the seconds it took.
        """
        self._write_record({**self.record, "notes": notes})
        for path in self._files():
            if path.name not in _KEPT:
                path.unlink()

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save tensors, numbers and texts; the checkpoint before, unless it is damaged, is kept beside it.

        Raises:
            RunError: when it cannot be written.
        """
        write(self.path / CHECKPOINTS[0], state)

    def load_checkpoint(self, name: str = CHECKPOINTS[0]) -> dict[str, Any] | None:
        """A checkpoint's state; None if it was not written. Loads tensors and plain values, never code.

        Raises:
            CheckpointError: when it is damaged.
        """
        content = checkpoint.read(self.path / name)
        return None if content is None else content[0]

    def _part(self, name: str) -> dict[str, Any]:
        record = self.record
        if not isinstance(record.get(name), dict):
            raise RunError(f"{self.path} has no {name}: the run is not complete; continue it with --resume")
        part: dict[str, Any] = record[name]
        return part

    def _metrics(self) -> Path:
        packed = self.path / "metrics.jsonl.gz"
        return packed if packed.is_file() else self.path / "metrics.jsonl"

    def _files(self) -> list[Path]:
        """The files of a run that are there, but for its configuration."""
        paths = [*(self.path / name for name in _FILES), *sorted(self.path.glob(_LEDGER))]
        return [path for path in paths if path.exists()]

    def _write_record(self, parts: Mapping[str, Any]) -> None:
        """Write the record, one line for each part, so that a difference of two is easy to read."""
        lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in parts.items()]
        self._write(_RECORD, "{\n" + ",\n".join(lines) + "\n}\n")

    def _write(self, name: str, text: str) -> None:
        replace_file(self.path / name, text.encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError("no table")
    except ValueError as error:  # what JSONDecodeError and UnicodeDecodeError are
        raise _damaged(path) from error
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes() if path.is_file() else b""
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        return [json.loads(line) for line in text.splitlines()]
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> RunError:
    return RunError(
        f"{path} is damaged: remove it and continue the run with --resume, which writes it anew, or replace "
        "the run with --overwrite"
    )
