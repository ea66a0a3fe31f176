"""Reading and fetching the files of the data sets; the only module that calls torchvision, to fetch them."""

from __future__ import annotations

import fcntl
import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from horovod_byz.common.extras import require
from horovod_byz.training.checksums import DatasetDamaged, verify

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Train images, train labels, test images, test labels; images are `(count, channels, height, width)`."""

_MOST = 2**31  # bytes of one file; the sets' largest has 47 MB

_TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar-10": "CIFAR10",
    "cifar-100": "CIFAR100",
}


def read_digits() -> Arrays:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels (0..16): 1,437 to train on, 360 to test on.

    They come in the order of their writers, so they are shuffled by a fixed permutation before the split.
    """
    require("train", "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = bunch.images[order].astype(np.uint8)[:, None]
    labels = bunch.target[order].astype(np.uint8)
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def read_mnist(root: Path, folder: str) -> Arrays:
    """Read MNIST or Fashion-MNIST from `root/folder/raw`, packed (`.gz`) or not; nothing is written.

    Raises:
        FileNotFoundError: when one of the four files is missing; the message names it.
        DatasetDamaged: when a file is not the published one, or not what its name says.
    """
    raw = root / folder / "raw"
    parts = []
    for prefix in ("train", "t10k"):
        parts.append(_read_idx(folder, raw / f"{prefix}-images-idx3-ubyte", 3)[:, None])
        parts.append(_read_idx(folder, raw / f"{prefix}-labels-idx1-ubyte", 1))
    return parts[0], parts[1], parts[2], parts[3]


def _read_idx(folder: str, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """One IDX file: two zero bytes, the type (8 = uint8), the number of dimensions, the sizes, the data."""
    packed = path.with_name(path.name + ".gz")
    if not path.is_file():
        if not packed.is_file():
            raise FileNotFoundError(f"no {packed.name} in {path.parent}")
        path = packed
    try:
        with gzip.open(path) if path == packed else path.open("rb") as stream:
            header = stream.read(4 + 4 * dimensions)
            sizes = _sizes(header, dimensions)
            # One more than there should be, so that what follows is seen, and a packed file's checksum read.
            body = stream.read(math.prod(sizes) + 1)
    except (EOFError, ValueError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if len(body) != math.prod(sizes):
        raise _damaged(path, f"it is to hold {math.prod(sizes)} values, and its length is another")
    verify(folder, path, header + body)
    return np.frombuffer(body, dtype=np.uint8).reshape(sizes)


def _sizes(header: bytes, dimensions: int) -> tuple[int, ...]:
    """The sizes in an IDX header, whose product Python's whole numbers hold whatever they are."""
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"not a uint8 IDX file of {dimensions} dimensions")
    sizes = struct.unpack(f">{dimensions}I", header[4:])
    if math.prod(sizes) > _MOST:
        raise ValueError(f"its header claims {' x '.join(map(str, sizes))} values")
    return sizes


def _damaged(path: Path, reason: str) -> DatasetDamaged:
    return DatasetDamaged(f"{path} is damaged ({reason}): delete it and fetch it again")


def download(name: str, root: Path) -> None:
    """Fetch a set with torchvision into `root`; of several processes, one fetches and the others wait.

    Raises:
        OSError: when the folder cannot be written or the servers cannot be reached.
        RuntimeError: when torchvision refuses what it got.
    """
    from horovod_byz.host.torchvision_hook import datasets

    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / ".download.lock"):
        getattr(datasets, _TORCHVISION[name])(str(root), train=True, download=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
