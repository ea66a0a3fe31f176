"""Tensors as rows of one block; buffers of several workers on a rank; the ledger of ground truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.common import streams
from horovod_byz.ledger.truth import GroundTruth
from horovod_byz.optimizer.buffers import Buffers
from horovod_byz.optimizer.rows import FlatRows, WorkerRows


def tensors():
    return [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.empty(0), torch.tensor([8.0, 9.0])]


@pytest.mark.parametrize("adopted", [False, True])
def test_rows_are_read_and_put_back(adopted):
    held = tensors()
    rows = FlatRows(held, 2, torch.float32, torch.device("cpu"))
    if adopted:
        rows.adopt()
    assert rows.segments == (6, 7, 7, 9)
    rows.read(1)
    assert rows.rows.tolist() == [[0.0] * 9, [*range(6), 7, 8, 9]]
    assert rows.views[1][3].tolist() == [8, 9]
    held[0].add_(1)
    rows.read(0)
    rows.put_back(1)
    assert all(torch.equal(ours, plain) for ours, plain in zip(held, tensors(), strict=True))
    rows.put_back(0)
    assert held[0][0, 0] == 1


def test_tensors_of_several_dtypes_are_not_moved():
    held = [torch.ones(2), torch.ones(2, dtype=torch.float64)]
    places = [tensor.data_ptr() for tensor in held]
    rows = FlatRows(held, 1, torch.float64, torch.device("cpu"))
    rows.adopt()
    rows.read(0)
    assert [tensor.data_ptr() for tensor in held] == places
    assert rows.rows.tolist() == [[1.0] * 4]


def test_several_workers_rows_and_the_way_back():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, dtype=torch.float64))]
    rows = WorkerRows(parameters, workers=3)
    assert rows.dtype == np.float64
    for worker in range(3):
        parameters[0].grad = torch.full((2,), float(worker))
        array = rows.fill(worker)
    assert array.tolist() == [[0, 0, 0], [1, 1, 0], [2, 2, 0]]
    rows.write(np.array([3.0, 4.0, 5.0]))
    assert parameters[0].grad.tolist() == [3, 4]
    assert parameters[1].grad.tolist() == [5]
    assert rows.rows[2].tolist() == [2, 2, 0], "the rows stay"


def test_buffers_that_were_converted_are_bound_anew():
    net = nn.BatchNorm1d(2)
    buffers = Buffers(net.named_buffers())
    buffers.synchronize()
    net.running_mean.data = torch.tensor([1.0, np.nan], dtype=torch.float64)
    buffers.synchronize()
    assert net.running_mean.tolist() == [1.0, 0.0]


def test_no_rule_makes_a_variance_negative():
    """The trainer's own treatment of batch normalisation did not cut off; one owner does now."""
    net = nn.BatchNorm1d(2)
    net.running_var[0] = -1.0
    buffers = Buffers(net.named_buffers(), "mean", count=2, sent=[1])
    buffers.read(1)
    buffers.collect()
    buffers.write()
    assert net.running_var.tolist() == [0.0, 1.0]


class TestGroundTruth:
    """Worker 3 sends NaN; it is Byzantine at even steps, and worker 0 is at odd ones."""

    def entered(self, steps=4):
        truth = GroundTruth(4, lambda step: (0,) if step % 2 else (3,), ((0, 1), (2, 3)))
        result = hb.aggregate(np.array([[1.0], [1.0], [1.0], [np.nan]]), hb.Mean())
        for step in range(steps):
            truth.add(result, step)
        return truth

    def test_a_worker_is_judged_by_what_it_was_at_each_step(self):
        summary = self.entered().summary()
        assert summary["byzantine_rows_named"] == 0.5
        assert summary["honest_rows_named"] == round(2 / 12, 6)
        assert summary["byzantine_share_of_weight"] == round(2 / 3 / 4, 6)
        first, *_, last = summary["workers"]
        assert (first["byzantine_steps"], first["mean_weight"], first["group"]) == (2, 0.333333, 0)
        assert (last["byzantine_steps"], last["nonfinite_steps"], last["last_suspect_step"]) == (2, 4, 3)

    def test_absence_and_rewriting_are_entered_by_what_the_worker_was(self):
        truth = self.entered()
        truth.absent([0, 3], 5)
        assert truth.byzantine.account(0).absent == truth.honest.account(3).absent == 1
        assert truth.byzantine.account(3).absent == truth.honest.account(0).absent == 0

    def test_a_resumed_one_counts_on(self):
        whole, first, second = self.entered(), self.entered(2), GroundTruth(4, lambda step: ())
        second.load_state_dict(first.state_dict())
        assert second.steps == 2
        assert second.state_dict() == first.state_dict()
        assert whole.state_dict() != first.state_dict()

    def test_before_the_first_step(self):
        summary = GroundTruth(2, lambda step: ()).summary()
        assert summary["byzantine_rows_named"] is summary["honest_rows_named"] is None
        assert summary["workers"][0]["last_suspect_step"] is None


def test_streams_are_addressed_by_seed_purpose_and_place():
    draws = {
        tuple(streams.generator(seed, purpose, first, second).integers(0, 2**62, 2).tolist())
        for seed in (0, 1)
        for purpose in streams.Purpose
        for first in (0, 1)
        for second in (0, 1)
    }
    assert len(draws) == 8 * len(streams.Purpose)
    for seed in (-1, 2**64, 0.5, True):
        with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\^64\)"):
            streams.generator(seed, streams.Purpose.BATCH)
