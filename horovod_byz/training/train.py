"""Runs one configuration into a run folder: begin or resume, step, evaluate, save, end cleanly."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from horovod_byz.collect import Root, TransportError
from horovod_byz.training import device, resume
from horovod_byz.training.alone import alone
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import Dataset, load_dataset
from horovod_byz.training.interrupts import Interrupts
from horovod_byz.training.progress import Reporter, Silent
from horovod_byz.training.ranks import Ranks, spread
from horovod_byz.training.running import Run
from horovod_byz.training.runs import RunFolder
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
                stack.enter_context(alone(folder.path))
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
        run = Run(Trainer(config, dataset, ranks, place), folder, launch, interrupts, reporter)
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


def _settle(launch: Launch) -> None:
    """Make torch compute the same bits each time."""
    torch.set_num_threads(launch.threads)
    if launch.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
