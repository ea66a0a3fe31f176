"""A model's gradients as one row: a persistent flat buffer with a view per parameter."""

from __future__ import annotations

import itertools
import math
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
        sparse: whether the optimizer takes sparse gradients only, as SparseAdam does; where a rank's batch
            leaves a table out, its gradient is None, and cannot say so.

    Attributes:
        row: the row, (d,) on the CPU; float64 if any parameter is, else float32.
        sparse: for each parameter, how many dimensions of its gradient are sparse; 0 for a dense one.

    Raises:
        TypeError: if a parameter is of another dtype.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        names: Sequence[str],
        sparse: bool = False,
    ) -> None:
        self.parameters, self.names = tuple(parameters), tuple(names)
        for name, parameter in zip(names, parameters, strict=True):
            if parameter.dtype not in _ROW_DTYPES:
                raise TypeError(
                    f"parameter {name} is {parameter.dtype}: only real floating-point parameters of 16, 32 "
                    "or 64 bits can be aggregated; leave it out of the optimizer or convert it"
                )
        wide = any(parameter.dtype == torch.float64 for parameter in parameters)
        sizes = [parameter.numel() for parameter in parameters]
        # Devices and dtypes are named throughout: a script may have set other defaults.
        self.row = torch.zeros(
            sum(sizes), dtype=torch.float64 if wide else torch.float32, device=torch.device("cpu")
        )
        pieces = self.row.split(sizes) if sizes else ()
        self._views = [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
        self.sparse = [int(sparse)] * len(self.parameters)
        self._described = [_described(parameter) for parameter in self.parameters]

    def fits(self, parameters: Sequence[torch.Tensor]) -> bool:
        """Whether these are the same parameters, none of them converted, moved or resized since."""
        return [_described(parameter) for parameter in parameters] == self._described

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
        for i, (parameter, view) in enumerate(zip(self.parameters, self._views, strict=True)):
            grad = parameter.grad
            if grad is None:
                view.zero_()
            elif grad.layout == torch.strided:
                view.copy_(grad)
            else:
                self.sparse[i] = grad.sparse_dim()
                view.copy_(grad.to_dense())
        array: npt.NDArray[Any] = self.row.numpy()
        return array.reshape(1, -1)

    @torch.no_grad()
    def write(self, value: npt.NDArray[Any]) -> None:
        """Copies an aggregate (d,) into the gradients; half precision saturates instead of overflowing.

        A parameter without a gradient gets a sparse one where it had one before.
        """
        self.row.copy_(torch.from_numpy(np.asarray(value)))
        for parameter, view, sparse in zip(self.parameters, self._views, self.sparse, strict=True):
            part = view
            if parameter.dtype.itemsize < view.dtype.itemsize:
                limit = torch.finfo(parameter.dtype).max
                part = view.clamp(-limit, limit)
            grad = parameter.grad
            if sparse and (grad is None or grad.layout != torch.strided):
                parameter.grad = part.to(parameter.device, parameter.dtype).to_sparse(sparse)
            elif grad is None:
                parameter.grad = torch.empty_like(parameter).copy_(part)
            else:
                grad.copy_(part)

    @torch.no_grad()
    def invalidate(self) -> None:
        """Makes every gradient NaN, which a GradScaler takes for an overflow."""
        for parameter in self.parameters:
            parameter.grad = torch.full_like(parameter, math.nan)


def _described(parameter: torch.Tensor) -> tuple[Any, ...]:
    return id(parameter), parameter.dtype, parameter.shape, parameter.device
