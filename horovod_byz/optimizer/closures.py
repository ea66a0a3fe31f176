"""A step by a closure: each call of it is followed by an aggregation of gradients and loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from horovod_byz.optimizer.loss import Trials, is_finite
from horovod_byz.optimizer.stepping import LEFT_OUT, refuse_own_gradients

if TYPE_CHECKING:
    from horovod_byz.optimizer.distributed import DistributedOptimizer

__all__ = ["step_by"]

_NO_LOSS = (
    "over half of the workers' losses were NaN or infinite wherever the optimizer looked, so its line search "
    "has nothing to compare: check the closure's loss, or lower the learning rate"
)


class _LeftOutError(Exception):
    """Ends a step of the wrapped optimizer before it has moved a parameter."""


def step_by(optimizer: DistributedOptimizer, closure: Callable[[], Any]) -> Any:
    """What the wrapped optimizer's `step(closure)` returns; see `DistributedOptimizer.step`."""
    trials = Trials()
    try:
        if optimizer._should_synchronize and optimizer._hooks.pending:
            optimizer._aggregate()  # the optimizer may use these gradients before it asks for others
            if optimizer._overflowed:
                raise _LeftOutError
        return optimizer.optimizer.step(_aggregating(optimizer, closure, trials))
    except IndexError as error:  # so torch's strong-Wolfe search ends where it sees no finite loss
        if trials.known or is_finite(trials.last):
            raise
        raise RuntimeError(_NO_LOSS) from error
    except _LeftOutError:
        warnings.warn(LEFT_OUT, stacklevel=5)
        return None


def _aggregating(
    optimizer: DistributedOptimizer, closure: Callable[[], Any], trials: Trials
) -> Callable[[], Any]:
    first = not optimizer._hooks.sealed

    def call() -> Any:
        nonlocal first
        optimizer._hooks.reset()
        with torch.enable_grad():
            loss = closure()
        if not optimizer._should_synchronize:
            refuse_own_gradients(optimizer)
            return loss
        collected = optimizer._aggregate()
        loss = optimizer._share(loss)
        if not optimizer._overflowed and is_finite(loss):
            trials.note(loss)
        elif first and optimizer._overflowed:
            raise _LeftOutError
        elif not first and (optimizer._overflowed or trials.known):
            # The optimizer has moved parameters, and is to find its way back.
            optimizer._rows.write(np.zeros_like(collected.value))
            loss = trials.worse(loss)
        trials.last, first = loss, False
        return loss

    return call
