"""The papers' worked examples and counter-examples, put through the rules and attacks of the library."""

from __future__ import annotations

from typing import Any

import numpy as np

import horovod_byz as hb
from horovod_byz import theory
from horovod_byz.attacks import flip_bits
from horovod_byz.rules.krum import scores
from horovod_byz.theory import empires, examples

# Exact float32 values of BitFlip's default bits, to the eight digits that determine them.
FLIPS = (
    (0.0, -5.5340232e19),
    (-0.0, 5.5340232e19),
    (1.0, -2.7670116e19),
    (0.5, -1.3835058e19),
    (0.01, -2.5652503e17),
    (1e-3, -2.7453944e16),
    (1e-20, -8.4038663e37),
    (2.0, -1.6263033e-19),
)
ETAS = {
    (20, 6): (14.4222, 13.0958, 3.7417, 11.8322),
    (20, 8): (28.4253, 20.7846, 3.4641, 10.9545),
    (20, 0): (6.3246, 8.9443, 4.4721, 14.1421),
    (25, 11): (58.6345, 34.9221, 3.7417, 11.8322),
    (45, 5): (12.2722, 14.4561, 6.3246, 20.0),
    (15, 2): (6.4464, 8.5222, 3.6056, 11.4018),
}


def calculate() -> dict[str, Any]:
    """Every number that the papers' examples can be checked by."""
    return {**_empires(), **_witness(), **_counter_examples(), **_tables(), **_inner_product()}


def _squared(rows: np.ndarray) -> np.ndarray:
    squares: np.ndarray = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    return squares


def _empires() -> dict[str, Any]:
    krum = examples.toy_krum()
    apart = np.abs(scores(_squared(krum), 3) - np.array(examples.TOY_KRUM_SCORES))
    return {
        "median of the toy (empires, 5.2.1)": float(hb.Median()(examples.toy_median())[0]),
        "Krum's choice in the toy (empires, 5.3.1)": float(hb.Krum(f=3)(krum)[0]),
        "largest error of the toy's nine Krum scores": float(apart.max()),
    }


def _witness() -> dict[str, Any]:
    """Theorem 2 of empires at the paper's own n = 25, f = 11: a regular simplex satisfies all hypotheses."""
    rows = examples.simplex_witness(1.45)
    krum_scores, bounds = scores(_squared(rows), 11), empires.krum_attack(rows[11:], 11, 1.45)

    def byzantine(epsilon: float) -> bool:
        return bool(hb.Krum(f=11)(examples.simplex_witness(epsilon))[0] < 0)

    return {
        "simplex witness: Theorem 2 applies": int(bounds.applies),
        "simplex witness: score of a Byzantine row": float(krum_scores[0]),
        "simplex witness: Theorem 2's bound on it": float(bounds.byzantine_bound),
        "simplex witness: score of an honest row": float(krum_scores[11]),
        "simplex witness: Theorem 2's bound on it from below": float(bounds.honest_bound),
        "simplex: Byzantine row chosen, of epsilon 0.1, 0.5, 1, 1.45, 2": sum(
            byzantine(epsilon) for epsilon in (0.1, 0.5, 1.0, 1.45, 2.0)
        ),
        "simplex: Byzantine row chosen, of epsilon 3, 5, 10": sum(
            byzantine(epsilon) for epsilon in (3.0, 5.0, 10.0)
        ),
    }


def _counter_examples() -> dict[str, Any]:
    random = np.random.default_rng(0)
    g = random.standard_normal(50)
    rows = g + 0.1 * random.standard_normal((20, 50))
    attacked = examples.mean_counter_example(rows[1:], g)
    products: dict[str, list[float]] = {"Krum": [], "Median": []}
    for scale in (1e6, 1e9):
        huge = examples.selection_counter_example(np.abs(rows), scale)
        products["Krum"].append(float(hb.Krum(f=6)(huge) @ np.abs(g)))
        products["Median"].append(float(hb.Median()(huge) @ np.abs(g)))
    return {
        "xie2018 Theorem 1: largest error of mean = -g / n": float(
            np.abs(hb.Mean()(attacked) + g / 20).max()
        ),
        "xie2018 Theorem 2: Krum's inner product, factor 1e9 over 1e6": products["Krum"][1]
        / products["Krum"][0],
        "xie2018 Theorem 2: Krum's inner product with g, factor 1e9": products["Krum"][1],
        "xie2018 Theorem 2: Median's inner product with g, factor 1e9": products["Median"][1],
    }


def _tables() -> dict[str, Any]:
    given, wanted = np.array(FLIPS).T
    flipped = flip_bits(given.astype(np.float32)).astype(np.float64)
    etas = [
        abs(eta - printed)
        for (n, f), row in ETAS.items()
        for eta, printed in zip(theory.etas(n, f).values(), row, strict=True)
        if eta is not None
    ]
    return {
        "bit flips: largest relative error of eight values": float(np.abs(flipped / wanted - 1).max()),
        "eta table: largest error of 24 constants": max(etas),
        "z_max of ALIE, n = 45, f = 5": theory.z_max(45, 5),
        "Bulyan at n = 45, f = 5: rows selected": theory.bulyan_counts(45, 5)[0],
        "Bulyan at n = 45, f = 5: values kept": theory.bulyan_counts(45, 5)[1],
    }


def _inner_product() -> dict[str, Any]:
    """Figure 4 of empires in one step: 12 of 25 rows are -epsilon times the mean of the honest ones."""
    random = np.random.default_rng(0)
    g = 0.02 * random.standard_normal(20_000)
    honest = g + random.standard_normal((13, 20_000))
    mean = honest.mean(axis=0)
    values = {}
    for epsilon in (10.0, 0.1, 0.0, -10.0):
        median = hb.Median()(np.concatenate([np.tile(-epsilon * mean, (12, 1)), honest]))
        values[f"median against epsilon = {epsilon:g}: <median, g> / <mean, g>"] = float(
            (median @ g) / (mean @ g)
        )
    return values
