"""The tensors and numbers that all ranks must share, by name: parameters, optimizer state, options."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3

Bytes = npt.NDArray[np.uint8]
Put = Callable[[Any], Any]
Kind = Literal["parameter", "state", "option", "buffer"]

SIZE = 16  # bytes of a digest, as in the header of a step
# Larger ones are compared as they are: float32 has no room for them, and float64 none for all integers.
_LARGEST_NUMBER = 2.0**53
# Bytes below which a second thread costs more than it saves.
_WORTH_THREADS = 2**22
_NUMBER = struct.Struct("<?d")  # whether there is a number, and the number


class Leaf:
    """A value that all ranks must share, with its name.

    Attributes:
        name: for people, such as "exp_avg of layer1.weight".
        kind: "parameter", "state", "option" or "buffer".
        shape: its text in the structure that all ranks must share.
        size: bytes of its value in transit.
        itemsize: bytes of one number in transit.
    """

    shape: str
    size: int
    itemsize: int

    def __init__(self, name: str, kind: Kind) -> None:
        self.name, self.kind = name, kind

    @property
    def replaceable(self) -> bool:
        """Whether it may be another rank's: an option that differs is an error of the script."""
        return self.kind != "option"

    def digest(self, threads: int = 1) -> bytes:
        """BLAKE3 of its value."""
        raise NotImplementedError

    def read(self) -> Bytes:
        """Its value as `size` bytes."""
        raise NotImplementedError

    def accept(self, data: Bytes, digest: bytes) -> bool:
        """Takes over a value if it has this digest; returns whether it did."""
        raise NotImplementedError


class TensorLeaf(Leaf):
    """A tensor of any layout and device; it keeps its memory when its value is replaced."""

    def __init__(self, name: str, kind: Kind, tensor: torch.Tensor) -> None:
        super().__init__(name, kind)
        self.tensor = tensor
        self.shape = f"{tensor.dtype} {tuple(tensor.shape)}"
        self.itemsize = tensor.dtype.itemsize
        self.size = tensor.numel() * self.itemsize

    def digest(self, threads: int = 1) -> bytes:
        return self._digest(self.read(), threads)

    def read(self) -> Bytes:
        tensor = self.tensor.detach()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        flat = tensor.to("cpu").contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)

    @torch.no_grad()
    def accept(self, data: Bytes, digest: bytes) -> bool:
        if data.size != self.size or self._digest(data) != digest:
            return False
        if self.size:
            value = torch.from_numpy(data).view(self.tensor.dtype).reshape(self.tensor.shape)
            if self.tensor.layout == torch.sparse_coo:
                value = value.to_sparse(self.tensor.sparse_dim())
            self.tensor.copy_(value)
        return True

    def _digest(self, data: Bytes, threads: int = 1) -> bytes:
        hasher = blake3(max_threads=threads if self.size >= _WORTH_THREADS else 1)
        hasher.update(f"{self.shape}\0".encode())
        hasher.update(data.data)
        return hasher.digest(SIZE)


class PlainLeaf(Leaf):
    """A number, however it is written, or another plain value: 1 is 1.0 and `torch.tensor(1.0)`.

    Args:
        name: its name.
        kind: its kind.
        value: the value, or a tensor without dimensions.
        put: replaces the value in what holds it.
        precision: of numbers that are compared.
    """

    shape, size, itemsize = "number", _NUMBER.size, _NUMBER.size

    def __init__(
        self, name: str, kind: Kind, value: Any, put: Put | None, precision: type[np.floating[Any]]
    ) -> None:
        super().__init__(name, kind)
        self._holder, self._put, self._precision = value, put, precision

    @property
    def value(self) -> Any:
        """The value, in Python's types; a real number as a float in the precision of the comparison."""
        value = self._holder
        if isinstance(value, np.generic | torch.Tensor):
            value = value.item()
        return _canonical(value, self._precision)

    def digest(self, threads: int = 1) -> bytes:
        return _digest_of_plain(self.value)

    def read(self) -> Bytes:
        value = self.value
        known = isinstance(value, float)
        return np.frombuffer(_NUMBER.pack(known, value if known else 0.0), np.uint8)

    def accept(self, data: Bytes, digest: bytes) -> bool:
        known, value = _NUMBER.unpack(data.tobytes())
        if not known or self._put is None or _digest_of_plain(value) != digest:
            return False
        if isinstance(self._holder, torch.Tensor):
            self._holder.detach().fill_(value)
            return self.digest() == digest  # a counter of another dtype may not hold the number
        kind = type(self._holder)
        whole = kind in (bool, int) and np.isfinite(value) and kind(value) == value
        self._holder = kind(value) if whole else value
        self._put(self._holder)
        return True


@dataclass(frozen=True)
class Tree:
    """The digests of some leaves, and one digest of them all.

    Attributes:
        leaves: the leaves.
        digests: of each leaf.
    """

    leaves: tuple[Leaf, ...]
    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, leaves: Iterable[Leaf], threads: int = 1) -> Tree:
        """Digests the leaves as they are now."""
        kept = tuple(leaves)
        if threads < 2 or sum(leaf.size for leaf in kept) < _WORTH_THREADS:
            return cls(kept, tuple(leaf.digest() for leaf in kept))
        with ThreadPoolExecutor(threads) as pool:  # hashing releases the GIL
            return cls(kept, tuple(pool.map(lambda leaf: leaf.digest(threads), kept)))

    @functools.cached_property
    def structure(self) -> bytes:
        """Digest of names, kinds, shapes and dtypes."""
        lines = [f"{leaf.kind} {leaf.name} {leaf.shape}" for leaf in self.leaves]
        return blake3("\n".join(lines).encode()).digest(SIZE)

    @property
    def root(self) -> bytes:
        """The digest of all; equal on ranks that hold the same."""
        return root_of(self.structure, b"".join(self.digests))


def root_of(structure: bytes, digests: bytes) -> bytes:
    """The digest of a structure and of the digests of its leaves, one after the other."""
    return blake3(structure + digests).digest(SIZE)


def leaves_of(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str] | None = None
) -> Iterator[Leaf]:
    """Options, parameters and state of an optimizer, in an order that is equal on all ranks.

    Numbers in options count by value in float32, unless the group has parameters of float64, for which
    `lr=0.1` and `lr=torch.tensor(0.1)` take different steps.

    Args:
        optimizer: the optimizer.
        names: names of its parameters; by default their numbers.
    """
    for i, group in enumerate(optimizer.param_groups):
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        wide = any(parameter.dtype == torch.float64 for parameter in group["params"])
        yield from _walk(options, "option", f"group {i}", np.float64 if wide else np.float32)
        for j, parameter in enumerate(group["params"]):
            name = (names or {}).get(parameter, f"group{i}.{j}")
            yield TensorLeaf(name, "parameter", parameter)
            yield from _walk(optimizer.state.get(parameter, {}), "state", name)


def leaves_of_tensors(named: Iterable[tuple[str, torch.Tensor]], kind: Kind = "parameter") -> Iterator[Leaf]:
    """One leaf for each (name, tensor) pair."""
    return (TensorLeaf(name, kind, tensor) for name, tensor in named)


def _walk(
    value: Any,
    kind: Kind,
    owner: str,
    precision: type[np.floating[Any]] = np.float64,
    path: str = "",
    put: Put | None = None,
) -> Iterator[Leaf]:
    """Tensors and plain values in nested containers; values of other types cannot be compared."""
    if isinstance(value, dict):
        items = [(key, value[key]) for key in sorted(value, key=str)]
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    elif isinstance(value, torch.Tensor) and value.dim() > 0:
        yield TensorLeaf(f"{path} of {owner}", kind, value)
        return
    else:
        plain = bool | int | float | complex | str | np.generic | torch.Tensor
        if value is None or isinstance(value, plain):
            yield PlainLeaf(f"{path} of {owner}", kind, value, put, precision)
        return
    for key, item in items:
        put_item = None if isinstance(value, tuple) else functools.partial(value.__setitem__, key)
        yield from _walk(item, kind, owner, precision, f"{path}.{key}".removeprefix("."), put_item)


def _canonical(value: Any, precision: type[np.floating[Any]]) -> Any:
    """A real number as a float that holds its value in a precision; anything else as it is."""
    if not isinstance(value, bool | int | float) or abs(value) > _LARGEST_NUMBER:
        return value
    return float(precision(value)) + 0.0  # -0.0 becomes 0.0


def _digest_of_plain(value: Any) -> bytes:
    return blake3(f"{value!r}\0".encode()).digest(SIZE)
