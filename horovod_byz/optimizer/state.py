"""The state of a wrapped optimizer: made before the first step, and digested for comparison between ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from blake3 import blake3

SIZE = 16  # bytes of a digest, as in the header of a step
# Larger ones are compared as they are: float32 has no room for them, and float64 none for all integers.
_LARGEST_NUMBER = 2.0**53


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
    before = [(p, p.detach().clone(), p.grad) for p in parameters]
    decays = [(group, group["weight_decay"]) for group in optimizer.param_groups if "weight_decay" in group]
    state = optimizer.state
    optimizer.state = defaultdict(_Initial)
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
        if not state.get(parameter):
            state[parameter] = dict(entries.initial)


def _zero_gradient(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.Tensor:
    """Sparse where the optimizer or the gradient at hand is; Horovod puts one there for a sparse table."""
    zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    sparse = parameter.grad is not None and parameter.grad.layout == torch.sparse_coo
    return zeros.to_sparse() if sparse or isinstance(optimizer, torch.optim.SparseAdam) else zeros


def digest(optimizer: torch.optim.Optimizer) -> bytes:
    """BLAKE3 of the parameters, the optimizer's state, and its options such as the learning rate.

    Data-parallel ranks hold the same of all three; model buffers, which may differ, are left out. Numbers
    count by value, however they are written: 1 is 1.0, and a learning rate of 0.1 is `torch.tensor(0.1)`,
    unless the group has parameters of float64, for which these two take different steps.
    """
    hasher = blake3()
    for index, group in enumerate(optimizer.param_groups):
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        wide = any(parameter.dtype == torch.float64 for parameter in group["params"])
        _add(hasher, f"group {index}", options, np.float64 if wide else np.float32)
        for parameter in group["params"]:
            _add_tensor(hasher, "parameter", parameter)
            _add(hasher, "state", optimizer.state.get(parameter, {}))
    return hasher.digest(SIZE)


def digest_of(tensors: Iterable[torch.Tensor]) -> bytes:
    """BLAKE3 of some tensors' values."""
    hasher = blake3()
    for tensor in tensors:
        _add_tensor(hasher, "", tensor)
    return hasher.digest(SIZE)


def _add(hasher: Any, name: str, value: Any, precision: type[np.floating[Any]] = np.float64) -> None:
    for path, leaf in _leaves(name, value):
        if isinstance(leaf, torch.Tensor):
            _add_tensor(hasher, path, leaf)
        else:
            hasher.update(f"{path} {_canonical(leaf, precision)!r}\0".encode())


def _add_tensor(hasher: Any, path: str, tensor: torch.Tensor) -> None:
    hasher.update(f"{path} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
    hasher.update(_bytes(tensor))


def _canonical(value: Any, precision: type[np.floating[Any]]) -> Any:
    """A real number as a float that holds its value in a precision; anything else as it is."""
    if not isinstance(value, (bool, int, float)) or abs(value) > _LARGEST_NUMBER:
        return value
    return float(precision(value)) + 0.0  # -0.0 becomes 0.0


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values, in an order that is equal on all ranks; others cannot be compared."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(f"{path}.{key}", value[key])
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(f"{path}.{i}", item)
    elif isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.dim() == 0):
        yield path, value.item()
    elif value is None or isinstance(value, (torch.Tensor, bool, int, float, complex, str)):
        yield path, value


def _bytes(tensor: torch.Tensor) -> Any:
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
