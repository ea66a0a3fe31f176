"""Tensors as rows of one block of memory, and the workers' gradients as such rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_ROW_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def cut(vector: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Cuts a `(d,)` vector into views with the tensors' shapes, in their order."""
    sizes = [tensor.numel() for tensor in tensors]
    pieces = vector.split(sizes) if sizes else ()
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


class FlatRows:
    """Copies of some tensors, one a row, with a view of each tensor in each row.

    Args:
        tensors: the tensors in the order of a row.
        count: number of rows, k.
        dtype: the rows' dtype.
        device: where they lie.

    Attributes:
        rows: `(k, d)`.
        views: for each row, a view per tensor, of the tensor's shape.
    """

    def __init__(
        self, tensors: Sequence[torch.Tensor], count: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.tensors = tuple(tensors)
        # Device and dtype are named: a script may have set other defaults.
        size = sum(tensor.numel() for tensor in tensors)
        self.rows = torch.zeros(count, size, dtype=dtype, device=device)
        self.views = [cut(row, self.tensors) for row in self.rows]
        self._described = [_described(tensor) for tensor in self.tensors]
        self._block: torch.Tensor | None = None

    @property
    def d(self) -> int:
        """Number of coordinates."""
        return self.rows.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The rows' dtype, as NumPy's."""
        return np.dtype(str(self.rows.dtype).removeprefix("torch."))

    @property
    def segments(self) -> tuple[int, ...]:
        """The coordinate after each tensor's last."""
        return tuple(itertools.accumulate(tensor.numel() for tensor in self.tensors))

    def fits(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the same tensors, none of them converted, moved or resized since."""
        return [_described(tensor) for tensor in tensors] == self._described

    def array(self) -> npt.NDArray[Any]:
        """The rows as a `(k, d)` array; the same memory where they lie on the CPU."""
        array: npt.NDArray[Any] = self.rows.cpu().numpy()
        return array

    @torch.no_grad()
    def adopt(self) -> None:
        """Moves the tensors next to one another, in their order, so that one copy reads them all.

        For whoever owns the tensors: views of them that were made before keep the old memory. Tensors of
        several dtypes or devices stay where they are.
        """
        if len({(tensor.dtype, tensor.device) for tensor in self.tensors}) == 1:
            self._block = torch.cat([tensor.detach().reshape(-1) for tensor in self.tensors])
            for tensor, view in zip(self.tensors, cut(self._block, self.tensors), strict=True):
                tensor.data = view

    @torch.no_grad()
    def read(self, row: int) -> None:
        """Copies the tensors into a row."""
        if self._block is not None:
            self.rows[row].copy_(self._block)
            return
        for tensor, view in zip(self.tensors, self.views[row], strict=True):
            view.copy_(tensor)

    @torch.no_grad()
    def put_back(self, row: int) -> None:
        """Copies a row into the tensors."""
        if self._block is not None:
            self._block.copy_(self.rows[row])
            return
        for tensor, view in zip(self.tensors, self.views[row], strict=True):
            tensor.copy_(view)


class WorkerRows(FlatRows):
    """The gradients of a rank's workers, one row each, and the way back from an aggregate to the gradients.

    A worker's gradient gets into its row in one of two ways. `fill` copies what a backward pass left in
    `p.grad`: `zero_grad(set_to_none=True)`, which is torch's default, makes every backward pass allocate
    gradients of its own. Or the caller computes into `views`, for example with `p.grad = view`, and nothing
    is copied.

    Args:
        parameters: the parameters in the order of a row; float16, bfloat16, float32 or float64, on any
            device.
        names: their names, for errors and for the check that all ranks have the same; default their numbers.
        workers: number of workers of this rank, k.
        sparse: whether the optimizer takes sparse gradients only, as SparseAdam does; where a rank's batch
            leaves a table out, its gradient is None, and cannot say so.
        device: where the rows lie; default the CPU, where rules run.

    Attributes:
        rows: the rows, `(k, d)`; float64 if any parameter is, else float32.
        sparse: for each parameter, how many dimensions of its gradient are sparse; 0 for a dense one.

    Raises:
        TypeError: if a parameter is of another dtype.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        names: Sequence[str] | None = None,
        *,
        workers: int = 1,
        sparse: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.names = tuple(map(str, range(len(parameters))) if names is None else names)
        for name, parameter in zip(self.names, parameters, strict=True):
            if parameter.dtype not in _ROW_DTYPES:
                raise TypeError(
                    f"parameter {name} is {parameter.dtype}: only real floating-point parameters of 16, 32 "
                    "or 64 bits can be aggregated; leave it out of the optimizer or convert it"
                )
        super().__init__(parameters, workers, row_dtype(parameters), torch.device(device))
        self.sparse = [int(sparse)] * len(self.tensors)

    @property
    def layout(self) -> str:
        """Names, shapes and dtypes, which all ranks must share."""
        return layout_of(self.names, self.tensors)

    @torch.no_grad()
    def fill(self, worker: int = 0) -> npt.NDArray[Any]:
        """Copies the gradients into a worker's row, zeros where there is none; returns all rows, `(k, d)`."""
        for i in range(len(self.tensors)):
            self.take(i, worker)
        return self.array()

    @torch.no_grad()
    def take(self, i: int, worker: int = 0) -> None:
        """Copies the gradient of the i-th parameter into a worker's row, zeros if there is none."""
        grad, view = self.tensors[i].grad, self.views[worker][i]
        if grad is None:
            view.zero_()
        elif grad.layout == torch.strided:
            view.copy_(grad)
        else:
            self.sparse[i] = grad.sparse_dim()
            view.copy_(grad.to_dense())

    @torch.no_grad()
    def write(self, value: npt.NDArray[Any], *, copy: bool = True) -> None:
        """Makes an aggregate `(d,)` the gradients; half precision saturates instead of overflowing.

        A parameter without a gradient gets a sparse one where it had one before.

        Args:
            value: the aggregate.
            copy: whether gradients have memory of their own. Without it, a dense gradient of the rows' dtype
                is a view of `value`, on the rows' device: for a caller that uses it up before the next step.
        """
        flat = torch.from_numpy(np.asarray(value))
        parts = cut(flat if copy else flat.to(self.rows.device), self.tensors)
        for parameter, part, sparse in zip(self.tensors, parts, self.sparse, strict=True):
            if parameter.dtype.itemsize < part.dtype.itemsize:
                limit = torch.finfo(parameter.dtype).max
                part = part.clamp(-limit, limit)
            grad = parameter.grad
            if sparse and (grad is None or grad.layout != torch.strided):
                parameter.grad = part.to(parameter.device, parameter.dtype).to_sparse(sparse)
            elif not copy:
                parameter.grad = part.to(parameter.device, parameter.dtype)
            elif grad is None:
                parameter.grad = torch.empty_like(parameter).copy_(part)
            else:
                grad.copy_(part)

    @torch.no_grad()
    def invalidate(self) -> None:
        """Makes every gradient NaN, which a GradScaler takes for an overflow."""
        for parameter in self.tensors:
            parameter.grad = torch.full_like(parameter, math.nan)


def row_dtype(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """float64 if any of some floating-point tensors is, else float32."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def layout_of(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> str:
    """Names, shapes and dtypes of tensors in one line, which all ranks must share."""
    return ";".join(f"{n}{tuple(t.shape)}{t.dtype}" for n, t in zip(names, tensors, strict=True))


def _described(tensor: torch.Tensor) -> tuple[Any, ...]:
    return id(tensor), tensor.dtype, tensor.shape, tensor.device
