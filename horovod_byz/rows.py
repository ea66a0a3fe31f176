"""The gradient matrix as a caller hands it over, and the way back to the caller's own type.

Rows are read where they lie: a contiguous array, a tensor on the CPU, or separate gradients are
never stacked or copied. Half precision is widened block by block as it is read. Only what cannot be read
so (a strided last axis, an accelerator's memory) is copied first, and the caller's memory is never written
to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.halves import HalfRows
from horovod_byz.kernels.rows import Rows

Array = npt.NDArray[Any]
Restore = Callable[[Array], Any]

_KERNEL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def read(data: Any) -> tuple[Rows | HalfRows, Restore]:
    """Views `data` as rows for the kernels.

    Args:
        data: (n, d) NumPy array or torch tensor, or a sequence of n one-dimensional ones; floating
            point, finite or not, read-only or not.

    Returns:
        The rows (to the kernels float32 or float64), and a function that turns a (d,) result of the rows'
        dtype into the caller's type, dtype and device. Half precision is computed in float32.

    Raises:
        TypeError: if the data are not floating-point arrays, or mix types, dtypes or devices.
        ValueError: if there is no row, or the shape is not (n, d).
    """
    if isinstance(data, Rows):
        return data, _same
    whole = _is_array(data)
    parts: list[Any] = [data] if whole else _sequence(data)
    first = parts[0]
    if _is_tensor(first):
        restore = _tensor_restore(first, parts)
        parts = [_kernel_tensor(part) for part in parts]
    else:
        restore = _array_restore(first)
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
    return Rows(arrays[0] if whole else arrays), restore


def _sequence(data: Any) -> list[Any]:
    if isinstance(data, (str, bytes)) or not isinstance(data, Sequence):
        raise TypeError(
            f"rows must be an (n, d) array or tensor, or a sequence of 1-D ones, got {type(data).__name__}"
        )
    parts = list(data)
    if not parts:
        raise ValueError("rows must hold at least one worker's gradient, got an empty sequence")
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
        array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    if array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
        array = np.ascontiguousarray(array)
    return array


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "data_ptr")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _kernel_tensor(tensor: Any) -> Any:
    """The tensor on the CPU, of a dtype whose values can be read."""
    import torch

    if not tensor.is_floating_point():
        raise TypeError(f"rows must be floating point, got dtype {tensor.dtype}: convert with .float()")
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        raise TypeError(f"rows must be dense, got layout {tensor.layout}: convert with .to_dense()")
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
    limit = np.finfo(first.dtype).max

    def restore(value: Array) -> Array:
        return np.clip(value, -limit, limit).astype(first.dtype)

    return restore


def _same(value: Array) -> Array:
    return value
