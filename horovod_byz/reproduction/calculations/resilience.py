"""The resilience theorems of xie2018, empires and brsgd as inequalities, measured with our rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import horovod_byz as hb
from horovod_byz import attacks, theory
from horovod_byz.reproduction.calculations import rates
from horovod_byz.rules import Rule
from horovod_byz.theory import brsgd, empires, resilience

_N, _F, _D, _TRIALS = 20, 6, 50, 200


def calculate() -> dict[str, Any]:
    """Each value is what a theorem bounds over its bound, at its worst; a theorem holds where it is <= 1."""
    older = {**_moments(), **_geometric_median(), **_minimum(), **_median_turns(), **_brsgd()}
    return {**older, **rates.dimensional_moments(), **rates.strongly_convex()}


def _moments() -> dict[str, Any]:
    """E|aggregate - g|^2 over eta^2 d sigma^2 (Theorems 3 to 5), the worst over six attacks."""
    random = np.random.default_rng(0)
    cases: dict[str, Rule] = {"median": hb.Median(), "mean-around-median": hb.MeanAroundMedian(f=_F)}
    cases["krum"] = hb.Krum(f=_F)
    kinds = [
        attacks.Gaussian(),
        attacks.Omniscient(),
        attacks.InnerProduct(epsilon=0.5),
        attacks.ALittleIsEnough(z=1.0),
        attacks.ReversedGradient(),
        attacks.Constant(value=-1.0),
    ]
    values = {}
    for name, rule in cases.items():
        bound = resilience.second_moment_bound(name, _N, _F, _D, 1.0)
        worst = 0.0
        for attack in kinds:
            total = 0.0
            for trial in range(_TRIALS):
                rows = random.standard_normal((_N, _D))
                attack(rows, range(_F), step=trial)
                total += float((rule(rows) ** 2).sum())
            worst = max(worst, total / _TRIALS / (bound or np.nan))
        values[f"{name}: second moment over its bound, worst of six attacks"] = worst
    return values


def _geometric_median() -> dict[str, Any]:
    """Lemma 3: |geometric median| <= c_f r for honest rows in a ball of radius r, wherever the others are."""
    random, worst = np.random.default_rng(1), 0.0
    factor = resilience.geometric_median_factor(_N, _F)
    for trial in range(_TRIALS):
        rows = random.standard_normal((_N, _D))
        rows[_F:] /= np.linalg.norm(rows[_F:], axis=1, keepdims=True)
        rows[:_F] = rows[0] * 10.0 ** (trial % 25)
        worst = max(worst, float(np.linalg.norm(hb.GeometricMedian()(rows))) / factor)
    return {"geometric-median: norm over Lemma 3's bound, worst of 200": worst}


def _minimum() -> dict[str, Any]:
    """The deterministic inequality behind Theorem 1 of empires, on samples of four distributions."""
    random, violations = np.random.default_rng(2), 0
    draws: list[Callable[[int], np.ndarray]] = [
        lambda count: random.standard_normal(count),
        lambda count: random.standard_cauchy(count),
        lambda count: random.exponential(size=count),
        lambda count: (random.random(count) < 0.1).astype(float),
    ]
    for trial in range(20_000):
        values = draws[trial % 4](2 + trial % 30)
        violations += bool(values.min() > empires.minimum_bound(values) + 1e-12 * np.abs(values).max())
    return {"min <= mean - s / sqrt(n - 1): violations in 20000 samples": violations}


def _median_turns() -> dict[str, Any]:
    """Theorem 1 of empires at n = 25, f = 12: below its threshold the median's mean is negative."""
    random, g = np.random.default_rng(3), 0.28
    honest = g + random.standard_normal((13, 20_000))
    rows = np.concatenate([np.tile(-10 * honest.mean(axis=0), (12, 1)), honest])
    return {
        "threshold of Theorem 1 (empires), n = 25, f = 12": empires.median_threshold(25, 12),
        "E[median] for Gaussian gradients at g = 0.28": float(hb.Median()(rows).mean()),
        "break point for Gaussian gradients": empires.median_break_point(25, 12),
        "E[min of 13] of the two-point counter-example at g = 0.1": empires.two_point_minimum(0.1, 1e-4, 13),
        "honest workers that Theorem 2 needs at epsilon = 0.5": empires.krum_required_honest(0.5),
        "smallest epsilon that 14 honest workers allow": empires.krum_smallest_epsilon(14),
    }


def _brsgd() -> dict[str, Any]:
    """Rows that pass constraint 1 with T = s lie within 3 s of mu (one coordinate)."""
    random, worst = np.random.default_rng(4), 0.0
    for trial in range(2000):
        honest = random.standard_normal(11)
        s = float(np.abs(honest).max())
        rows = np.concatenate(
            [honest, random.uniform(-4 * s, 4 * s, 9) if trial % 2 else np.full(9, 2.99 * s)]
        )
        value = hb.BrSGD(beta=1.0, threshold=s)(rows[:, None])
        worst = max(worst, float(np.abs(value).max()) / brsgd.safe_deviation(s, 9 / 20))
    return {
        "brsgd: deviation over 3 s, worst of 2000": worst,
        "gambler, MLP: expected clean workers of 20 per step": theory.Gamble(118_282).clean_workers,
        "gambler, MLP: P(MeanAroundMedian with f = 2 crashes in 500 steps)": theory.Gamble(
            118_282
        ).coordinate_crash(2),
    }
