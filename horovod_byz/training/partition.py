"""Divides a training set among workers by label, as federated data are: no worker sees all classes alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from horovod_byz.common.streams import check_seed

__all__ = ["dirichlet"]

Ints = NDArray[np.int64]

_DRAWS = 1000  # before a partition is called impossible
_PURPOSE = 0x6469  # a stream of random numbers of its own


def dirichlet(
    labels: NDArray[np.integer], workers: int, alpha: float, seed: int, least: int = 1
) -> list[Ints]:
    """Deals out each class to the workers in shares drawn from a Dirichlet distribution.

        q_c ~ Dirichlet(alpha, ..., alpha) over the workers, for each class c;
        worker i gets the fraction q_ci of the samples of class c

    A small alpha gives most of a class to few workers (0.1 is usual for strong heterogeneity); for alpha to
    infinity all workers get like data. The whole partition is drawn again until each worker has `least`
    samples.

    Args:
        labels: (samples,) the class of each sample.
        workers: number of workers.
        alpha: concentration, > 0.
        seed: the same seed gives the same partition.
        least: samples that each worker must have.

    Returns:
        Per worker the indices of its samples, ascending; each sample belongs to one worker.

    Raises:
        ValueError: if an argument is out of range, or no draw in 1000 gives each worker `least` samples.

    Reference:
        Hsu, Qi, Brown (2019), Measuring the effects of non-identical data distribution for federated visual
        classification.
    """
    labels = np.asarray(labels)
    if workers < 1 or least < 0 or least * workers > len(labels):
        raise ValueError(
            f"dirichlet: {len(labels)} samples do not give {workers} workers at least {least} each: use "
            "fewer workers or a smaller least"
        )
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"dirichlet: alpha must be a finite number > 0, got {alpha!r}")
    rng = np.random.default_rng([check_seed(seed), _PURPOSE])
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_DRAWS):
        parts = _dealt(classes, workers, alpha, rng)
        if min(map(len, parts)) >= least:
            return parts
    raise ValueError(
        f"dirichlet: in {_DRAWS} draws with alpha={alpha} some worker always had fewer than {least} "
        "samples: use a larger alpha, fewer workers or a smaller least"
    )


def _dealt(classes: list[Ints], workers: int, alpha: float, rng: np.random.Generator) -> list[Ints]:
    pieces: list[list[Ints]] = [[] for _ in range(workers)]
    for samples in classes:
        shares = np.cumsum(rng.dirichlet(np.full(workers, alpha)))
        cuts = np.rint(shares[:-1] * len(samples)).astype(np.int64)
        for piece, part in zip(pieces, np.split(rng.permutation(samples), cuts), strict=True):
            piece.append(part)
    return [np.sort(np.concatenate(piece)) for piece in pieces]
