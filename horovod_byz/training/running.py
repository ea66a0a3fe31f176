"""A run while it goes on: steps, evaluations, checkpoints, and what is written of them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from horovod_byz.host import environment
from horovod_byz.training import resume
from horovod_byz.training.interrupts import Interrupts
from horovod_byz.training.progress import Reporter
from horovod_byz.training.ranks import describe
from horovod_byz.training.recording import recording
from horovod_byz.training.runs import RunError, RunFolder
from horovod_byz.training.trainer import Trainer

if TYPE_CHECKING:
    from horovod_byz.training.train import Launch

__all__ = ["Run"]


@dataclass
class Run:
    """A trainer together with the files of its run.

    Args:
        trainer: steps and evaluates.
        folder: the run folder; rank 0 writes it.
        launch: where and how.
        interrupts: Ctrl-C and termination, held back in the middle of an update.
        reporter: shows the progress.
    """

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
                about = {**environment.describe(), **self._job()}
                if state is None:
                    overwrite = self.launch.overwrite or resumed
                    self.folder.begin(trainer.config, about, overwrite=overwrite)
                else:
                    self.folder.extend(trainer.config, about)
                    self._write_lines()

    def _changed_code(self) -> list[str]:
        """Notes on the user's own code that is not what the run began with."""
        try:
            before = self.folder.environment.get("own", {})
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
            **self.trainer.skew.to_data(),
        }

    def go(self) -> dict[str, Any]:
        """Step to the end and finish the folder; the ledger's file is written meanwhile."""
        with recording(self.folder.path, self.trainer):
            return self._go()

    def _go(self) -> dict[str, Any]:
        trainer, config = self.trainer, self.trainer.config
        title = self.launch.title or config.slug
        if config.data.partition.divides:
            self.reporter.note(str(trainer.skew))
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
                self.folder.finish(summary, self.trainer.ledger.summary())
        return summary

    def stop(self) -> int:
        """Save what a later `--resume` continues from, without other ranks; returns its step."""
        state = self.before_end or self.trainer.resumable()
        if state is None:
            return 0
        self._save(state)
        return int(state["step"])
