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

        Args:
            loss: this rank's.
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


class Trials:
    """The losses at the points that an optimizer tries within one step.

    A line search may go so far that over half of the workers overflow. Such a point gets a loss above all
    others of the step, so that the search backs off. NaN would not do: it is neither above nor below another
    loss, and torch's strong-Wolfe search ends with an IndexError. Infinity would interpolate to NaN.

    Attributes:
        last: the last loss that the optimizer got.
    """

    def __init__(self) -> None:
        self._largest: float | None = None
        self.last: Any = None

    @property
    def known(self) -> bool:
        """Whether a loss was noted."""
        return self._largest is not None

    def note(self, loss: Any) -> None:
        """Takes the shared loss at a point without overflow."""
        if _is_number(loss):
            self._largest = max(float(loss), float(loss) if self._largest is None else self._largest)

    def worse(self, loss: Any) -> Any:
        """A loss above all that were noted, as a tensor or number like `loss`; `loss` if there are none."""
        if self._largest is None or not _is_number(loss):
            return loss
        value = self._largest + 1 + abs(self._largest)
        if isinstance(loss, torch.Tensor):
            return torch.full_like(loss, min(value, torch.finfo(loss.dtype).max))
        return value


def is_finite(loss: Any) -> bool:
    """Whether a loss is finite; one that is no number counts as finite."""
    return not _is_number(loss) or math.isfinite(float(loss))


def _is_number(loss: Any) -> bool:
    if isinstance(loss, torch.Tensor):
        return loss.numel() == 1 and not loss.is_complex()
    return isinstance(loss, (int, float))
