"""The start by vote: every rank has a copy of the state, and the majority's wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from horovod_byz.collect import time_limit
from horovod_byz.collect.transport import connect
from horovod_byz.optimizer.leaves import Leaf, leaves_of, leaves_of_tensors
from horovod_byz.optimizer.repair import KeepsRecords, StateCheck

Parameters = (
    torch.nn.Module
    | torch.optim.Optimizer
    | Mapping[str, torch.Tensor]
    | Iterable[tuple[str, torch.Tensor] | torch.Tensor]
)


def broadcast_majority(
    params: Parameters, *, ledger: KeepsRecords | None = None, timeout: float | None = None
) -> tuple[int, ...]:
    """Makes the state that most ranks hold the state of all, bit for bit; in place.

    It takes the place of `hvd.broadcast_parameters` where every rank has a copy, by the same seed or from
    the same checkpoint: no single rank decides how the job starts, and a rank whose copy is damaged is named
    and gets the majority's. All ranks call it together; equal copies cost 16 bytes between two ranks.

        model.load_state_dict(hb.load_checkpoint("model.pt"))    # on every rank
        hb.broadcast_majority(model.state_dict())

    Args:
        params: a `state_dict` of tensors, (name, tensor) pairs or tensors, as Horovod takes them; or a
            module; or an optimizer, of which parameters, state and options are compared.
        ledger: gets the evidence against the ranks that differ, such as `optimizer.ledger`.
        timeout: seconds that a wait between ranks may take; default as `DistributedOptimizer`.

    Returns:
        The ranks that held another state, ascending; a warning names the tensors.

    Raises:
        StateMismatchError: if no majority of the ranks holds the same, if the ranks hold other tensors, or
            an option of an optimizer, such as its learning rate, differs.
        LateRanksError: if a rank does not arrive in time.
        TypeError: if `params` is none of these, or holds a value that is no tensor.
    """
    leaves = list(_leaves(params))
    transport = connect("start", time_limit(timeout))
    if transport.size == 1:
        return ()
    transport.watchdog.begin(0)
    return StateCheck(lambda: leaves, ledger).agree(transport, 0)


def _leaves(params: Any) -> Iterator[Leaf]:
    if isinstance(params, torch.optim.Optimizer):
        return leaves_of(params, getattr(params, "_parameter_names", None))
    if isinstance(params, torch.nn.Module):
        params = params.state_dict()
    if isinstance(params, Mapping):
        params = sorted(params.items())
    if not isinstance(params, Iterable) or isinstance(params, torch.Tensor | str):
        raise TypeError(f"params must be a state_dict, pairs, a module or an optimizer, got {type(params)}")
    pairs = [item if isinstance(item, tuple) else (str(i), item) for i, item in enumerate(params)]
    for name, value in pairs:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"broadcast_majority takes tensors, got {type(value).__name__} as {name}")
    return leaves_of_tensors(pairs)
