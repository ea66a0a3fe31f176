"""The run folder: configuration, metrics, environment and checkpoint, each file replaced as a whole."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from horovod_byz.experiments import config as configs
from horovod_byz.experiments.config import RunConfig

__all__ = ["RunError", "RunFolder", "finite", "replace_file"]


_PACKED = "run.json"


class RunError(RuntimeError):
    """A run folder that cannot be used as asked; the message says what to do."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def finite(value: float) -> float | None:
    """The number itself, or None (JSON's null) for NaN and infinities, which JSON cannot hold."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    `config.toml` is its identity; `metrics.jsonl` (one evaluation per line) holds nothing that depends on the
    clock, so the same seed gives the same bytes; `timings.jsonl` holds what does; `environment.json` says
    what it ran on; `checkpoint.pt` continues it; `verdicts.json` sums up how each worker was treated;
    `summary.json`, written last, marks it complete.

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
        """Whether the run came to its end."""
        return (self.path / "summary.json").is_file() or (self.path / _PACKED).is_file()

    @property
    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            ConfigError: when there is none, or this version does not understand it.
        """
        return configs.make(configs.read(self.path / "config.toml"))

    def begin(self, config: RunConfig, *, overwrite: bool = False) -> None:
        """Make the folder for a new run.

        Raises:
            RunError: when it holds a run already and `overwrite` is false, or files that are not a run's.
        """
        if self.exists and overwrite:
            shutil.rmtree(self.path)
        elif self.exists:
            raise RunError(
                f"{self.path} already holds a run: continue it with --resume, replace it with --overwrite, "
                "or choose another folder with --out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._write("config.toml", configs.write(config))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one JSON file, keys in the order given."""
        self._write(name, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one JSON file.

        Raises:
            RunError: when it is missing.
        """
        packed = self.path / _PACKED
        try:
            if packed.is_file() and name != _PACKED:
                whole: dict[str, dict[str, Any]] = json.loads(packed.read_text())
                return whole[name.removesuffix(".json")]
            found: dict[str, Any] = json.loads((self.path / name).read_text())
        except (FileNotFoundError, KeyError) as error:
            raise RunError(
                f"{self.path} has no {name}: the run is not complete; continue it with --resume"
            ) from error
        return found

    def write_lines(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records as JSON lines."""
        self._write(name, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Read JSON lines; a file that does not exist has none."""
        path, packed = self.path / name, self.path / f"{name}.gz"
        if packed.is_file():
            text = gzip.decompress(packed.read_bytes()).decode()
        else:
            text = path.read_text() if path.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

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
        kept = {name: self.read_json(f"{name}.json") for name in ("summary", "environment", "verdicts")}
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
        """Save tensors, numbers and texts."""
        temporary = self.path / f".checkpoint.pt.{os.getpid()}.tmp"
        torch.save(dict(state), temporary)
        temporary.replace(self.path / "checkpoint.pt")

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint; None if none was written. Loads tensors and plain values only, never code."""
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        return found

    def _write(self, name: str, text: str) -> None:
        replace_file(self.path / name, text.encode())
