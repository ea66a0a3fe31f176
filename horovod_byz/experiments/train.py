"""Runs one configuration into a run folder: begin or resume, step, evaluate, save, end cleanly."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from horovod_byz.collect import TransportError
from horovod_byz.experiments import device, environment
from horovod_byz.experiments.config import RunConfig
from horovod_byz.experiments.data import Dataset, load_dataset
from horovod_byz.experiments.interrupts import Interrupts
from horovod_byz.experiments.progress import Reporter, Silent
from horovod_byz.experiments.ranks import Ranks, describe
from horovod_byz.experiments.runs import RunError, RunFolder
from horovod_byz.experiments.trainer import Trainer

__all__ = ["Launch", "Stopped", "prepare", "train"]


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run was interrupted; its folder holds what is needed to continue.

    Attributes:
        step: the step that `--resume` continues from.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped; a checkpoint of step {step} is kept")
        self.step = step


@dataclass(frozen=True)
class Launch:
    """Where and how a run is carried out; none of this changes its numbers.

    Args:
        out: the run folder.
        data_dir: where to look for the data first.
        resume: continue the run in `out` from its checkpoint; a complete run is left as it is.
        overwrite: replace a run that `out` holds.
        checkpoint_every: steps between checkpoints, 0 for none before the end.
        device: where gradients are computed; see `device.find`.
        threads: torch and kernel threads of this rank; more may change the last bits of gradients.
        title: what the progress display calls the run.
    """

    out: Path
    data_dir: Path | None = None
    resume: bool = False
    overwrite: bool = False
    checkpoint_every: int = 0
    device: str = "cpu"
    threads: int = 1
    title: str = ""


def prepare(
    config: RunConfig, data_dir: Path | None = None, device: str = "cpu", download: bool = True
) -> Dataset:
    """Load the data of a run, normalised and limited as it asks.

    Raises:
        DatasetMissing: when the set is nowhere; the message says where it was looked for.
    """
    dataset = load_dataset(config.data.name, data_dir, normalise=config.data.normalise, download=download)
    return dataset.limited(config.data.train_limit).to(device)


def train(
    config: RunConfig,
    launch: Launch,
    *,
    ranks: Ranks | None = None,
    dataset: Dataset | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train to the end, or up to an interruption.

    All ranks call it together; rank 0 writes the files.

    Args:
        config: the run.
        launch: where and how.
        ranks: the ranks of the job; by default those that a launcher started.
        dataset: the data, if the caller has them already (see `prepare`).
        reporter: shows the progress on rank 0.

    Returns:
        The summary: steps, final and best accuracy, and at which step the run diverged, if it did.

    Raises:
        RunError: when the folder cannot be used as asked.
        ValueError: when the device cannot be used.
        TransportError: when other ranks are late or lie; what was reached is kept as a checkpoint.
        Stopped: after Ctrl-C or termination, once the checkpoint is written.
    """
    _settle(launch)
    ranks = ranks if ranks is not None else Ranks()
    place = device.find(launch.device, ranks.local_rank)
    folder = RunFolder(launch.out)
    if launch.resume and folder.exists:
        _check_same(config, folder)
        if folder.complete:
            return folder.read_json("summary.json")
    with Interrupts() as interrupts:
        if dataset is None:
            dataset = prepare(config, launch.data_dir, place)
        trainer = Trainer(config, dataset, ranks, place)
        run = _Run(trainer, folder, launch, interrupts, reporter if ranks.first and reporter else Silent())
        run.begin()
        try:
            return run.go()
        except KeyboardInterrupt:
            with interrupts.held():
                raise Stopped(run.stop()) from None
        except TransportError:
            with interrupts.held():
                run.stop()
            raise


@dataclass
class _Run:
    """A trainer together with the files of its run."""

    trainer: Trainer
    folder: RunFolder
    launch: Launch
    interrupts: Interrupts
    reporter: Reporter
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Make the folder, or take up what it holds."""
        state = self.folder.load_checkpoint() if self.launch.resume and self.folder.exists else None
        if state is not None:
            self.trainer.load(state)
            last = self.trainer.evaluated
            self.metrics = [one for one in self.folder.metrics if one["step"] <= last]
            self.timings = [one for one in self.folder.read_lines("timings.jsonl") if one["step"] <= last]
        elif self.trainer.ranks.first:
            self.folder.begin(self.trainer.config, overwrite=self.launch.overwrite or self.launch.resume)
        if self.trainer.ranks.first:
            self.folder.write_json("environment.json", {**environment.describe(), **self._job()})

    def _job(self) -> dict[str, Any]:
        dataset = self.trainer.dataset
        return {**describe(self.trainer.ranks), "device": self.launch.device, "data_source": dataset.source}

    def go(self) -> dict[str, Any]:
        """Step to the end and finish the folder."""
        trainer, config = self.trainer, self.trainer.config
        title = self.launch.title or config.slug
        self.reporter.start(title, config.steps, trainer.step)
        if trainer.due:
            self._evaluate()
        begun, first = time.perf_counter(), trainer.step
        while trainer.step < config.steps:
            self._step()
            values: dict[str, float | None] = {
                "loss": trainer.loss,
                "steps_per_second": (trainer.step - first) / (time.perf_counter() - begun),
            }
            if trainer.due:
                self._evaluate()
            values["accuracy"] = self.metrics[-1]["accuracy"]
            self.reporter.update(trainer.step, values)
            self._checkpoint_if_due()
        return self._finish()

    def _step(self) -> None:
        clock = [time.perf_counter()]
        self.trainer.compute()
        clock.append(time.perf_counter())
        collected, statistics = self.trainer.collect()
        clock.append(time.perf_counter())
        with self.interrupts.held():
            self.trainer.apply(collected, statistics)
        clock.append(time.perf_counter())
        self.trainer.remember()
        parts = {"compute": clock[1] - clock[0], **collected.timings, "apply": clock[3] - clock[2]}
        for part, seconds in parts.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def _evaluate(self) -> None:
        begun = time.perf_counter()
        record = self.trainer.evaluate()
        with self.interrupts.held():
            self.trainer.end_interval()
            self.metrics.append(record)
            self.seconds["evaluate"] = time.perf_counter() - begun
            parts = {name: round(seconds, 6) for name, seconds in self.seconds.items()}
            self.timings.append({"step": self.trainer.step, **parts})
            self.seconds.clear()
            if self.trainer.ranks.first:
                self._write_lines()

    def _write_lines(self) -> None:
        self.folder.write_lines("metrics.jsonl", self.metrics)
        self.folder.write_lines("timings.jsonl", self.timings)

    def _checkpoint_if_due(self) -> None:
        every = self.launch.checkpoint_every
        if every and self.trainer.step % every == 0:
            state = self.trainer.state()
            if self.trainer.ranks.first:
                self.folder.save_checkpoint(state)

    def _finish(self) -> dict[str, Any]:
        state = self.trainer.state()
        best = max(self.metrics, key=lambda one: float(one["accuracy"]))
        summary = {
            "steps": self.trainer.step,
            "accuracy": self.metrics[-1]["accuracy"],
            "loss": self.metrics[-1]["loss"],
            "best_accuracy": best["accuracy"],
            "best_step": best["step"],
            "diverged_at": self.trainer.diverged_at,
        }
        if self.trainer.ranks.first:
            self._write_lines()
            self.folder.save_checkpoint(state)
            self.folder.write_json("verdicts.json", self.trainer.tally.summary())
            self.folder.write_json("summary.json", summary)
        return summary

    def stop(self) -> int:
        """Save what a later `--resume` continues from; returns its step."""
        state = self.trainer.resumable()
        if state is None:
            return 0
        if self.trainer.ranks.first:
            self.folder.save_checkpoint(state)
        return int(state["step"])


def _settle(launch: Launch) -> None:
    """Make torch compute the same bits each time."""
    torch.set_num_threads(launch.threads)
    if launch.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _check_same(config: RunConfig, folder: RunFolder) -> None:
    before = folder.config
    if before == config:
        return
    old, new = before.to_data(), config.to_data()
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    told = "; ".join(f"{name} = {old.get(name)!r} before, {new.get(name)!r} now" for name in changed)
    raise RunError(
        f"{folder.path} holds another run ({told}): resume it without options, or choose another --out"
    )
