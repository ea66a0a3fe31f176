"""A run from Python: one configuration in, its series out.

from horovod_byz.training.api import run

result = run({"workers": 9, "byzantine": 2, "attack": "sign-flip", "rule": "median", "steps": 100})
result.series("accuracy")  # at result.steps
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from horovod_byz.training import config as configs
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import Dataset
from horovod_byz.training.progress import Reporter
from horovod_byz.training.ranks import launched
from horovod_byz.training.runs import RunError, RunFolder
from horovod_byz.training.train import Launch, train

__all__ = ["Result", "read", "run"]

Metric = Literal["accuracy", "top3", "loss", "train_loss", "lr"]


@dataclass(frozen=True, eq=False)
class Result:
    """A complete run.

    Attributes:
        config: its configuration.
        metrics: one record per evaluation: step, accuracy, top3, loss, train_loss, lr.
        summary: what it came to: steps, accuracy, best_accuracy, best_step, loss, diverged_at.
        verdicts: how each worker was treated.
        environment: versions, processor, label skew.
    """

    config: RunConfig
    metrics: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    verdicts: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def steps(self) -> NDArray[np.int64]:
        """The steps of the evaluations."""
        return np.array([record["step"] for record in self.metrics], np.int64)

    @property
    def accuracy(self) -> float:
        """The test accuracy at the end, 0 to 1."""
        return float(self.summary["accuracy"])

    def series(self, metric: Metric = "accuracy") -> NDArray[np.float64]:
        """A metric at each evaluation; NaN where it was not finite."""
        values = [record[metric] for record in self.metrics]
        return np.array([np.nan if value is None else value for value in values], np.float64)


def run(
    config: RunConfig | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    data_dir: Path | None = None,
    dataset: Dataset | None = None,
    device: str = "cpu",
    threads: int = 1,
    reporter: Reporter | None = None,
) -> Result:
    """Trains one configuration, with the numbers of `horovod-byz train`.

    In a job of several ranks all of them call it; each gets the result.

    Args:
        config: the configuration: plain data as in a TOML file, the path of such a file, or a `RunConfig`.
        out: the run folder, which every rank must see; None for one that is removed again.
        resume: continue the run in `out`, also a finished one to more steps.
        overwrite: replace a run that `out` holds.
        data_dir: where to look for the data first.
        dataset: the data, if the caller has them already.
        device: where gradients are computed: "cpu" or "cuda".
        threads: torch's and the kernels' threads, set for this process.
        reporter: shows the progress; None shows nothing.

    Raises:
        ConfigError: if the configuration is wrong; one line per fault.
        RunError: if the folder cannot be used as asked; or a job of several ranks gives none.
        DatasetMissing: if the data cannot be found.
    """
    made = config if isinstance(config, RunConfig) else configs.make(_plain(config))
    if out is None and launched() > 1:
        raise RunError(f"{launched()} ranks need a run folder that all of them see: give out=")
    with ExitStack() as stack:
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        launch = Launch(Path(out), data_dir, resume, overwrite, 0, device, threads)
        train(made, launch, dataset=dataset, reporter=reporter)
        return read(out)


def read(folder: Path | str) -> Result:
    """Reads a complete run.

    Raises:
        RunError: if the folder holds none.
    """
    kept = RunFolder(Path(folder))
    return Result(kept.config, tuple(kept.metrics), kept.summary, kept.verdicts, kept.environment)


def _plain(config: Mapping[str, Any] | Path | str) -> Mapping[str, Any]:
    return config if isinstance(config, Mapping) else configs.read(Path(config))
