"""The run folder: configuration, metrics, environment and checkpoint, each file replaced as a whole."""

from __future__ import annotations

import fcntl
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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

_PACKED = "run.json"
_ENDS = ("summary.json", "verdicts.json", "metrics.jsonl")  # what only a complete run has together
_KEPT = ("summary", "environment", "verdicts")  # what `pack` puts into one file, beside its notes
_FILES = (*_ENDS, "timings.jsonl", "environment.json", *CHECKPOINTS, "metrics.jsonl.gz", _PACKED)


def finite(value: float) -> float | None:
    """The number itself, or None (JSON's null) for NaN and infinities, which JSON cannot hold."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    `config.toml` is its identity; `metrics.jsonl` (one evaluation per line) holds nothing that depends on the
    clock, so the same seed gives the same bytes; `timings.jsonl` holds what does; `environment.json` says
    what it ran on; `checkpoint.pt` continues it, and `checkpoint.previous.pt` where that one is damaged;
    `verdicts.json` sums up how each worker was treated; `summary.json`, written last, marks it complete.

    Steps are counted from 0, as by scripts of faults, the ledger and error messages. An evaluation at step k
    is of the parameters that step k starts from. Runs written before `first_step` was noted in summary and
    verdicts counted from 1 there: `summary` and `verdicts` read both.

    A packed run (see `pack`), the form that is committed by the hundred, holds the same in three files:
    `config.toml`, `metrics.jsonl.gz` and `run.json`. It reads like any other.

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
        """Whether the run came to its end, and what it came to is there."""
        return self.packed or all((self.path / name).is_file() for name in _ENDS)

    @property
    def packed(self) -> bool:
        """Whether it is a packed run."""
        return (self.path / _PACKED).is_file()

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

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder, and hold it for this process alone; its end in any way lets go of it.

        Raises:
            RunError: when another process writes a run there, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be used as a run folder ({error.strerror}): choose another folder with "
                "--out"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"another process writes its run into {self.path}: wait for its end, or choose another "
                    "folder with --out"
                ) from error
            except OSError:  # a file system that locks no folders: nobody can be kept out
                pass
            yield
        finally:
            os.close(handle)
            with suppress(OSError):  # a folder that nothing was written to goes again
                self.path.rmdir()

    def begin(self, config: RunConfig, *, overwrite: bool = False) -> None:
        """Make the folder for a new run.

        Of an earlier run the run's own files are removed, and nothing else.

        Raises:
            RunError: when it holds a run already and `overwrite` is false, or files that are not a run's, or
                cannot be written.
        """
        if not overwrite:
            self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        if self.exists and not any((self.path / name).exists() for name in _FILES):
            _ = self.config  # a config.toml of something else is not overwritten
        sweep(self.path)
        for name in reversed(_FILES):
            (self.path / name).unlink(missing_ok=True)
        self._write("config.toml", configs.write(config))

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
        rest = [name for name in _FILES if (self.path / name).exists()]
        if rest and not self.exists:
            raise RunError(
                f"{self.path} holds {rest[0]} of a run, and no config.toml: put that back, remove the files "
                "with --overwrite, or choose another folder with --out"
            )

    def extend(self, config: RunConfig) -> None:
        """Take up the run with another number of steps: it is no longer complete."""
        sweep(self.path)
        for name in ("summary.json", "verdicts.json"):
            (self.path / name).unlink(missing_ok=True)
        self._write("config.toml", configs.write(config))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one JSON file, keys in the order given."""
        self._write(name, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one JSON file.

        Raises:
            RunError: when it is missing or damaged.
        """
        inside = self.packed and name != _PACKED
        path = self.path / (_PACKED if inside else name)
        try:
            whole = json.loads(path.read_text())
            if not isinstance(whole, dict):
                raise ValueError("no table")
            value: dict[str, Any] = whole[name.removesuffix(".json")] if inside else whole
        except (FileNotFoundError, KeyError) as error:
            raise RunError(
                f"{self.path} has no {name}: the run is not complete; continue it with --resume"
            ) from error
        except ValueError as error:  # what JSONDecodeError and UnicodeDecodeError are
            raise _damaged(path) from error
        return value

    @property
    def summary(self) -> dict[str, Any]:
        """What the run came to, steps counted from 0."""
        summary = self.read_json("summary.json")
        if "first_step" not in summary and summary["diverged_at"] is not None:
            summary["diverged_at"] -= 1
        return summary

    @property
    def verdicts(self) -> dict[str, Any]:
        """How each worker was treated, steps counted from 0."""
        verdicts = self.read_json("verdicts.json")
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
        path, packed = self.path / name, self.path / f"{name}.gz"
        try:
            if packed.is_file():
                path = packed
                text = gzip.decompress(packed.read_bytes()).decode()
            else:
                text = path.read_text() if path.is_file() else ""
            return [json.loads(line) for line in text.splitlines()]
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _damaged(path) from error

    @property
    def record(self) -> dict[str, Any]:
        """Summary, environment and verdicts as written, and notes, of a packed run or any other."""
        if self.packed:
            return self.read_json(_PACKED)
        return {name: self.read_json(f"{name}.json") for name in _KEPT} | {"notes": {}}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record per evaluation: step, accuracy, top3, loss, train_loss, lr."""
        return self.read_lines("metrics.jsonl")

    def pack(self, notes: Mapping[str, Any]) -> None:
        """Put a complete run into three small files: what tables and figures need, and nothing else.

        The compressed metrics carry no time stamp, so that equal metrics are equal bytes.

        Args:
            notes: what is kept beside summary, environment and verdicts, such as the seconds it took.

        Raises:
            RunError: when the run is not complete.
        """
        kept = {name: self.read_json(f"{name}.json") for name in _KEPT}
        metrics = (self.path / "metrics.jsonl").read_bytes()
        replace_file(self.path / "metrics.jsonl.gz", gzip.compress(metrics, mtime=0))
        lines = [
            f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
            for name, value in {**kept, "notes": notes}.items()
        ]
        self._write(_PACKED, "{\n" + ",\n".join(lines) + "\n}\n")
        for path in self.path.iterdir():
            if path.name not in ("config.toml", "metrics.jsonl.gz", _PACKED):
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

    def _write(self, name: str, text: str) -> None:
        replace_file(self.path / name, text.encode())


def _damaged(path: Path) -> RunError:
    return RunError(
        f"{path} is damaged: remove it and continue the run with --resume, which writes it anew, or replace "
        "the run with --overwrite"
    )
