"""Who computes what: groups, batches, and samplers that replicas share."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import horovod_byz as hb


@pytest.mark.parametrize(("n", "r"), [(45, 3), (45, 1), (46, 3), (47, 3), (7, 5), (4, 4)])
def test_groups_partition_the_workers(n, r):
    groups = hb.Redundancy(r=r, seed=9).groups_of(n)
    assert sorted(i for group in groups for i in group) == list(range(n))
    assert len(groups) == n // r
    assert all(r <= len(group) <= r + -(-(n % r) // len(groups)) for group in groups)


def test_the_partition_is_random_by_seed_and_fixed():
    assert hb.Redundancy(3, seed=1).groups_of(45) == hb.Redundancy(3, seed=1).groups_of(45)
    assert hb.Redundancy(3, seed=1).groups_of(45) != hb.Redundancy(3, seed=2).groups_of(45)


def test_given_groups_are_checked():
    given = hb.Redundancy(2, groups=[[0, 3], [1, 2]])
    assert given.groups_of(4) == ((0, 3), (1, 2))
    assert given.group_of(3, 4) == 0
    with pytest.raises(ValueError, match=r"0\.\.4"):
        given.groups_of(5)


def test_errors():
    with pytest.raises(ValueError, match="use r <= 2"):
        hb.Redundancy(r=3).groups_of(2)
    with pytest.raises(ValueError, match="use 1440 or 1455"):
        hb.Redundancy(r=3).batch_size(1450, 45)
    with pytest.raises(TypeError, match="whole number"):
        hb.Redundancy(r=1.5)
    with pytest.raises(ValueError, match="cannot serve"):
        hb.Redundancy(r=1).sampler(range(3), worker=0, workers=4)


def test_the_papers_batch():
    assert hb.Redundancy(r=3).batch_size(1440, 45) == 96
    assert hb.Redundancy(r=1).batch_size(1440, 45) == 32


def test_replicas_share_samples_and_groups_do_not():
    redundancy = hb.Redundancy(r=3, seed=4)
    data = range(1000)
    orders = [list(redundancy.sampler(data, seed=7, worker=w, workers=9)) for w in range(9)]
    for group in redundancy.groups_of(9):
        assert all(orders[worker] == orders[group[0]] for worker in group)
    distinct = {i for group in redundancy.groups_of(9) for i in orders[group[0]]}
    assert len(distinct) == 999


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_epochs_and_resume(workers):
    data = TensorDataset(torch.arange(60))
    redundancy = hb.Redundancy(r=2)

    def epochs(worker, count):
        loader = DataLoader(
            data,
            batch_size=4,
            sampler=redundancy.sampler(data, worker=worker, workers=4),
            num_workers=workers,
        )
        return [[batch.tolist() for (batch,) in loader] for _ in range(count)]

    first, second = redundancy.groups_of(4)[0]
    assert epochs(first, 2) == epochs(second, 2)
    earlier, later = epochs(first, 2)
    assert earlier != later

    sampler = redundancy.sampler(data, worker=first, workers=4)
    whole = list(sampler) + list(sampler)
    sampler = redundancy.sampler(data, worker=first, workers=4)
    start = iter(sampler)
    head = [next(start) for _ in range(7)]
    resumed = redundancy.sampler(data, worker=first, workers=4)
    resumed.load_state_dict(sampler.state_dict())
    assert head + list(resumed) + list(resumed) == whole
