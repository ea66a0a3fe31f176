"""`hb.save_checkpoint` and `hb.load_checkpoint`: damage is never loaded, and the one before is offered."""

import os
import pathlib
import random
from itertools import pairwise

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.common.atomic import RunError
from horovod_byz.common.sealed import CheckpointError, pack


def state(step=1):
    model = torch.nn.Linear(40, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(2, 40)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "note": "as it was",
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints, of step 1 and then of step 2."""
    path = tmp_path / "run.pt"
    for step in (1, 2):
        hb.save_checkpoint(state(step), path)
    return path


def test_a_round_trip_and_the_last_two_are_kept(tmp_path):
    path, written = tmp_path / "run.pt", [state(step) for step in range(3)]
    for state_of_step in written:
        hb.save_checkpoint(state_of_step, str(path))
    assert same(hb.load_checkpoint(path), written[2])
    assert same(hb.load_checkpoint(tmp_path / "run.previous.pt"), written[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.previous.pt", "run.pt"]
    assert torch.load(path, weights_only=True)["step"] == 2


def test_a_flipped_bit_in_any_region_is_refused_and_the_one_before_is_offered(saved):
    content = saved.read_bytes()
    choose = random.Random(0)
    regions = np.linspace(0, len(content), 41).astype(int)
    for begin, end in pairwise(regions):
        damaged = bytearray(content)
        damaged[choose.randrange(begin, end)] ^= 1 << choose.randrange(8)
        saved.write_bytes(damaged)
        with pytest.raises(
            CheckpointError, match=r'run\.pt .*before it is whole: hb\.load_checkpoint\(".*run\.p'
        ):
            hb.load_checkpoint(saved)
    assert hb.load_checkpoint(saved.with_name("run.previous.pt"))["step"] == 1


@pytest.mark.parametrize("length", [0, 1, 63, 64, 100, -1, -64, -120])
def test_a_truncated_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"run\.pt (is empty|has no digest)"):
        hb.load_checkpoint(saved)


def test_a_damaged_one_is_not_kept_as_the_one_before(saved):
    saved.write_bytes(b"damaged")
    hb.save_checkpoint(state(3), saved)
    assert [hb.load_checkpoint(saved.with_name(name))["step"] for name in ("run.pt", "run.previous.pt")] == [
        3,
        1,
    ]


def test_both_damaged_none_before_and_none_at_all(saved):
    before = saved.with_name("run.previous.pt")
    saved.write_bytes(b"damaged")
    before.write_bytes(b"damaged too")
    with pytest.raises(CheckpointError, match=r"no help either: .*run\.previous\.pt has no digest"):
        hb.load_checkpoint(saved)
    before.unlink()
    with pytest.raises(CheckpointError, match="There is none before it: restore a copy, or start anew"):
        hb.load_checkpoint(saved)
    saved.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*run\.pt"):
        hb.load_checkpoint(saved)


def test_a_crash_between_the_two_renames_loses_nothing(saved):
    saved.unlink()
    with pytest.raises(CheckpointError, match=r"run\.pt is missing\. The checkpoint before it is whole"):
        hb.load_checkpoint(saved)


def test_a_crash_while_writing_leaves_the_old_one(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(RunError, match="No space left"):
        hb.save_checkpoint(state(3), saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 2


@pytest.mark.parametrize("value", [np.float64(1.0), pathlib.Path("x"), {1, 2}, torch.nn.Linear(1, 1)])
def test_what_would_need_code_to_load_is_refused_when_it_is_saved(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['a'\]\[0\] is a "):
        hb.save_checkpoint({"a": [value]}, tmp_path / "run.pt")
    assert not list(tmp_path.iterdir())


def test_a_key_that_needs_code_too(tmp_path):
    with pytest.raises(TypeError, match="has a key of type PosixPath"):
        hb.save_checkpoint({"a": {pathlib.Path("x"): 1}}, tmp_path / "run.pt")


def test_code_in_a_forged_checkpoint_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "run.pt").write_bytes(pack({"step": Harmful()}))
    with pytest.raises(CheckpointError, match="cannot be read as tensors and plain values"):
        hb.load_checkpoint(tmp_path / "run.pt")
    assert not (tmp_path / "harm").exists()


def test_a_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        hb.load_checkpoint(tmp_path)
