"""Runs one configuration into a run folder: begin or resume, step, evaluate, save, end cleanly."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from horovod_byz.collect import Root, TransportError
from horovod_byz.host import environment
from horovod_byz.training import device, resume
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import Dataset, load_dataset
from horovod_byz.training.interrupts import Interrupts
from horovod_byz.training.progress import Reporter, Silent
from horovod_byz.training.ranks import Ranks, describe, spread
from horovod_byz.training.runs import RunError, RunFolder
from horovod_byz.training.trainer import Trainer

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
        resume: continue the run in `out` from its checkpoint, to more steps where the configuration asks for
            more; a complete run of as many steps is left as it is.
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

    def check(self, config: RunConfig, size: int) -> None:
        """Check what can be known before ranks start and data are read.

        Raises:
            ValueError: when one of `size` ranks would have no worker.
            RunError: when the folder cannot be used as asked.
        """
        collector = config.make_collector()
        spread(config.workers, size, dedicated_root=isinstance(collector, Root) and collector.dedicated)
        folder = RunFolder(self.out)
        if not self.resume and not self.overwrite:
            folder.check_free()
        elif self.resume and folder.exists:
            resume.check_same(config, folder)


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
    reporter = reporter if ranks.first and reporter else Silent()
    folder = RunFolder(launch.out)
    with ExitStack() as stack:
        with ranks.together("start"):
            place = device.find(launch.device, ranks.local_rank)
            if ranks.first:
                launch.check(config, ranks.size)
                stack.enter_context(folder.alone())
        resumed = launch.resume and resume.opens(config, folder, ranks)
        if launch.resume and not resumed:
            reporter.note(f"{folder.path} holds no run yet: starting a new one")
        if resumed and resume.finished(config, folder):
            reporter.note(f"{folder.path} holds the complete run: to go on, give more --steps")
            return folder.summary
        interrupts = stack.enter_context(Interrupts())
        if dataset is None:
            with ranks.together("data"):
                dataset = prepare(config, launch.data_dir, place)
        run = _Run(Trainer(config, dataset, ranks, place), folder, launch, interrupts, reporter)
        run.begin(resumed)
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
    # Before an evaluation that only the end of the run asks for: more --steps continue as if it had not been.
    before_end: dict[str, Any] | None = None

    def begin(self, resumed: bool) -> None:
        """Make the folder, or take up what it holds."""
        trainer, state = self.trainer, None
        if resumed:
            state, notes = resume.take_up(self.folder, trainer)
            for note in [*notes, *self._changed_code()]:
                self.reporter.note(note)
        if state is not None:
            trainer.load(state)
            self.metrics, self.timings = (
                [json.loads(line) for line in state[name].splitlines()] for name in ("metrics", "timings")
            )
        with trainer.ranks.together("run folder"):
            if trainer.ranks.first:
                if state is None:
                    self.folder.begin(trainer.config, overwrite=self.launch.overwrite or resumed)
                else:
                    self.folder.extend(trainer.config)
                    self._write_lines()
                self.folder.write_json("environment.json", {**environment.describe(), **self._job()})

    def _changed_code(self) -> list[str]:
        """Notes on the user's own code that is not what the run began with."""
        try:
            before = self.folder.read_json("environment.json").get("own", {})
        except RunError:  # lost or damaged: it is written anew, and there is nothing to compare with
            return []
        now = self.trainer.config.own_code
        changed = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
        return [
            f"the source of {name} changed since this run began: the result is not that of one run"
            for name in changed
        ]

    def _job(self) -> dict[str, Any]:
        dataset, own = self.trainer.dataset, self.trainer.config.own_code
        return {
            **({"own": own} if own else {}),
            **describe(self.trainer.ranks),
            "device": self.launch.device,
            "data_source": dataset.source,
        }

    def go(self) -> dict[str, Any]:
        """Step to the end and finish the folder."""
        trainer, config = self.trainer, self.trainer.config
        title = self.launch.title or config.slug
        self.reporter.start(title, config.steps, trainer.step)
        self._evaluate_if_due()
        begun, first = time.perf_counter(), trainer.step
        while trainer.step < config.steps:
            self._step()
            values: dict[str, float | None] = {
                "loss": trainer.loss,
                "steps_per_second": (trainer.step - first) / (time.perf_counter() - begun),
            }
            self._evaluate_if_due()
            values["accuracy"] = self.metrics[-1]["accuracy"]
            self.reporter.update(trainer.step, values)
            self._checkpoint_if_due()
        return self._finish()

    def _step(self) -> None:
        clock = [time.perf_counter()]
        self.trainer.compute()
        clock.append(time.perf_counter())
        collected = self.trainer.collect()
        clock.append(time.perf_counter())
        with self.interrupts.held():
            self.trainer.apply(collected)
        clock.append(time.perf_counter())
        self.trainer.remember()
        parts = {"compute": clock[1] - clock[0], **collected.timings, "apply": clock[3] - clock[2]}
        for part, seconds in parts.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def _evaluate_if_due(self) -> None:
        trainer = self.trainer
        if not trainer.due:
            return
        if trainer.step % trainer.config.evaluate_every:
            self.before_end = trainer.state()
        begun = time.perf_counter()
        record = trainer.evaluate()
        with self.interrupts.held():
            trainer.end_interval()
            self.metrics.append(record)
            self.seconds["evaluate"] = time.perf_counter() - begun
            parts = {name: round(seconds, 6) for name, seconds in self.seconds.items()}
            self.timings.append({"step": trainer.step, **parts})
            self.seconds.clear()
        with trainer.ranks.together("metrics"):
            if trainer.ranks.first:
                self._write_lines()

    def _write_lines(self) -> None:
        self.folder.write_lines("metrics.jsonl", self.metrics)
        self.folder.write_lines("timings.jsonl", self.timings)

    def _checkpoint_if_due(self) -> None:
        every = self.launch.checkpoint_every
        if every and self.trainer.step % every == 0 and self.trainer.step < self.trainer.config.steps:
            state = self.trainer.state()
            with self.trainer.ranks.together("checkpoint"):
                self._save(state)

    def _save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint that alone continues the run: with what was measured up to its evaluation."""
        if self.trainer.ranks.first:
            measured = {"metrics": self.metrics, "timings": self.timings}
            texts = {
                name: "\n".join(
                    json.dumps(record) for record in records if record["step"] <= state["evaluated"]
                )
                for name, records in measured.items()
            }
            self.folder.save_checkpoint({**state, **texts})

    def _finish(self) -> dict[str, Any]:
        state = self.before_end or self.trainer.state()
        best = max(self.metrics, key=lambda record: float(record["accuracy"]))
        summary = {
            "steps": self.trainer.step,
            "first_step": 0,
            "accuracy": self.metrics[-1]["accuracy"],
            "loss": self.metrics[-1]["loss"],
            "best_accuracy": best["accuracy"],
            "best_step": best["step"],
            "diverged_at": self.trainer.diverged_at,
        }
        with self.trainer.ranks.together("results"):
            self._save(state)
            if self.trainer.ranks.first:
                self.folder.write_json("verdicts.json", self.trainer.ledger.summary())
                self.folder.write_json("summary.json", summary)
        return summary

    def stop(self) -> int:
        """Save what a later `--resume` continues from, without other ranks; returns its step."""
        state = self.before_end or self.trainer.resumable()
        if state is None:
            return 0
        self._save(state)
        return int(state["step"])


def _settle(launch: Launch) -> None:
    """Make torch compute the same bits each time."""
    torch.set_num_threads(launch.threads)
    if launch.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
