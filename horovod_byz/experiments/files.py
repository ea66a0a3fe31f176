"""Reading and fetching the files of the data sets; the only module that calls torchvision."""

from __future__ import annotations

import fcntl
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Train images, train labels, test images, test labels; images are `(count, channels, height, width)`."""

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
        ValueError: when a file is not what its name says.
    """
    raw = root / folder / "raw"
    parts = []
    for prefix in ("train", "t10k"):
        parts.append(_read_idx(raw / f"{prefix}-images-idx3-ubyte", 3)[:, None])
        parts.append(_read_idx(raw / f"{prefix}-labels-idx1-ubyte", 1))
    return parts[0], parts[1], parts[2], parts[3]


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """One IDX file: two zero bytes, the type (8 = uint8), the number of dimensions, the sizes, the data."""
    packed = path.with_name(path.name + ".gz")
    if path.is_file():
        content = path.read_bytes()
    elif packed.is_file():
        try:
            content = gzip.decompress(packed.read_bytes())
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{packed} is damaged ({error}): delete it and fetch it again") from error
    else:
        raise FileNotFoundError(f"no {packed.name} in {path.parent}")
    header = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:header], dtype=">u4").astype(np.int64)
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != header + sizes.prod():
        raise ValueError(
            f"{path} is not a uint8 IDX file of {dimensions} dimensions: delete it and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(sizes)


def read_cifar(root: Path, kind: str) -> Arrays:
    """Read CIFAR-10 or CIFAR-100 through torchvision, which checks each file's MD5; nothing is written.

    Raises:
        FileNotFoundError: when the files are not there, or not the right ones.
    """
    base = root / {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}[kind]
    if not base.is_dir():
        raise FileNotFoundError(f"no folder {base.name}")
    from horovod_byz._torchvision import datasets

    try:
        sets = [getattr(datasets, kind)(str(root), train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error
    images = [one.data.transpose(0, 3, 1, 2) for one in sets]
    labels = [np.asarray(one.targets, dtype=np.uint8) for one in sets]
    return images[0], labels[0], images[1], labels[1]


def download(name: str, root: Path) -> None:
    """Fetch a set with torchvision into `root`; of several processes, one fetches and the others wait.

    Raises:
        OSError: when the folder cannot be written or the servers cannot be reached.
        RuntimeError: when torchvision refuses what it got.
    """
    from horovod_byz._torchvision import datasets

    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / ".download.lock"):
        getattr(datasets, _TORCHVISION[name])(str(root), train=True, download=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
