"""Checks of the arguments that `DistributedOptimizer` shares with Horovod's."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from horovod_byz.common.checks import count

# hvd.Average, hvd.Sum and hvd.Adasum are the numbers 0, 1 and 2 of Horovod's core.
_AVERAGE = 0


def check_optimizer(optimizer: Any, wrapper: type) -> None:
    """Refuses what is no torch optimizer, or one that is wrapped already.

    Raises:
        TypeError, ValueError: accordingly.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, wrapper):
        raise ValueError("optimizer is a horovod_byz.DistributedOptimizer already: use it as it is")
    # Horovod makes a subclass of the optimizer's class, known only by what it adds.
    if hasattr(optimizer, "_allreduce_delay"):
        raise ValueError(
            "optimizer is wrapped by hvd.DistributedOptimizer, which would average the gradients first: "
            "wrap the plain torch optimizer instead"
        )


def check_horovod_arguments(op: Any, gradient_predivide_factor: float, process_set: Any) -> None:
    """Refuses values that change what Horovod's optimizer does and have no meaning here.

    Raises:
        ValueError: with the remedy.
    """
    if op is not None and op != _AVERAGE:
        raise ValueError(
            f"op={op!r} is not supported: rows are combined by `rule`; leave op out (for a sum, multiply the "
            "learning rate by the number of workers)"
        )
    if gradient_predivide_factor != 1.0:
        raise ValueError(
            f"gradient_predivide_factor={gradient_predivide_factor} is not supported: rows are summed in "
            "float64 and cannot overflow; leave it at 1.0"
        )
    if process_set is not None and getattr(process_set, "process_set_id", None) != 0:
        raise ValueError(
            "process_set is not supported, since all ranks take part: leave it out, and start the job with "
            "the ranks that should (a rank that only aggregates is collect=Root(dedicated=True))"
        )


def check_own_arguments(owner: object, wire: Any, threads: Any, buffers: Any, num_groups: Any) -> None:
    """Refuses values that would fail far from here, with an error from inside.

    Raises:
        TypeError, ValueError: with the remedy.
    """
    if wire is not None and not callable(wire):
        raise TypeError(f"wire must be a function (block, offset, d, step), got {type(wire).__name__}")
    if threads is not None:
        count(owner, "threads", threads, 1)
    if isinstance(buffers, torch.nn.Module):
        raise TypeError("buffers must be (name, buffer) pairs, got the model: give model.named_buffers()")
    count(owner, "num_groups", num_groups)


def name_parameters(
    optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, torch.Tensor]] | None
) -> dict[torch.Tensor, str]:
    """The name of each parameter of the optimizer.

    Raises:
        ValueError: if `named` is not made of pairs, has a name twice, or lacks a parameter.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if named is None:
        groups = enumerate(optimizer.param_groups)
        return {p: f"group{i}.{j}" for i, group in groups for j, p in enumerate(group["params"])}
    pairs = list(named)
    if any(not isinstance(pair, tuple) or len(pair) != 2 for pair in pairs):
        raise ValueError("named_parameters must be (name, parameter) pairs, such as model.named_parameters()")
    twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    if twice:
        raise ValueError(f"named_parameters has names twice: {', '.join(twice)}")
    names = {parameter: name for name, parameter in pairs}
    missing = [tuple(p.shape) for p in parameters if p not in names]
    if missing:
        raise ValueError(
            f"named_parameters lacks {len(missing)} of the optimizer's parameters (shapes {missing}): pass "
            "model.named_parameters() of the whole model, or leave it out"
        )
    return {p: names[p] for p in parameters}


def refuse_ddp(parameters: Iterable[torch.Tensor]) -> None:
    """Refuses parameters of a model inside `DistributedDataParallel`, which averages gradients first.

    Raises:
        ValueError: with the remedy.
    """
    if not _ddp_is_used():
        return
    from torch.nn.parallel import DistributedDataParallel

    wrapped = {
        id(parameter)
        for thing in gc.get_objects()
        if type(thing) is DistributedDataParallel
        for parameter in thing.module.parameters()
    }
    if any(id(parameter) in wrapped for parameter in parameters):
        raise ValueError(
            "the model is inside DistributedDataParallel, which averages the gradients before the rule sees "
            "them, so that one Byzantine worker spoils every row: train the bare model (ddp.module), and "
            "give all ranks the same parameters at the start, such as by torch.distributed.broadcast"
        )


def _ddp_is_used() -> bool:
    """Whether a model may be inside DDP: it needs a process group. Spares others the search."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
