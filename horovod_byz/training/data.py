"""The data sets of the papers as tensors in memory, found on disk, downloaded, or embedded."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from horovod_byz.common.errors import ExplainedError
from horovod_byz.common.registry import Registry
from horovod_byz.training import files
from horovod_byz.training.checksums import OWN_DATA, DatasetDamaged, own_data
from horovod_byz.training.cifar import read_cifar

Normalise = Literal["unit", "standard"]
Pixels = NDArray[np.uint8]

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetDamaged",
    "DatasetMissing",
    "Normalise",
    "augment",
    "load_dataset",
]


class DatasetMissing(ExplainedError, FileNotFoundError):  # noqa: N818 - reads as what it says
    """The data set is in none of the folders that were searched and could not be downloaded."""


@dataclass(frozen=True)
class Dataset:
    """One image classification set, whole, in memory.

    Args:
        train_x: training images, float32, `(count, channels, height, width)`.
        train_y: training labels, int64, `(count,)`.
        test_x: test images, as `train_x`.
        test_y: test labels, as `train_y`.
        classes: number of classes.
        shape: `(channels, height, width)` of one image.
        name: the name it was asked for by.
        source: where it came from, in words.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    shape: tuple[int, int, int]
    name: str
    source: str

    def to(self, device: torch.device | str) -> Dataset:
        """The same set with its tensors on `device`."""
        return replace(
            self,
            train_x=self.train_x.to(device),
            train_y=self.train_y.to(device),
            test_x=self.test_x.to(device),
            test_y=self.test_y.to(device),
        )

    def limited(self, train: int | None) -> Dataset:
        """The same set with only the first `train` training images (for runs that are labelled as reduced).

        Raises:
            ValueError: when the set holds fewer images than asked for.
        """
        if train is None:
            return self
        if not 0 < train <= len(self.train_y):
            raise ValueError(
                f"{self.name} has {len(self.train_y)} training images, got train_limit = {train}: "
                f"use a number from 1 to {len(self.train_y)}"
            )
        return replace(self, train_x=self.train_x[:train], train_y=self.train_y[:train])


@dataclass(frozen=True)
class _Spec:
    """What is known of a set before it is read; mean and std are the train set's, on the scale 0..1."""

    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    read: Callable[[Path], Sequence[Pixels]] | None


Load = Callable[[str | os.PathLike[str] | None, Normalise], Dataset]
"""A data set of one's own: (data_dir, normalise) -> Dataset."""

DATASETS: Registry[_Spec | Load] = Registry(
    "data set", "horovod_byz.data", callable, "a function (data_dir, normalise) -> Dataset"
)

# CIFAR's mean and std are (125.3, 123.0, 113.9) / 255 and (63.0, 62.1, 66.7) / 255, as in the DETOX code.
_SPECS: dict[str, _Spec] = {
    "digits": _Spec(10, (0.3054,), (0.3760,), None),
    "mnist": _Spec(10, (0.1307,), (0.3081,), lambda root: files.read_mnist(root, "MNIST")),
    "fashion-mnist": _Spec(10, (0.2860,), (0.3530,), lambda root: files.read_mnist(root, "FashionMNIST")),
    "cifar-10": _Spec(
        10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), lambda root: read_cifar(root, "CIFAR10")
    ),
    "cifar-100": _Spec(
        100,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        lambda root: read_cifar(root, "CIFAR100"),
    ),
}
for _name, _spec in _SPECS.items():
    DATASETS.add(_name, _spec)


def classes_of(name: str) -> int:
    """Number of classes of a set of this package, without reading it; 10 for a set of one's own."""
    return _SPECS[name].classes if name in _SPECS else 10


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    normalise: Normalise = "unit",
    download: bool = True,
) -> Dataset:
    """Load a data set whole into memory.

    The folders searched, in this order: `data_dir`, the environment variable `HOROVOD_BYZ_DATA`, `data` in
    the working directory, the cache folder. They have torchvision's layout; they may be read-only, and packed
    `.gz` files are read as they are. A set that is nowhere is downloaded by torchvision into `data_dir`, or
    into the cache folder. Each file must be the published one, by its checksum; for files of one's own in the
    same format set the environment variable `HOROVOD_BYZ_OWN_DATA=1`, which the run's run.json notes.

    Args:
        name: one of `DATASETS`: "digits" (bundled with scikit-learn, needs no folder), "mnist",
            "fashion-mnist", "cifar-10", "cifar-100"; or "package.module:function", for a function that takes
            `data_dir` and `normalise` and returns a `Dataset`.
        data_dir: the folder to look in first, and to download to.
        normalise: "unit" scales pixels to 0..1; "standard" also subtracts the mean and divides by the
            standard deviation of the training set, per channel.
        download: whether a missing set may be downloaded.

    Returns:
        The data set, float32 images and int64 labels.

    Raises:
        ValueError: when `name` is not a known set, or a function of one's own returns none that fits.
        DatasetMissing: when the set is nowhere and cannot be downloaded; the message says where it was looked
            for.
        DatasetDamaged: when a file is not the published one, or not what its name says.
    """
    spec = DATASETS[name]
    if not isinstance(spec, _Spec):
        try:
            inspect.signature(spec).bind(data_dir, normalise)
        except TypeError as error:
            raise ValueError(
                f"data set {name!r} is called with (data_dir, normalise) and does not take them: {error}"
            ) from error
        return _checked(name, spec(data_dir, normalise))
    if spec.read is None:
        arrays: Sequence[Pixels] = files.read_digits()
        source = "bundled with scikit-learn"
    else:
        arrays, source = _find(name, spec.read, data_dir, download)
        source += f", unchecked by {OWN_DATA}" * own_data()
        _check(name, arrays, spec.classes)
    scale = 16.0 if name == "digits" else 255.0
    train_x, train_y, test_x, test_y = arrays
    shape = (train_x.shape[1], train_x.shape[2], train_x.shape[3])
    return Dataset(
        train_x=_floats(train_x, scale, spec, normalise),
        train_y=torch.from_numpy(train_y.astype(np.int64)),
        test_x=_floats(test_x, scale, spec, normalise),
        test_y=torch.from_numpy(test_y.astype(np.int64)),
        classes=spec.classes,
        shape=shape,
        name=name,
        source=source,
    )


def _checked(name: str, made: object) -> Dataset:
    """What a user's function returned, under the name that the configuration has for it.

    Raises:
        ValueError: if it is no data set, or its tensors do not fit one another.
    """
    if not isinstance(made, Dataset):
        raise ValueError(
            f"data set {name!r} returned {type(made).__name__}: return a horovod_byz.training.data.Dataset"
        )
    if isinstance(made.classes, bool) or not isinstance(made.classes, int):
        raise ValueError(f"data set {name!r}: classes must be a whole number, got {made.classes!r}")
    for part, images, labels in (("train", made.train_x, made.train_y), ("test", made.test_x, made.test_y)):
        if not isinstance(images, torch.Tensor) or not isinstance(labels, torch.Tensor):
            raise ValueError(
                f"data set {name!r}: {part}_x and {part}_y must be torch tensors, got "
                f"{type(images).__name__} and {type(labels).__name__}: convert them with torch.from_numpy"
            )
        if images.dtype != torch.float32 or images.shape != (len(images), *made.shape) or not len(images):
            raise ValueError(
                f"data set {name!r}: {part}_x must be float32 of shape (count, *{made.shape}), got "
                f"{images.dtype} of shape {tuple(images.shape)}"
            )
        if labels.dtype != torch.int64 or labels.shape != (len(images),):
            raise ValueError(
                f"data set {name!r}: {part}_y must be int64 of shape ({len(images)},), got {labels.dtype} of "
                f"shape {tuple(labels.shape)}"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= made.classes:
            raise ValueError(f"data set {name!r}: {part}_y must hold labels from 0 to {made.classes - 1}")
    return replace(made, name=name)


def _check(name: str, arrays: Sequence[Pixels], classes: int) -> None:
    """What files of one's own may get wrong, each file being well-formed.

    Raises:
        DatasetDamaged: if they do.
    """
    train_x, train_y, test_x, test_y = arrays
    for images, labels, what in ((train_x, train_y, "training"), (test_x, test_y, "test")):
        if len(images) != len(labels) or images.size == 0:
            raise DatasetDamaged(f"{name} has {len(images)} {what} images and {len(labels)} labels for them")
        if labels.max() >= classes:
            raise DatasetDamaged(f"{name} has the {what} label {labels.max()}: use 0 to {classes - 1}")
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DatasetDamaged(
            f"{name} has training images of {train_x.shape[2:]} pixels and test images of {test_x.shape[2:]}"
        )


def _floats(pixels: np.ndarray, scale: float, spec: _Spec, normalise: Normalise) -> Tensor:
    images = torch.from_numpy(pixels.astype(np.float32, order="C")).div_(scale)
    if normalise == "standard":
        mean = torch.tensor(spec.mean, dtype=torch.float32, device="cpu").view(1, -1, 1, 1)
        std = torch.tensor(spec.std, dtype=torch.float32, device="cpu").view(1, -1, 1, 1)
        images.sub_(mean).div_(std)
    return images


def cache_folder() -> Path:
    """Where downloads go when no folder is named: in `XDG_CACHE_HOME`, or else in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "horovod_byz" / "data"


def _places(data_dir: str | os.PathLike[str] | None) -> list[tuple[str, Path]]:
    places = []
    if data_dir is not None:
        places.append(("--data-dir", Path(data_dir)))
    if os.environ.get("HOROVOD_BYZ_DATA"):
        places.append(("HOROVOD_BYZ_DATA", Path(os.environ["HOROVOD_BYZ_DATA"])))
    return [*places, ("the working directory", Path("data")), ("the cache", cache_folder())]


def _find(
    name: str,
    read: Callable[[Path], Sequence[Pixels]],
    data_dir: str | os.PathLike[str] | None,
    download: bool,
) -> tuple[Sequence[Pixels], str]:
    looked = []
    for place, root in _places(data_dir):
        try:
            return read(root), f"found through {place}"
        except FileNotFoundError as error:
            looked.append(f"  {root} ({place}): {error}")
    reason = "downloading was not asked for"
    if download:
        target = Path(data_dir) if data_dir is not None else cache_folder()
        try:
            files.download(name, target)
            return read(target), "downloaded by torchvision"
        except (OSError, RuntimeError, ImportError) as error:
            reason = f"the download into {target} failed: {error}"
    raise DatasetMissing(
        f"the data set {name!r} was not found. Looked in:\n" + "\n".join(looked) + f"\nand {reason}.\n"
        "Put the files there in torchvision's layout, or name their folder with --data-dir or "
        "HOROVOD_BYZ_DATA, or use --data digits, which needs no files."
    )


def augment(images: Tensor, rng: np.random.Generator, padding: int = 4) -> Tensor:
    """Reflect-pad, crop at a random place and flip half of the images, as in the DETOX experiments.

    Args:
        images: `(batch, channels, height, width)`; not modified.
        rng: the source of the offsets and flips; the same generator state gives the same images.
        padding: pixels added on each side before the crop.

    Returns:
        A new tensor of the same shape.
    """
    batch, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4, mode="reflect")
    top, left = (torch.from_numpy(rng.integers(0, 2 * padding + 1, batch)) for _ in range(2))
    flip = torch.from_numpy(rng.integers(0, 2, batch).astype(bool))
    across = torch.arange(width, device="cpu").expand(batch, width)
    columns = torch.where(flip[:, None], width - 1 - across, across) + left[:, None]
    rows = torch.arange(height, device="cpu")[None, :] + top[:, None]
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[
        image, channels, rows[:, None, :, None].to(images.device), columns[:, None, None, :].to(images.device)
    ]
