"""The state of a wrapped optimizer: made before the first step, and digested for comparison between ranks."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from horovod_byz.optimizer.leaves import Tree, leaves_of, leaves_of_tensors


class _Initial(dict[Any, Any]):
    """A parameter's state that remembers each value as it was when the optimizer first set it.

    What a step then does to the state is forgotten: its counter starts at 0, and NAdam's product at 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.initial: dict[Any, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.initial.setdefault(key, value.clone() if isinstance(value, torch.Tensor) else value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *pairs: Any, **more: Any) -> None:
        for key, value in dict(*pairs, **more).items():
            self[key] = value


@torch.no_grad()
def initialise(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimizer without state the state from which its first step would start.

    One step with gradients of zeros and without weight decay. Its effect on the parameters is undone, and so
    is that on the state; gradients are put back. What is there already stays.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    state = optimizer.state
    if all(state.get(parameter) for parameter in parameters):
        return  # some optimizers make it when they are constructed, as Adagrad did up to torch 2.11
    before = [(p, p.detach().clone(), p.grad) for p in parameters]
    decays = [(group, group["weight_decay"]) for group in optimizer.param_groups if "weight_decay" in group]
    there = {key: copy.deepcopy(entries) for key, entries in state.items() if entries}
    optimizer.state = defaultdict(_Initial, there)
    try:
        for group, _ in decays:
            group["weight_decay"] = 0
        for parameter in parameters:
            parameter.grad = _zero_gradient(optimizer, parameter)
        optimizer.step()
    finally:
        made, optimizer.state = optimizer.state, state
        for group, decay in decays:
            group["weight_decay"] = decay
        for parameter, value, gradient in before:
            parameter.copy_(value)
            parameter.grad = gradient
    for parameter, entries in made.items():
        if isinstance(entries, _Initial) and not state.get(parameter):
            state[parameter] = dict(entries.initial)


def _zero_gradient(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.Tensor:
    """Sparse where the optimizer or the gradient at hand is; Horovod puts one there for a sparse table."""
    zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    sparse = parameter.grad is not None and parameter.grad.layout == torch.sparse_coo
    return zeros.to_sparse() if sparse or isinstance(optimizer, torch.optim.SparseAdam) else zeros


def digest(optimizer: torch.optim.Optimizer) -> bytes:
    """BLAKE3 of the parameters, the optimizer's state, and its options such as the learning rate.

    Data-parallel ranks hold the same of all three; model buffers, which may differ, are left out. Numbers
    count by value, however they are written; see `leaves_of`.
    """
    return Tree.of(leaves_of(optimizer)).root


def digest_of(tensors: Iterable[torch.Tensor]) -> bytes:
    """BLAKE3 of some tensors' values."""
    return Tree.of(leaves_of_tensors(("", tensor) for tensor in tensors)).root
