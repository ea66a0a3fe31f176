"""A step without a closure: aggregates unless `synchronize()` did, and steps unless the step is left out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from horovod_byz.optimizer.scaling import LossScale

if TYPE_CHECKING:
    from horovod_byz.optimizer.distributed import DistributedOptimizer

__all__ = ["LEFT_OUT", "refuse_own_gradients", "step_once"]

LEFT_OUT = "step left out: over half of the workers' gradients held NaN or infinities"


def step_once(optimizer: DistributedOptimizer) -> Any:
    """What the wrapped optimizer's `step()` returns; see `DistributedOptimizer.step`."""
    scale = LossScale(optimizer)
    if optimizer._hooks.sealed:
        if optimizer._remembered.momentum is not None:
            optimizer._remembered.momentum.refuse(scale)
        if optimizer._should_synchronize and not scale.present:
            warnings.warn(
                "optimizer.step() called without optimizer.skip_synchronize() after "
                "optimizer.synchronize(): it takes the gradients as they are; say so by "
                "`with optimizer.skip_synchronize():`",
                stacklevel=5,
            )
        skip = optimizer._overflowed or scale.overflowed
    elif optimizer._should_synchronize:
        # A rank's scale is its own affair: rows are gradients of the loss itself.
        # Of all parameters: one that was added or thawed since the last step is not in the row yet.
        scale.remove(optimizer._parameters())
        optimizer.synchronize()
        skip = optimizer._overflowed
    else:
        refuse_own_gradients(optimizer)
        skip = scale.overflowed
    if skip:
        if not scale.present:
            warnings.warn(LEFT_OUT, stacklevel=5)
        return None
    scale.remove(optimizer._parameters())
    return optimizer._apply()


def refuse_own_gradients(optimizer: DistributedOptimizer) -> None:
    """Refuses a step with this rank's own gradients.

    Raises:
        RuntimeError: if there are some that were not aggregated.
    """
    if optimizer._hooks.pending:
        raise RuntimeError(
            "optimizer.step() inside skip_synchronize() would take this rank's own gradients: call "
            "optimizer.synchronize() after backward() and before it"
        )
