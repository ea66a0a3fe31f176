"""Theorems of DETOX, BrSGD and xie2018 on rates and moments, simulated where their conditions hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import horovod_byz as hb
from horovod_byz import attacks
from horovod_byz.rules import Detox, Rule
from horovod_byz.theory import brsgd, resilience
from horovod_byz.theory import detox as detox_theory

__all__ = ["detox", "dimensional_moments", "strongly_convex"]

Floats = NDArray[np.float64]


def detox() -> dict[str, Any]:
    """Theorem 3 of DETOX with as many vote groups as it asks for: 828 workers, r = 9, 92 groups.

    A0 is the mean, A1 the geometric median. Five of the eight Byzantine workers sit in one group and win its
    vote, the most that eight can win. The constant is the error that 1 - delta of the trials keep, over
    sigma sqrt(ln(1 / delta) / b).
    """
    n, r, delta, d = 828, 9, 0.49, 20
    constants = {(f, b): _constant(n, f, r, b, delta, d) for f, b in ((0, n), (8, n), (8, 16 * n))}
    plain, attacked, large = constants.values()
    applies = detox_theory.oracle_bound(n, 8, r, n, delta).applies
    return {
        "Theorem 3 applies to 828 workers, q = 8, r = 9": int(applies),
        "Theorem 3's constant without Byzantine workers": plain,
        "Theorem 3's constant with q = 8": attacked,
        "Theorem 3's constant: q = 8 over none": attacked / plain,
        "Theorem 3's constant: 16 b over b": large / attacked,
    }


def _constant(n: int, f: int, r: int, b: int, delta: float, d: int, trials: int = 100) -> float:
    errors = []
    for trial in range(trials):
        random = np.random.default_rng([3, trial, b])
        redundancy = hb.Redundancy(r, seed=trial)
        groups = redundancy.groups_of(n)
        rows = np.empty((n, d))
        for group in groups:
            rows[list(group)] = random.standard_normal(d) * math.sqrt(len(groups) / b)
        winning = min(f, r // 2 + 1)
        byzantine = [*groups[0][:winning], *(group[0] for group in groups[1 : 1 + f - winning])]
        rows[byzantine] = 1e6
        rule = Detox(redundancy, hb.Mean(), hb.GeometricMedian(), groups=len(groups))
        errors.append(float(np.linalg.norm(rule(rows))))
    return float(np.quantile(errors, 1 - delta)) / math.sqrt(math.log(1 / delta) / b)


def strongly_convex() -> dict[str, Any]:
    """BrSGD's Theorem 1 on F(w) = |w - w*|^2 / 2, which is 1-strongly convex and 1-smooth.

    Worker i's gradient is w - x_i with x_i the mean of its n samples N(w*, I); a quarter of the m workers
    send the negated sum of the others. The distance from w* after 12 steps of length 1 / 2, the mean of 40
    trials.
    """
    of_n = [_distance(20, n) for n in (25, 100, 400, 1600)]
    of_m = [_distance(m, 100) for m in (20, 80, 320)]
    rates = [float(np.mean(each)) for each in of_n]
    start, factor = math.sqrt(_D), brsgd.contraction(1.0, 1.0, _STEPS)
    return {
        "BrSGD, strongly convex: slope of log distance against log n": _slope((25, 100, 400, 1600), of_n),
        "BrSGD, strongly convex: slope of log distance against log m": _slope((20, 80, 320), of_m),
        "BrSGD, strongly convex: distance at n = 100, m = 320": float(np.mean(of_m[-1])),
        "BrSGD, strongly convex: the mean of the honest workers there": math.sqrt(_D / (100 * 240)),
        "BrSGD, strongly convex: distance over contraction plus 2 Delta / lambda, worst": max(
            distance / (factor * start + 2 * math.sqrt(_D) * (1 / math.sqrt(n) + 1 / math.sqrt(20 * n)))
            for n, distance in zip((25, 100, 400, 1600), rates, strict=True)
        ),
    }


_D, _STEPS = 20, 12


def _distance(m: int, n: int, trials: int = 40) -> Floats:
    """The final distance from the optimum, `(trials,)`."""
    distances = []
    for trial in range(trials):
        random = np.random.default_rng([4, trial, m, n])
        centres = random.standard_normal((m, _D)) / math.sqrt(n)  # w* = 0
        byzantine = list(range(m // 4))
        w = np.full(_D, 1.0)
        for step in range(_STEPS):
            rows = w - centres
            attacks.ModelNegation(scale=1.0)(rows, byzantine, step=step)
            w = w - 0.5 * hb.BrSGD()(rows)
        distances.append(float(np.linalg.norm(w)))
    return np.array(distances)


def _slope(x: tuple[int, ...], y: list[Floats]) -> float:
    return float(np.polyfit(np.log(x), np.log([each.mean() for each in y]), 1)[0])


def dimensional_moments() -> dict[str, Any]:
    """xie2018: moments of order 2 to 4 (condition ii), Theorem 3's second moment, and dimensional attacks.

    The gradients are N(g, I) with |g|^2 = d / 4; Byzantine values are 1, 1e3, 1e10 and 1e20. A moment stays
    bounded by the gradients' own, however large the values are.
    """
    n, f, d = 20, 6, 50
    rules: dict[str, tuple[Rule, bool]] = {
        "krum": (hb.Krum(f=f), False),
        "geometric-median": (hb.GeometricMedian(), False),
        "median": (hb.Median(), True),
        "mean-around-median": (hb.MeanAroundMedian(f=f), True),
    }
    values: dict[str, Any] = {}
    for name, (rule, dimensional) in rules.items():
        worst = dict.fromkeys((2, 3, 4), 0.0)
        second = 0.0
        for rows, honest, g in _attacked(n, f, d, dimensional):
            results = np.array([rule(each) for each in rows])
            lengths = np.linalg.norm(results, axis=1)
            own = np.linalg.norm(honest, axis=2)
            worst = {r: max(worst[r], float((lengths**r).mean() / (own**r).mean())) for r in worst}
            second = max(second, float(((results - g) ** 2).sum(axis=1).mean()))
        kind = "dimensional" if dimensional else "classic"
        bound = resilience.second_moment_bound(name, n, f, d, 1.0)
        values |= {f"{name}, {kind} attacks: moment {r} over the gradients'": worst[r] for r in worst}
        values[f"{name}, {kind} attacks: E|result - g|^2 over its bound"] = second / (bound or np.nan)
    return values


def _attacked(n: int, f: int, d: int, dimensional: bool) -> Iterator[tuple[Floats, Floats, float]]:
    """Rows `(trials, n, d)` under each size of the Byzantine values, and the gradients they hide."""
    for size in (1.0, 1e3, 1e10, 1e20):
        random = np.random.default_rng(5)
        honest = 0.5 + random.standard_normal((100, n, d))
        rows = honest.copy()
        for trial in rows:
            if dimensional:
                np.put_along_axis(trial, random.random((n, d)).argsort(axis=0)[:f], -size, axis=0)
            else:
                trial[:f] = -size
        yield rows, honest, 0.5
