"""Why claims fail: the mechanisms that explanations of launch/experiments name, measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.training import models
from horovod_byz.training.data import load_dataset


def gradients(batch, n=20):
    """The first gradients of n workers on the digits, `(n, d)`."""
    dataset, random = load_dataset("digits"), np.random.default_rng(0)
    model = models.build("mlp", dataset.shape, dataset.classes, seed=0)
    rows = []
    for _ in range(n):
        images = random.integers(0, len(dataset.train_y), batch)
        loss = torch.nn.functional.cross_entropy(model(dataset.train_x[images]), dataset.train_y[images])
        parts = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]).numpy())
    return np.array(rows)


def along(rule, rows):
    """How far the rule moves along the mean, as a share of the mean's own length."""
    mean = rows.mean(axis=0)
    return float(np.asarray(rule(rows)) @ mean / (mean @ mean))


def test_mean_around_median_is_short_of_a_skewed_mean_and_the_mean_itself_with_f_0():
    small, large = gradients(8), gradients(128)
    assert along(hb.MeanAroundMedian(f=0), small) == pytest.approx(1, abs=1e-5)
    shares = [along(hb.MeanAroundMedian(f=6), rows) for rows in (small, large)]
    assert shares[0] < 0.92 < 0.95 < shares[1]
    assert along(hb.Median(), small) < along(hb.Median(), large)
