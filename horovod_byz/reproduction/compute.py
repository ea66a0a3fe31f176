"""Computes the missing runs on all cores: one process and one thread each, every run all or nothing."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from horovod_byz.host import machine
from horovod_byz.reproduction.grid import SEED, Cell
from horovod_byz.training import config as configs
from horovod_byz.training.runs import RunError, RunFolder

__all__ = ["Workplace", "compute"]


@dataclass(frozen=True)
class Workplace:
    """Where and how runs are computed; none of this changes their numbers, but for `device` and `threads`.

    Args:
        results: the folder of results.
        data_dir: where to look for the data first.
        jobs: runs at once; None for as many as there are cores, or a single one on a GPU.
        device: where gradients are computed: "cpu" or "cuda".
        threads: threads of each run; None for one, or all cores on a GPU, where the rules have them alone.
    """

    results: Path = Path("results")
    data_dir: Path | None = None
    jobs: int | None = None
    device: str = "cpu"
    threads: int | None = None

    @property
    def at_once(self) -> int:
        """Number of runs that are computed at once."""
        return self.jobs or (machine.cores() if self.device == "cpu" else 1)

    @property
    def threads_each(self) -> int:
        """Number of threads of each run."""
        return self.threads or (1 if self.device == "cpu" else max(machine.cores() // self.at_once, 1))


def compute(cells: Sequence[Cell], place: Workplace, title: str) -> None:
    """Trains every run that is not there yet, and shows the progress.

    Each run is trained in a folder of its own, which gets the run's name when it is complete: an interruption
    of any kind loses the runs in flight only. A second process that wants the same grid waits.

    Raises:
        RunError: if a folder holds another run, or a run's process is killed.
        DatasetMissing: if the data cannot be found.
    """
    if all(cell.complete(place.results) for cell in cells):
        return
    grids = sorted({cell.grid for cell in cells})
    seeds = list(dict.fromkeys(cell.labels.get(SEED, "") for cell in cells))
    with _alone([place.results / grid for grid in grids], title):
        for grid in grids:
            _sweep(place.results / grid)
        missing = [cell for cell in cells if not cell.complete(place.results)]
        # Seed by seed: what an interruption leaves can be compared.
        missing.sort(key=lambda cell: seeds.index(cell.labels.get(SEED, "")))
        if missing:
            _compute(missing, len(cells), place, title)


def _compute(missing: Sequence[Cell], total: int, place: Workplace, title: str) -> None:
    pool = ProcessPoolExecutor(
        min(place.at_once, len(missing)), multiprocessing.get_context("spawn"), initializer=_settle
    )
    try:
        with _Meter(title, total, total - len(missing)) as meter:
            futures = {pool.submit(_train, cell, place): cell for cell in missing}
            for future in as_completed(futures):
                seconds = future.result()
                if seconds is None:
                    raise KeyboardInterrupt
                meter.advance(futures[future].name, seconds)
    except BrokenProcessPool:
        raise RunError(
            f"{title}: a process that computed a run was killed, perhaps for want of memory. What is done "
            "stays: start again, with fewer runs at once (--jobs, or WORKERS= with make) if it happens again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _settle() -> None:
    """Prepares a worker process: it ignores Ctrl-C, which the parent handles, and ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            # No signal reaches the children of a killed process; the sentinel becomes readable instead.
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(cell: Cell, place: Workplace) -> float | None:
    """Trains one run in a worker process; None when it was interrupted. Returns the seconds it took."""
    from horovod_byz.reproduction import notes
    from horovod_byz.training.train import Launch, Stopped, train

    target = cell.folder(place.results).path
    # Beside the target, so that the rename stays within a file system and is atomic.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    data = cell.config.data
    dataset = _dataset(data.name, data.normalise, data.train_limit, place.data_dir, place.device)
    begun, used = time.perf_counter(), time.process_time()
    try:
        launch = Launch(temporary, device=place.device, threads=place.threads_each)
        train(cell.config, launch, dataset=dataset)
    except Stopped:
        shutil.rmtree(temporary)
        return None
    seconds = time.perf_counter() - begun
    times = {"seconds": round(seconds, 2), "cpu_seconds": round(time.process_time() - used, 2)}
    RunFolder(temporary).keep({**times, **notes.of(cell.config, dataset)})
    if target.exists() and RunFolder(target).exists:  # started by other commands and never finished
        shutil.rmtree(target)
    temporary.rename(target)
    return seconds


@lru_cache(maxsize=2)
def _dataset(name: str, normalise: Any, limit: int | None, data_dir: Path | None, device: str) -> Any:
    """The data of a run, cached by the worker process for its next runs."""
    from horovod_byz.training.train import prepare

    settings = configs.Data(name=name, normalise=normalise, train_limit=limit)
    return prepare(configs.RunConfig(data=settings), data_dir, device)


@contextmanager
def _alone(folders: Sequence[Path], title: str) -> Iterator[None]:
    """Holds each folder for this process alone; the system releases it when the process ends in any way."""
    if not folders:
        yield
        return
    folders[0].mkdir(parents=True, exist_ok=True)
    with (folders[0] / ".lock.tmp").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{title}: another process computes runs in {folders[0]}; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Callers pass folders in one order, so that two processes cannot wait for each other.
        with _alone(folders[1:], title):
            yield


def _sweep(folder: Path) -> None:
    """Removes what a killed process left unfinished; the lock ensures that no other process works here."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)


class _Meter:
    """Shows progress: a bar on a terminal, a line per run elsewhere; both with the remaining time."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self._title, self._total, self._done, self._before = title, total, done, done
        self._begun = time.monotonic()
        self._console = Console()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=self._console) if self._console.is_terminal else None

    def __enter__(self) -> _Meter:
        if self._bar is None:
            print(f"{self._title}: {self._total - self._done} of {self._total} runs to compute", flush=True)
        else:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, name: str, seconds: float) -> None:
        """Counts one more complete run."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
            return
        elapsed = time.monotonic() - self._begun
        left = elapsed / (self._done - self._before) * (self._total - self._done)
        print(
            f"[{self._done:>{len(str(self._total))}}/{self._total}] {name}  {seconds:.0f} s; "
            f"about {_duration(left)} left",
            flush=True,
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
