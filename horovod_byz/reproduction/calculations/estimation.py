"""Mean estimation on synthetic data: how far from the true gradient the rules are, with and without DETOX.

The paper mentions the experiment for its appendix, whose text is not at hand; the set-up is ours: p workers,
samples N(mu, I), 32 of them per worker without redundancy and 96 per group with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import horovod_byz as hb
from horovod_byz import attacks
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Detox, Rule

_N, _R, _D, _BATCH, _TRIALS = 45, 3, 200, 32, 200
_BYZANTINE = (0, 1, 3, 5, 7)

Floats = NDArray[np.float64]
Pairing = Callable[[int, Redundancy], Rule]
_VANILLA: dict[str, Callable[[int], Rule]] = {
    "median": lambda f: hb.Median(),
    "multi-krum": lambda f: hb.MultiKrum(f=f),
    "bulyan": lambda f: hb.Bulyan(f=f),
    "geometric-median": lambda f: hb.GeometricMedian(),
    "trimmed-mean": lambda f: hb.TrimmedMean(f=11),
}
"""The rules without redundancy; the last two are the outer rules of Theorem 3, beside the median."""
_PRESETS = {"geometric-median": "theory-geometric-median", "trimmed-mean": "theory-trimmed-mean"}


def calculate() -> dict[str, Any]:
    """Mean squared error per coordinate, in units of the variance of the mean over all samples.

    1 is what averaging all honest workers would reach without an attack. Differences are paired: each trial
    draws the same samples and Byzantine workers for every rule. Beside them a pairing that the paper tried
    and found less resilient, and DRACO, whose 2 f + 1 gradients per worker give back the exact mean.
    """
    values: dict[str, Any] = {}
    for attack in (attacks.ReversedGradient(c=100.0), attacks.ALittleIsEnough(z=1.0)):
        for f in _BYZANTINE:
            at = f"{attack.name}, q = {f}:"
            for name in _VANILLA:
                vanilla, detox = (
                    _errors(_rule(name, f, redundant), attack, f) for redundant in (False, True)
                )
                values |= {f"{at} {name}": float(vanilla.mean()), f"{at} D-{name}": float(detox.mean())}
                values |= _noisy(f"{at} D-{name} minus {name}", detox - vanilla)
        at = f"{attack.name}, q = 5:"
        turned = _errors(_mean_then_krum, attack, 5)
        values[f"{at} Mean, then Multi-Krum across 5 vote groups"] = float(turned.mean())
        chosen = _errors(_rule("multi-krum", 5, True), attack, 5)
        values |= _noisy(f"{at} Mean, then Multi-Krum minus D-multi-krum", turned - chosen)
        values |= _noisy(f"{at} DRACO (11 gradients per worker)", _draco(attack, 5))
    return values


def _noisy(name: str, values: Floats) -> dict[str, Any]:
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return {name: float(values.mean()), f"{name}, standard error": error, f"{name}, trials": len(values)}


def _rule(name: str, f: int, redundant: bool) -> Pairing:
    if redundant:
        return lambda f, redundancy: Detox.preset(_PRESETS.get(name, name), redundancy, _N, f)
    return lambda f, redundancy: _VANILLA[name](f)


def _mean_then_krum(f: int, redundancy: Redundancy) -> Rule:
    """A0 = Mean, A1 = Multi-Krum; of 5 vote groups it can survive one."""
    return Detox(redundancy, hb.Mean(), hb.MultiKrum(f=1), groups=5)


def _errors(pairing: Pairing, attack: attacks.Attack, f: int) -> Floats:
    """The error of each trial, `(trials,)`."""
    redundant = isinstance(pairing(f, Redundancy(_R)), Detox)
    mu = _mu()
    errors = []
    for trial, random in _trials():
        redundancy = Redundancy(_R if redundant else 1, seed=trial)
        byzantine = random.choice(_N, f, replace=False).tolist()
        noise = random.standard_normal((_N, _D)) / np.sqrt(_BATCH)
        rows = np.empty((_N, _D))
        for group in redundancy.groups_of(_N):
            # The mean over the samples of the group's workers, which each of them computes.
            rows[list(group)] = mu + noise[list(group)].mean(axis=0)
        attack(rows, byzantine, step=trial)
        errors.append(((pairing(f, redundancy)(rows) - mu) ** 2).mean())
    return np.array(errors) * _N * _BATCH


def _draco(attack: attacks.Attack, f: int) -> Floats:
    """The error of DRACO with its repetition code: groups of 2 f + 1 workers compute the same batch."""
    rule, mu, errors = hb.Draco(f=f), _mu(), []
    count = rule.batch_count(_N)
    for trial, random in _trials():
        byzantine = random.choice(_N, f, replace=False).tolist()
        samples = _N * _BATCH / count
        gradients = mu + random.standard_normal((count, _D)) / np.sqrt(samples)
        sent = [rule.encode(gradients[list(rule.batches(i, _N))], i, _N) for i in range(_N)]
        rows = np.array(sent, np.float64)
        attack(rows, byzantine, step=trial)
        errors.append(((rule(rows) - mu) ** 2).mean())
    return np.array(errors) * _N * _BATCH


def _mu() -> Floats:
    return np.random.default_rng(0).standard_normal(_D)


def _trials() -> Iterator[tuple[int, np.random.Generator]]:
    """The trials with their random numbers, the same for every rule."""
    return ((trial, np.random.default_rng([1, trial])) for trial in range(_TRIALS))
