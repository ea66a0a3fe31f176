"""One loss for all ranks, for optimizers that decide by it, such as LBFGS with a line search."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from horovod_byz.collect import Collector, Session
from horovod_byz.rules import Median


class SharedLoss:
    """Replaces each rank's loss by the median of all workers' losses, so that all decide alike.

    Args:
        collect: the way to collect.
        options: further options of `Collector.bind`.
    """

    def __init__(self, collect: Collector, **options: Any) -> None:
        self._collect, self._options = collect, options
        self._session: Session | None = None

    def __call__(self, loss: Any) -> Any:
        """The median over the workers, as a tensor or number like `loss`; all ranks call it together.

        NaN where over half of the losses are not finite. What is no single number is returned as it is.
        """
        if not _is_number(loss):
            return loss
        session = self._session
        if session is None or not session.is_current:
            session = self._session = self._collect.bind(1, np.float64, name="loss", **self._options)
        own = np.array([[float(loss.detach() if isinstance(loss, torch.Tensor) else loss)]])
        collected = session.step(own[: len(session.workers)], Median())
        value = math.nan if collected.overflowed else float(collected.value[0])
        return loss.detach().new_full(loss.shape, value) if isinstance(loss, torch.Tensor) else value

    def rebind(self) -> None:
        """Forgets the ranks."""
        self._session = None


def _is_number(loss: Any) -> bool:
    if isinstance(loss, torch.Tensor):
        return loss.numel() == 1 and not loss.is_complex()
    return isinstance(loss, (int, float))
