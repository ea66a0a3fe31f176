"""The partition of labels by a Dirichlet distribution."""

from __future__ import annotations

import numpy as np
import pytest

from horovod_byz.training.partition import dirichlet

LABELS = np.repeat(np.arange(10), 100)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 1000.0])
def test_each_sample_belongs_to_one_worker(alpha):
    parts = dirichlet(LABELS, 20, alpha, seed=1, least=3)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert min(map(len, parts)) >= 3


def test_a_small_alpha_gives_few_classes_and_a_large_one_all():
    def classes(alpha):
        return np.mean([len(np.unique(LABELS[part])) for part in dirichlet(LABELS, 10, alpha, seed=1)])

    assert classes(0.1) < 6
    assert classes(1000.0) == 10


def test_the_seed_decides():
    first, again, other = (dirichlet(LABELS, 5, 0.5, seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"workers": 0}, "workers"),
        ({"least": 101}, "least"),
        ({"alpha": 1e-3, "least": 100}, "1000 draws"),
    ],
)
def test_what_cannot_be_dealt_is_refused(arguments, what):
    with pytest.raises(ValueError, match=what):
        dirichlet(**{"labels": LABELS, "workers": 10, "alpha": 1.0, "seed": 1, **arguments})
