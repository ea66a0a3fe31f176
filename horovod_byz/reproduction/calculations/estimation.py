"""Mean estimation on synthetic data: how far from the true gradient the rules are, with and without DETOX.

The paper mentions the experiment for its appendix, whose text is not at hand; the set-up is ours: p workers,
samples N(mu, I), 32 of them per worker without redundancy and 96 per group with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import horovod_byz as hb
from horovod_byz import attacks
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Detox, Rule

_N, _R, _D, _BATCH, _TRIALS = 45, 3, 200, 32, 60
_BYZANTINE = (0, 1, 3, 5, 7)


def calculate() -> dict[str, Any]:
    """Mean squared error per coordinate, in units of the variance of the mean over all samples.

    1 is what averaging all honest workers would reach without an attack.
    """
    values: dict[str, Any] = {}
    for attack in (attacks.ReversedGradient(c=100.0), attacks.ALittleIsEnough(z=1.0)):
        for f in _BYZANTINE:
            for name in ("median", "multi-krum", "bulyan"):
                at = f"{attack.name}, q = {f}:"
                vanilla, detox = (_error(name, attack, f, redundant) for redundant in (False, True))
                values |= {f"{at} {name}": vanilla, f"{at} D-{name}": detox}
                values[f"{at} D-{name} minus {name}"] = detox - vanilla
    return values


def _error(name: str, attack: attacks.Attack, f: int, detox: bool) -> float:
    mu = np.random.default_rng(0).standard_normal(_D)
    total = 0.0
    for trial in range(_TRIALS):
        random = np.random.default_rng([1, trial])
        redundancy = Redundancy(_R if detox else 1, seed=trial)
        rows = np.empty((_N, _D))
        for group in redundancy.groups_of(_N):
            samples = _BATCH * len(group)
            rows[list(group)] = mu + random.standard_normal(_D) / np.sqrt(samples)
        # The Byzantine workers are drawn independently of the redundancy groups and of the samples.
        attack(rows, random.choice(_N, f, replace=False).tolist(), step=trial)
        total += float(((_rule(name, f, detox, redundancy)(rows) - mu) ** 2).mean())
    return total / _TRIALS * _N * _BATCH


def _rule(name: str, f: int, detox: bool, redundancy: Redundancy) -> Rule:
    if detox:
        return Detox.preset(name, redundancy, _N, f)
    vanilla: dict[str, Rule] = {"median": hb.Median(), "multi-krum": hb.MultiKrum(f=f)}
    return vanilla[name] if name in vanilla else hb.Bulyan(f=f)
