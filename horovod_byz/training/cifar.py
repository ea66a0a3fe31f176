"""Reading CIFAR's batches: pickles, of which only numbers, texts and plain byte arrays are taken.

An ordinary unpickler runs whatever code a file names. This one knows three names, those with which NumPy
writes an array, and puts values of its own in their place.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.training.checksums import DatasetDamaged, verify

__all__ = ["FOLDERS", "read_cifar"]

FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
_TRAIN = {"CIFAR10": [f"data_batch_{number}" for number in range(1, 6)], "CIFAR100": ["train"]}
_TEST = {"CIFAR10": ["test_batch"], "CIFAR100": ["test"]}
_LABELS = {"CIFAR10": b"labels", "CIFAR100": b"fine_labels"}
_SHAPE = (3, 32, 32)

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_cifar(root: Path, kind: str) -> tuple[NDArray[np.uint8], ...]:
    """Read CIFAR-10 or CIFAR-100; nothing is written, and no code is loaded.

    Args:
        root: the folder that holds the set's folder, as torchvision unpacks it.
        kind: "CIFAR10" or "CIFAR100".

    Returns:
        Train images `(count, 3, 32, 32)`, train labels, test images, test labels.

    Raises:
        FileNotFoundError: when a file is missing; the message names it.
        DatasetDamaged: when a file is not the published one, or no batch of CIFAR.
    """
    return *_read(root, kind, _TRAIN[kind]), *_read(root, kind, _TEST[kind])


def _read(root: Path, kind: str, names: Sequence[str]) -> Part:
    parts = [_read_batch(root / FOLDERS[kind] / name, kind) for name in names]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, labels


def _read_batch(path: Path, kind: str) -> Part:
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}")
    content = path.read_bytes()
    verify(FOLDERS[kind], path, content)
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        entries = {_bytes(key): value for key, value in batch.items()}
        labels = np.array([_label(value) for value in entries[_LABELS[kind]]], np.uint8)
        pixels: NDArray[np.uint8] = entries[b"data"].values
        images = pixels.reshape(len(labels), *_SHAPE)
    except Exception as error:  # a file of one's own may make the unpickler raise anything
        raise DatasetDamaged(
            f"{path} is no batch of {kind} ({type(error).__name__}: {error}): delete it and fetch it again"
        ) from error
    return images, labels


def _bytes(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _label(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 256:
        raise ValueError(f"{value!r} is no label")
    return value


class _Array:
    """Stands for `numpy.ndarray` while a pickle is read: keeps the bytes, once they are known to be uint8."""

    values: NDArray[np.uint8]

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        if not isinstance(kind, _Type) or kind.name not in ("u1", b"u1") or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of other values than uint8")
        if by_columns or math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(content)} bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


class _Type:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: Any, *options: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, of which uint8 has none."""


def _reconstruct(*arguments: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle of protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        names = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Type,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("_codecs", "encode"): _encode,
        }
        if (module, name) not in names:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch needs")
        return names[module, name]
