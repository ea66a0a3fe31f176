"""Divides a training set among workers by label, as federated data are: no worker sees all classes alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from horovod_byz.common.streams import check_seed

__all__ = ["by_label", "dirichlet", "gamma"]

Ints = NDArray[np.int64]

_DRAWS = 1000  # before a partition is called impossible
_PURPOSE = 0x6469  # a stream of random numbers of its own
_BLOCKS = 0x626C  # likewise


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


def gamma(labels: NDArray[np.integer], workers: int, share: float, seed: int) -> list[Ints]:
    """Deals out a share of the samples at random, and the rest sorted by label.

        round(share * samples) samples, drawn at random, are dealt out evenly; the others are sorted by label
        and cut into one block for each worker, and the blocks are dealt out in random order

    share = 1 gives all workers like data, share = 0 is `by_label`.

    Args:
        labels: (samples,) the class of each sample.
        workers: number of workers.
        share: fraction of the samples that is dealt out at random, 0 to 1.
        seed: the same seed gives the same partition.

    Returns:
        Per worker the indices of its samples, ascending; each sample belongs to one worker.

    Raises:
        ValueError: if an argument is out of range, or there are fewer samples than workers.

    Reference:
        Karimireddy et al. (2020), SCAFFOLD, section 7 ("s % similar" data); Allouah et al. (2023), Fixing by
        mixing, section 6 (gamma-similarity).
    """
    labels = np.asarray(labels)
    if not (isinstance(share, (int, float)) and not isinstance(share, bool) and 0 <= share <= 1):
        raise ValueError(f"gamma: share must be a number from 0 to 1, got {share!r}")
    if workers < 1 or workers > len(labels):
        raise ValueError(
            f"{len(labels)} samples leave some of {workers} workers without data: use at most {len(labels)} "
            "workers, or more samples"
        )
    rng = np.random.default_rng([check_seed(seed), _BLOCKS])
    order = rng.permutation(len(labels))
    common = round(share * len(labels))
    rest = order[common:]
    blocks = np.array_split(rest[np.argsort(labels[rest], kind="stable")], workers)
    # Whoever gets one sample more of the common part gets a block that is not longer than the others.
    shares = np.array_split(order[:common], workers)[::-1]
    places = rng.permutation(workers)
    return [np.sort(np.concatenate([shares[place], blocks[place]])) for place in places]


def by_label(labels: NDArray[np.integer], workers: int, seed: int) -> list[Ints]:
    """Sorts the samples by label and deals out one block to each worker, in random order; see `gamma`."""
    return gamma(labels, workers, 0.0, seed)
