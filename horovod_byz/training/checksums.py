"""The published files of the data sets, by their checksums; a damaged or other file is an error."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from horovod_byz.common.errors import ExplainedError

__all__ = ["OWN_DATA", "DatasetDamaged", "own_data", "verify"]

OWN_DATA = "HOROVOD_BYZ_OWN_DATA"
"""The environment variable that allows other files than the published ones."""

# By folder and file, MD5 as the sets' authors publish it; of the unpacked content, since gzip has many forms
# of one. It guards against damage and mix-ups: no file of a data set can bring in code, see `cifar`.
_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "cifar-10-batches-py": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar-100-python": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}


class DatasetDamaged(ExplainedError, ValueError):  # noqa: N818 - reads as what it says
    """A file of a data set is not what its name says; the message names it and what to do."""


def own_data() -> bool:
    """Whether files other than the published ones may be read."""
    return os.environ.get(OWN_DATA, "0") not in ("", "0")


def verify(folder: str, path: Path, content: bytes) -> None:
    """Check that a file is the published one, unless `own_data()`.

    Args:
        folder: the set's folder, a key of the table above.
        path: the file.
        content: what it holds, unpacked.

    Raises:
        DatasetDamaged: when it is not.
    """
    if own_data():
        return
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    expected = _MD5[folder][path.name.removesuffix(".gz")]
    if digest != expected:
        raise DatasetDamaged(
            f"{path} is not the published file (MD5 {digest}, not {expected}): delete it and fetch it again, "
            f"or, if it is meant to be another, set {OWN_DATA}=1"
        )
