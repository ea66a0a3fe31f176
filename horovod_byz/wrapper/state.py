"""The state of a wrapped optimizer: made before the first step, and digested for comparison between ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from blake3 import blake3

SIZE = 16  # bytes of a digest, as in the header of a step


@torch.no_grad()
def initialise(optimizer: torch.optim.Optimizer) -> None:
    """Makes the state that the optimizer's first step would make, and leaves parameters as they are.

    One step with gradients of zeros, whose effect on the parameters is undone. Gradients are put back too,
    and step counters start at 0.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    before = [(p, p.detach().clone(), p.grad) for p in parameters]
    sparse = isinstance(optimizer, torch.optim.SparseAdam)
    try:
        for parameter in parameters:
            zeros = torch.zeros_like(parameter)
            parameter.grad = zeros.to_sparse() if sparse else zeros
        optimizer.step()
    finally:
        for parameter, value, gradient in before:
            parameter.copy_(value)
            parameter.grad = gradient
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"].zero_()
        elif "step" in state:
            state["step"] = 0


def digest(optimizer: torch.optim.Optimizer) -> bytes:
    """BLAKE3 of the parameters, the optimizer's state, and its options such as the learning rate.

    Data-parallel ranks hold the same of all three; model buffers, which may differ, are left out.
    """
    hasher = blake3()
    for index, group in enumerate(optimizer.param_groups):
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        _add(hasher, f"group {index}", options)
        for parameter in group["params"]:
            _add(hasher, "parameter", parameter)
            _add(hasher, "state", optimizer.state.get(parameter, {}))
    return hasher.digest(SIZE)


def digest_of(tensors: Iterable[torch.Tensor]) -> bytes:
    """BLAKE3 of some tensors' values."""
    hasher = blake3()
    for tensor in tensors:
        _add(hasher, "", tensor)
    return hasher.digest(SIZE)


def _add(hasher: Any, name: str, value: Any) -> None:
    for path, leaf in _leaves(name, value):
        if isinstance(leaf, torch.Tensor):
            hasher.update(f"{path} {leaf.dtype} {tuple(leaf.shape)}\0".encode())
            hasher.update(_bytes(leaf))
        else:
            hasher.update(f"{path} {leaf!r}\0".encode())


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values, in an order that is equal on all ranks; others cannot be compared."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(f"{path}.{key}", value[key])
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(f"{path}.{i}", item)
    elif value is None or isinstance(value, (torch.Tensor, bool, int, float, complex, str)):
        yield path, value


def _bytes(tensor: torch.Tensor) -> Any:
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
