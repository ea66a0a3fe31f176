"""Data sets: found, read packed or unpacked, or missed with a clear error."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from horovod_byz.training import data
from horovod_byz.training.cifar import FOLDERS
from horovod_byz.training.data import DATASETS, DatasetDamaged, DatasetMissing, augment, load_dataset

SIZES = {"train-images-idx3-ubyte": (30, 4, 4), "train-labels-idx1-ubyte": (30,)}
SIZES |= {"t10k-images-idx3-ubyte": (10, 4, 4), "t10k-labels-idx1-ubyte": (10,)}


def idx(sizes):
    body = np.random.default_rng(len(sizes) + sizes[0]).integers(0, 10, sizes, dtype=np.uint8)
    return bytes((0, 0, 8, len(sizes))) + np.array(sizes, ">u4").tobytes() + body.tobytes()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data in any of the places that are searched."""
    monkeypatch.delenv("HOROVOD_BYZ_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["packed", "unpacked"])
def folder(request, nowhere, monkeypatch):
    """A small set in MNIST's format, whose files are not the published ones."""
    monkeypatch.setenv("HOROVOD_BYZ_OWN_DATA", "1")
    raw = nowhere / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, sizes in SIZES.items():
        if request.param == "packed":
            (raw / f"{name}.gz").write_bytes(gzip.compress(idx(sizes)))
        else:
            (raw / name).write_bytes(idx(sizes))
    return nowhere / "sets"


def test_digits_need_no_files(nowhere):
    dataset = load_dataset("digits")
    assert dataset.train_x.shape == (1437, 1, 8, 8)
    assert dataset.test_x.shape == (360, 1, 8, 8)
    assert dataset.train_x.dtype == torch.float32
    assert dataset.train_y.dtype == torch.int64
    assert (dataset.train_x.min(), dataset.train_x.max()) == (0, 1)
    assert dataset.test_y.bincount().min() > 20
    assert not list(nowhere.rglob("*"))


def test_standard_normalisation_has_mean_zero_and_deviation_one():
    dataset = load_dataset("digits", normalise="standard")
    assert abs(float(dataset.train_x.mean())) < 1e-3
    assert abs(float(dataset.train_x.std()) - 1) < 1e-3


def test_read_only_folders_are_read_in_place(folder):
    before = sorted(folder.rglob("*"))
    for path in [*before, folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    dataset = load_dataset("mnist", folder)
    assert dataset.source == "found through --data-dir, unchecked by HOROVOD_BYZ_OWN_DATA"
    assert (dataset.shape, dataset.classes) == ((1, 4, 4), 10)
    expected = np.frombuffer(idx((30, 4, 4)), np.uint8, offset=16).reshape(30, 1, 4, 4) / np.float32(255)
    np.testing.assert_array_equal(dataset.train_x.numpy(), expected)
    assert sorted(folder.rglob("*")) == before
    for path in [*before, folder]:
        path.chmod(0o755)


@pytest.mark.parametrize("place", ["HOROVOD_BYZ_DATA", "the working directory", "the cache"])
def test_each_place_is_searched(folder, place, monkeypatch):
    if place == "HOROVOD_BYZ_DATA":
        monkeypatch.setenv("HOROVOD_BYZ_DATA", str(folder))
    elif place == "the working directory":
        folder.rename(folder.with_name("data"))
    else:
        data.cache_folder().parent.mkdir(parents=True)
        folder.rename(data.cache_folder())
    assert load_dataset("mnist").source.startswith(f"found through {place}, unchecked")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_a_missing_set_says_where_it_looked_and_what_to_do(nowhere, name, monkeypatch):
    monkeypatch.setenv("HOROVOD_BYZ_DATA", str(nowhere / "mounted"))
    with pytest.raises(DatasetMissing) as error:
        load_dataset(name, nowhere / "named", download=False)
    message = str(error.value)
    for part in (
        "named (--data-dir)",
        "mounted (HOROVOD_BYZ_DATA)",
        "data (the working directory)",
        "(the cache)",
    ):
        assert part in message
    assert "--data digits" in message


def test_a_failed_download_gives_a_clear_error(nowhere, monkeypatch):
    def refuse(name: str, root: Path) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(data.files, "download", refuse)
    with pytest.raises(DatasetMissing, match=r"the download into .* failed: no route to host"):
        load_dataset("mnist")


def test_a_damaged_file_is_named(folder):
    for path in (folder / "MNIST" / "raw").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="fetch it again"):
        load_dataset("mnist", folder)


def test_other_files_than_the_published_ones_are_refused_unless_allowed(folder, monkeypatch):
    monkeypatch.setenv("HOROVOD_BYZ_OWN_DATA", "0")
    message = (
        r"train-images.* is not the published file \(MD5 .*\): delete it and fetch it again, or, .*OWN_DATA=1"
    )
    with pytest.raises(DatasetDamaged, match=message):
        load_dataset("mnist", folder)


def rewritten(folder, name, change):
    """Changes the content of one file, packed or not."""
    path = next((folder / "MNIST" / "raw").glob(f"{name}*"))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    else:
        path.write_bytes(change(path.read_bytes()))
    return path


def header(*sizes):
    return bytes((0, 0, 8, len(sizes))) + np.array(sizes, ">u4").tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"", "not a uint8 IDX file of 3 dimensions"),
        (lambda content: content[:3], "not a uint8 IDX file"),
        (lambda content: content[:9], "not a uint8 IDX file"),
        (lambda content: b"\x01" + content[1:], "not a uint8 IDX file"),
        (lambda content: content[:16], "it is to hold 480 values"),
        (lambda content: content + b"\0", "it is to hold 480 values"),
        # 2^32 + 2^32 and the like: products that wrap to a small number, or to 0, in 64 bits.
        (
            lambda content: header(2**31, 2**31, 4) + content[16:],
            "its header claims 2147483648 x 2147483648 x 4 values",
        ),
        (lambda content: header(2**32 - 1, 2**32 - 1, 2**32 - 1), "its header claims 4294967295 x"),
        (lambda content: header(2**31, 1, 1), "it is to hold 2147483648 values"),
    ],
)
def test_a_wrong_header_is_named(folder, change, message):
    path = rewritten(folder, "train-images", change)
    with pytest.raises(DatasetDamaged, match=rf"{path.name} is damaged \({message}.*fetch it again"):
        load_dataset("mnist", folder)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:40], lambda c: c[:30] + bytes(9) + c[39:], lambda c: b"x" + c]
)
def test_a_damaged_packed_file_is_named(nowhere, monkeypatch, damage):
    monkeypatch.setenv("HOROVOD_BYZ_OWN_DATA", "1")
    raw = nowhere / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(damage(gzip.compress(idx((30, 4, 4)))))
    with pytest.raises(DatasetDamaged, match=r"train-images-idx3-ubyte\.gz is damaged"):
        load_dataset("mnist", nowhere / "sets")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels", header(29) + bytes(29), "has 30 training images and 29 labels"),
        ("t10k-labels", header(10) + bytes([10] * 10), "has the test label 10: use 0 to 9"),
        (
            "t10k-images",
            header(10, 5, 4) + bytes(200),
            r"images of \(4, 4\) pixels and test images of \(5, 4\)",
        ),
        ("t10k-images", header(0, 4, 4), "has 0 test images"),
    ],
)
def test_files_that_do_not_fit_one_another_are_refused(folder, name, content, message):
    rewritten(folder, name, lambda old: content)
    with pytest.raises(DatasetDamaged, match=message):
        load_dataset("mnist", folder)


def batch(count=3, **changes):
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"data": pixels, b"labels": [1] * count, b"fine_labels": [99] * count} | changes


def write_cifar(root, kind, content):
    folder = root / FOLDERS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    names = ["train", "test"] if kind == "CIFAR100" else [f"data_batch_{k}" for k in range(1, 6)]
    for name in [*names, "test_batch"]:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(("name", "kind"), [("cifar-10", "CIFAR10"), ("cifar-100", "CIFAR100")])
def test_cifars_batches_are_read_without_an_unpickler_that_runs_code(
    nowhere, monkeypatch, name, kind, protocol
):
    monkeypatch.setenv("HOROVOD_BYZ_OWN_DATA", "1")
    write_cifar(nowhere, kind, pickle.dumps(batch(), protocol))
    dataset = load_dataset(name, nowhere)
    assert dataset.train_x.shape == ((15 if kind == "CIFAR10" else 3), 3, 32, 32)
    expected = batch()[b"data"].reshape(3, 3, 32, 32) / np.float32(255)
    np.testing.assert_array_equal(dataset.test_x.numpy(), expected)
    assert set(dataset.test_y.tolist()) == {1 if kind == "CIFAR10" else 99}
    monkeypatch.delenv("HOROVOD_BYZ_OWN_DATA")
    with pytest.raises(DatasetDamaged, match="is not the published file"):
        load_dataset(name, nowhere)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Harmful(), 2), r"it names (posix|os)\.mkdir"),
        (pickle.dumps(batch(labels=[Harmful()]) | {b"x": Harmful()}, 2), r"it names (posix|os)\.mkdir"),
        (b"", "EOFError"),
        (pickle.dumps(batch(), 2)[:500], "truncated|EOFError"),
        (pickle.dumps([1, 2], 2), "AttributeError"),
        (pickle.dumps({b"data": np.zeros((3, 3072)), b"labels": [0, 1, 2]}, 2), "other values than uint8"),
        (pickle.dumps({b"data": np.zeros((3, 5), np.uint8), b"labels": [0, 1, 2]}, 2), "cannot reshape"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [256]}, 2), "256 is no label"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["x"]}, 2), "is no label"),
        (pickle.dumps({b"labels": [1]}, 2), "KeyError"),
    ],
)
def test_an_invalid_batch_is_named_and_no_code_in_it_runs(nowhere, monkeypatch, content, message):
    monkeypatch.setenv("HOROVOD_BYZ_OWN_DATA", "1")
    write_cifar(nowhere, "CIFAR10", content)
    with pytest.raises(DatasetDamaged, match=rf"data_batch_1 is no batch of CIFAR10 \(.*({message})"):
        load_dataset("cifar-10", nowhere)
    assert not (nowhere / "harm").exists()


def test_unknown_sets_and_limits_are_errors():
    with pytest.raises(ValueError, match="unknown data set 'svhn'"):
        load_dataset("svhn")
    dataset = load_dataset("digits")
    assert len(dataset.limited(100).train_y) == 100
    assert len(dataset.limited(None).train_y) == 1437
    with pytest.raises(ValueError, match="train_limit = 9999: use a number from 1 to 1437"):
        dataset.limited(9999)


def test_augmentation_crops_and_flips_by_its_generator():
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    before = images.clone()
    first, second = (augment(images, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert not torch.equal(first, augment(images, np.random.default_rng(4)))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    windows = [padded[0, :, top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
    assert any(torch.equal(first[0], window) or torch.equal(first[0], window.flip(2)) for window in windows)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "shape", "counts", "mean"),
    [
        ("mnist", (1, 28, 28), (60_000, 10_000), 0.1307),
        ("fashion-mnist", (1, 28, 28), (60_000, 10_000), 0.2860),
        ("cifar-10", (3, 32, 32), (50_000, 10_000), 0.4734),
        ("cifar-100", (3, 32, 32), (50_000, 10_000), 0.4782),
    ],
)
def test_the_real_sets(name, shape, counts, mean):
    if not os.environ.get("HOROVOD_BYZ_DATA"):
        pytest.skip("HOROVOD_BYZ_DATA names no folder with the real data sets")
    try:
        dataset = load_dataset(name, download=False)
    except DatasetMissing as error:
        pytest.skip(str(error).splitlines()[0])
    assert dataset.shape == shape
    assert (len(dataset.train_y), len(dataset.test_y)) == counts
    assert abs(float(dataset.train_x.mean()) - mean) < 1e-3
