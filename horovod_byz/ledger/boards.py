"""Boards that operators watch: TensorBoard's event files, and a text file for Prometheus.

Both are written by rank 0, and need the extra: `pip install "horovod-byz[watch]"`.

    optimizer = hb.DistributedOptimizer(
        ..., ledger=hb.Ledger("runs/a", listeners=[TensorBoard("runs/a"), Prometheus("/var/lib/node/a.prom")])
    )
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from horovod_byz.common.checks import count
from horovod_byz.common.extras import require
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.log import LOGGER, sentence
from horovod_byz.ledger.quiet import Quiet

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger

__all__ = ["Prometheus", "TensorBoard"]

_EVERY = 20  # steps: as often as a young run's windows


class TensorBoard(Quiet):
    """Scalars and evidence for TensorBoard, through torch's `SummaryWriter`.

    Scalars `weight/worker 3`, `distance/worker 3`, `seconds/compute, rank 3`, `seconds/wait, rank 3` of every
    20th step, `evidence/worker 3` (pieces so far) and a text at each new kind of evidence.

    Args:
        folder_or_writer: a folder for event files, or a SummaryWriter. A copied or pickled board has a
            writer of its own, in the same folder.
        every: steps between two points of a curve.

    Raises:
        MissingExtraError: if tensorboard is not installed.
        ValueError: if `every` is below 1.
    """

    def __init__(self, folder_or_writer: Any, every: int = _EVERY) -> None:
        require("watch", "tensorboard")
        self._every = count(self, "every", every, least=1)
        is_folder = isinstance(folder_or_writer, (str, os.PathLike))
        self._folder = Path(folder_or_writer if is_folder else folder_or_writer.log_dir).absolute()
        self._writer = None if is_folder else folder_or_writer
        self._pieces: dict[tuple[str, str], int] = {}
        self._failed = False

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        if ledger.rank != 0:
            return
        key = (_culprit(evidence), evidence.reason)
        self._pieces[key] = self._pieces.get(key, 0) + 1
        total = sum(pieces for (who, _), pieces in self._pieces.items() if who == key[0])
        with self._tried():
            self._board.add_scalar(f"evidence/{key[0]}", total, evidence.step)
            if self._pieces[key] == 1:
                self._board.add_text("evidence", _as_code(sentence(ledger, evidence)), evidence.step)
                self._board.flush()

    def stepped(self, ledger: Ledger, result: Any, step: int) -> None:
        if ledger.rank != 0 or step % self._every:
            return
        with self._tried():
            for verdict in result.verdicts:
                for name in ("weight", "distance"):
                    self._point(f"{name}/worker {verdict.worker}", getattr(verdict, name), step)
            for pace in getattr(result, "paces", ()):
                for name in ("compute", "wait"):
                    self._point(f"seconds/{name}, rank {pace.rank}", getattr(pace, name), step)

    def ended(self, ledger: Ledger, reason: str, ranks: Sequence[int]) -> None:
        with self._tried():
            if self._writer is not None:
                self._writer.flush()

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """Inside, a failed write ends neither the run nor the board.

        Rank 0 alone writes: an error in its step would leave the others waiting, and name it as late. Event
        writers repeat their first error for ever, so the next point gets a new one.
        """
        try:
            yield
        except OSError as error:
            self._writer = None
            if not self._failed:
                self._failed = True
                LOGGER.error("cannot write %s (%s): training goes on, and tries again", self._folder, error)

    def _point(self, name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            self._board.add_scalar(name, value, step)

    @property
    def _board(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder)
        return self._writer

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writer": None, "_failed": False}


class Prometheus(Quiet):
    """A text file for the textfile collector of Prometheus' node exporter, replaced as a whole.

    Gauges `horovod_byz_step`, `horovod_byz_updated_seconds` (since 1970: an alert on a run that stands
    still), `horovod_byz_weight{worker}`, `horovod_byz_distance{worker}`, `horovod_byz_compute_seconds{rank}`
    and `horovod_byz_wait_seconds{rank}`, and `horovod_byz_evidence{kind,reason,worker,rank,host,device}`, the
    number of pieces so far.

    Args:
        path: the file, whose name ends in .prom.
        every: steps between two writes; evidence of a new kind or culprit is written at once.

    Raises:
        MissingExtraError: if prometheus_client is not installed.
        ValueError: if `every` is below 1, or the name ends differently.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = _EVERY) -> None:
        require("watch", "prometheus_client")
        self._every = count(self, "every", every, least=1)
        self._path = Path(path).absolute()
        if self._path.suffix != ".prom":
            raise ValueError(f"Prometheus: the node exporter reads files that end in .prom only, got {path}")
        self._begin()

    def _begin(self) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self._registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Any:
            return Gauge(f"horovod_byz_{name}", text, labels, registry=self._registry)

        self._step = gauge("step", "Last optimizer step")
        self._updated = gauge("updated_seconds", "When this file was written, seconds since 1970")
        self._workers = {
            "weight": gauge("weight", "Weight of the worker's row in the aggregate", "worker"),
            "distance": gauge("distance", "L2 distance of the worker's row to the aggregate", "worker"),
        }
        self._ranks = {
            "compute": gauge("compute_seconds", "Seconds from step to step without waiting", "rank"),
            "wait": gauge("wait_seconds", "Seconds that the rank waited for others at a step", "rank"),
        }
        labels = ("kind", "reason", "worker", "rank", "host", "device")
        self._evidence = gauge("evidence", "Pieces of evidence so far", *labels)
        self._seen: set[tuple[str, ...]] = set()
        self._last, self._failed = 0, False

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        if ledger.rank != 0:
            return
        labels = _labels(ledger, evidence)
        self._evidence.labels(*labels).inc()
        if labels not in self._seen:
            self._seen.add(labels)
            self._write()

    def stepped(self, ledger: Ledger, result: Any, step: int) -> None:
        self._last = step
        if ledger.rank != 0 or step % self._every:
            return
        for verdict in result.verdicts:
            for name, gauge in self._workers.items():
                gauge.labels(verdict.worker).set(getattr(verdict, name))
        for pace in getattr(result, "paces", ()):
            for name, gauge in self._ranks.items():
                gauge.labels(pace.rank).set(getattr(pace, name))
        self._write()

    def ended(self, ledger: Ledger, reason: str, ranks: Sequence[int]) -> None:
        if ledger.rank == 0:
            self._write()

    def _write(self) -> None:
        from prometheus_client import write_to_textfile

        self._step.set(self._last)
        self._updated.set_to_current_time()
        try:
            write_to_textfile(str(self._path), self._registry)  # to another name, and then renamed
        except OSError as error:
            if not self._failed:
                self._failed = True
                LOGGER.error("cannot write %s (%s): training goes on, and tries again", self._path, error)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_every": self._every}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()


def _culprit(evidence: Evidence) -> str:
    if evidence.worker is not None:
        return f"worker {evidence.worker}"
    return "all workers" if evidence.rank is None else f"rank {evidence.rank}"


def _labels(ledger: Ledger, evidence: Evidence) -> tuple[str, ...]:
    place = next((place for place in ledger.places if place.rank == evidence.rank), None)
    numbers = ("" if number is None else str(number) for number in (evidence.worker, evidence.rank))
    names = ("", "") if place is None else (place.host, place.device)
    return (evidence.kind, evidence.reason, *numbers, *names)


def _as_code(text: str) -> str:
    """The text as a block of code: TensorBoard renders Markdown, and it may hold what a peer sent."""
    return f"    {text}"
