"""A model's gradients as one row: a persistent flat buffer with a view per parameter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_ROW_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class FlatGradient:
    """Copies gradients into one row, and an aggregate back into the gradients.

    Copies, rather than gradients that are views of the row: `zero_grad(set_to_none=True)`, which is
    torch's default, makes every backward pass allocate gradients of its own.

    Args:
        parameters: the parameters in the order of the row; float16, bfloat16, float32 or float64, on
            any device.
        names: their names, for errors and for the check that all ranks have the same.
        sparse_as_dense: whether sparse gradients may be made dense.

    Attributes:
        row: the row, (d,) on the CPU; float64 if any parameter is, else float32.

    Raises:
        TypeError: if a parameter is of another dtype.
    """

    def __init__(
        self, parameters: Sequence[torch.Tensor], names: Sequence[str], sparse_as_dense: bool = False
    ) -> None:
        self.parameters, self.names, self._sparse_as_dense = tuple(parameters), tuple(names), sparse_as_dense
        for name, parameter in zip(names, parameters, strict=True):
            if parameter.dtype not in _ROW_DTYPES:
                raise TypeError(
                    f"parameter {name} is {parameter.dtype}: only real floating-point parameters of 16, 32 "
                    "or 64 bits can be aggregated; leave it out of the optimizer or convert it"
                )
        wide = any(parameter.dtype == torch.float64 for parameter in parameters)
        sizes = [parameter.numel() for parameter in parameters]
        self.row = torch.zeros(sum(sizes), dtype=torch.float64 if wide else torch.float32)
        pieces = self.row.split(sizes) if sizes else ()
        self._views = [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]

    @property
    def segments(self) -> tuple[int, ...]:
        """The coordinate after each parameter's last."""
        return tuple(itertools.accumulate(parameter.numel() for parameter in self.parameters))

    @property
    def layout(self) -> str:
        """Names, shapes and dtypes, which all ranks must share."""
        described = (
            f"{n}{tuple(p.shape)}{p.dtype}" for n, p in zip(self.names, self.parameters, strict=True)
        )
        return ";".join(described)

    @torch.no_grad()
    def fill(self) -> npt.NDArray[Any]:
        """Copies the gradients into the row, zeros where there is none; returns it as (1, d)."""
        for name, parameter, view in zip(self.names, self.parameters, self._views, strict=True):
            grad = parameter.grad
            if grad is None:
                view.zero_()
            elif grad.layout == torch.strided:
                view.copy_(grad)
            elif self._sparse_as_dense:
                view.copy_(grad.to_dense())
            else:
                raise TypeError(
                    f"parameter {name} has a sparse gradient: pass sparse_as_dense=True to "
                    "DistributedOptimizer, or make the layer with sparse=False"
                )
        array: npt.NDArray[Any] = self.row.numpy()
        return array.reshape(1, -1)

    @torch.no_grad()
    def write(self, value: npt.NDArray[Any]) -> None:
        """Copies an aggregate (d,) into the gradients; half precision saturates instead of overflowing."""
        self.row.copy_(torch.from_numpy(np.asarray(value)))
        for parameter, view in zip(self.parameters, self._views, strict=True):
            found = view
            if parameter.dtype.itemsize < view.dtype.itemsize:
                limit = torch.finfo(parameter.dtype).max
                found = view.clamp(-limit, limit)
            grad = parameter.grad
            if grad is None:
                parameter.grad = torch.empty_like(parameter).copy_(found)
            elif grad.layout == torch.strided:
                grad.copy_(found)
            else:
                parameter.grad = found.to(parameter.device, parameter.dtype).to_sparse(grad.sparse_dim())
