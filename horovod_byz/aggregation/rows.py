"""Converts the caller's gradients to rows for the kernels, and the result back to the caller's type.

Rows are read in place: a contiguous array, a tensor on the CPU, or separate gradients are never stacked or
copied. Half precision is widened block by block as it is read. Only rows that kernels cannot read in place (a
strided last axis, an unaligned address, an accelerator's memory) are copied first. The caller's memory is
never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.halves import HalfRows
from horovod_byz.aggregation.source import Source, Whole
from horovod_byz.kernels.rows import Rows

Array = npt.NDArray[Any]
Restore = Callable[[Array], Any]

_KERNEL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def read(data: Any) -> tuple[Source, Restore]:
    """Views `data` as rows for the kernels.

    Args:
        data: (n, d) NumPy array or torch tensor, or a sequence of n one-dimensional ones; floating
            point, finite or not, read-only or not, of any strides and alignment. Lists of numbers are read
            as NumPy reads them, but integers as floats: the result is an array of float64.

    Returns:
        The rows (to the kernels float32 or float64), and a function that turns a (d,) result of the rows'
        dtype into the caller's type, dtype and device. Half precision is computed in float32.

    Raises:
        TypeError: if the data are not floating-point arrays, mix types, dtypes or devices, or would lose
            information: masks, or values that only a subclass of torch's tensor can give.
        ValueError: if there is no row, or the shape is not (n, d).
    """
    if isinstance(data, Rows):
        return Whole(data), _same
    whole = _is_array(data)
    parts: list[Any] = [data] if whole else _sequence(data)
    first = parts[0]
    if _is_tensor(first):
        restore = _tensor_restore(first, parts)
        parts = [_plain_tensor(part) for part in parts]
    else:
        restore = _array_restore(first)
        parts = [_plain_array(part) for part in parts]
    _check_alike(parts)
    if whole and first.ndim != 2:
        raise ValueError(
            f"rows must have the shape (n, d), got {tuple(first.shape)}: "
            "stack one flattened gradient per worker, or pass a list of them"
        )
    if whole and first.shape[0] == 0:
        raise ValueError("rows must hold at least one worker's gradient, got shape (0, d)")
    if _is_half(parts[0]):
        return HalfRows(list(parts[0]) if whole else parts), restore
    arrays = [_kernel_ready(part) for part in parts]
    return Whole(Rows(arrays[0] if whole else arrays)), restore


def _sequence(data: Any) -> list[Any]:
    if isinstance(data, (str, bytes, memoryview)) or not isinstance(data, Sequence):
        raise TypeError(
            f"rows must be an (n, d) array or tensor, or a sequence of 1-D ones, got {type(data).__name__}"
        )
    parts = list(data)
    if not parts:
        raise ValueError("rows must hold at least one worker's gradient, got an empty sequence")
    if all(isinstance(part, (list, tuple)) for part in parts):
        parts = [_numbers(part, i) for i, part in enumerate(parts)]
    for i, part in enumerate(parts):
        if not _is_array(part):
            raise TypeError(f"row {i} must be a 1-D array or tensor, got {type(part).__name__}")
        if type(part) is not type(parts[0]) and _is_tensor(part) != _is_tensor(parts[0]):
            raise TypeError("rows mix NumPy arrays and torch tensors: convert them to one of the two")
        if part.ndim != 1:
            raise ValueError(
                f"row {i} must be one-dimensional, got shape {tuple(part.shape)}: flatten it first"
            )
    return parts


def _numbers(part: Sequence[Any], i: int) -> Array:
    """A list of numbers as float64, the dtype of Python's own floats."""
    if any(_is_array(value) for value in part):
        raise TypeError(
            f"row {i} is a list of arrays or tensors: flatten a worker's gradients into one row first, "
            "such as torch.cat([g.reshape(-1) for g in gradients])"
        )
    try:
        row = np.asarray(part)
    except ValueError as error:  # ragged
        raise ValueError(f"row {i} must be a list of numbers: {error}") from error
    if row.ndim != 1:
        raise ValueError(f"row {i} must be a list of numbers, got shape {row.shape}: flatten it first")
    if row.size and row.dtype.kind not in "iuf":
        raise TypeError(f"row {i} must be a list of numbers, got {row.dtype}")
    return row.astype(np.float64)


def _check_alike(parts: list[Any]) -> None:
    first = parts[0]
    for i, part in enumerate(parts):
        if isinstance(part, np.ndarray) and part.dtype.kind != "f":
            raise TypeError(
                f"rows must be floating point, got dtype {part.dtype}: convert with .astype(numpy.float32)"
            )
        if part.dtype != first.dtype:
            raise TypeError(f"rows mix dtypes {first.dtype} and {part.dtype} (row {i}): convert them to one")
        if part.shape != first.shape:
            raise ValueError(f"row {i} has {part.shape[0]} coordinates where row 0 has {first.shape[0]}")


def _is_half(part: Any) -> bool:
    return int(part.dtype.itemsize) == 2


def _kernel_ready(part: Any) -> Array:
    array: Array = part if isinstance(part, np.ndarray) else part.numpy()
    if array.dtype not in _KERNEL_DTYPES or not array.dtype.isnative:
        with np.errstate(over="ignore"):  # longdouble beyond float64 becomes Inf, which rules handle
            array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    if not array.flags.aligned or (array.shape[-1] > 1 and array.strides[-1] != array.itemsize):
        array = array.copy()
    return array


def _is_tensor(value: Any) -> bool:
    """Whether the value is a torch tensor or of a derived class; does not import torch."""
    return any(
        base.__name__ == "Tensor" and base.__module__.partition(".")[0] == "torch"
        for base in type(value).__mro__
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def plain(data: Any, dtype: np.dtype[Any]) -> Array:
    """One array or tensor of a kernel's dtype as a NumPy array of aligned values that lie side by side.

    Args:
        data: of any shape; copied only if kernels cannot read it in place.
        dtype: the dtype that it must have.

    Raises:
        TypeError: as `read`, or for another dtype.
    """
    if not _is_array(data) or str(data.dtype).rpartition(".")[2] != dtype.name:
        got = getattr(data, "dtype", type(data).__name__)
        raise TypeError(f"rows must be an array or a tensor of dtype {dtype}, got {got}")
    return _kernel_ready(_plain_tensor(data) if _is_tensor(data) else _plain_array(data))


def _plain_array(array: Array) -> Array:
    """The array without its subclass, such as numpy.memmap; refuses a mask, which would be lost."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            "rows are a masked array, and a rule would read the masked values too: replace them first, "
            "for example with .filled(0.0)"
        )
    return np.asarray(array)


def _plain_tensor(tensor: Any) -> Any:
    """The tensor on the CPU, without subclass, graph or pending negation, in a dtype that kernels can read.

    Raises:
        TypeError: if its values cannot be read, or are not floating point.
    """
    import torch

    kind = type(tensor)
    # DTensor, nested and quantised subclasses intercept every operation: their storage is not the values.
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise TypeError(
            f"rows are of the class {kind.__name__}, which keeps its values elsewhere: convert them to plain "
            "tensors first, such as with .full_tensor() or .to_tensor(...)"
        )
    if not tensor.is_floating_point():
        raise TypeError(f"rows must be floating point, got dtype {tensor.dtype}: convert with .float()")
    if tensor.is_nested:
        raise TypeError("rows are a nested tensor: give a list of one-dimensional ones, such as .unbind()")
    if tensor.layout != torch.strided:
        raise TypeError(f"rows must be dense, got layout {tensor.layout}: convert with .to_dense()")
    if tensor.is_meta:
        raise TypeError("rows lie on the device 'meta', which holds no values: give the gradients themselves")
    tensor = tensor.as_subclass(torch.Tensor).detach().resolve_neg()
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        tensor = tensor.to(torch.float32)
    return tensor.cpu()


def _tensor_restore(first: Any, parts: list[Any]) -> Restore:
    import torch

    for i, part in enumerate(parts):
        if part.device != first.device:
            raise TypeError(
                f"rows lie on {first.device} and {part.device} (row {i}): move them to one device"
            )
        if part.dtype != first.dtype:
            raise TypeError(f"rows mix dtypes {first.dtype} and {part.dtype} (row {i}): convert them to one")

    def restore(value: Array) -> Any:
        tensor = torch.from_numpy(value)
        if tensor.dtype != first.dtype:
            # A half-precision result saturates: no non-finite value may reach the model.
            limit = torch.finfo(first.dtype).max
            tensor = tensor.clamp(-limit, limit).to(first.dtype)
        return tensor.to(first.device)

    return restore


def _array_restore(first: Array) -> Restore:
    if (first.dtype in _KERNEL_DTYPES and first.dtype.isnative) or first.dtype.kind != "f":
        return _same
    # Computed in float32, so it may exceed a float16: saturate, since no non-finite value may reach the
    # model.
    limit = np.finfo(first.dtype).max

    def restore(value: Array) -> Array:
        return np.clip(value, -limit, limit).astype(first.dtype)

    return restore


def _same(value: Array) -> Array:
    return value
