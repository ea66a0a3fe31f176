"""Random gradient matrices with everything that breaks aggregation rules: one source for all tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import horovod_byz as hb
from horovod_byz import rules

DTYPES = (np.float32, np.float64)


def every_rule(f):
    """The registry's rules that need neither replicas nor other rules; this f for those that have one."""
    kinds = [kind for kind in rules.with_condition() if kind not in (hb.MajorityVote, hb.Draco)]
    return [_with_parameters(kind, f) for kind in kinds]


def _with_parameters(kind, f):
    if issubclass(kind, rules.BoundedRule):
        return kind(f=f)
    return kind(tau=10.0) if kind is hb.CenteredClipping else kind()


@dataclass(frozen=True, eq=False)
class Case:
    """A matrix and what is true of it: the indices of its planted rows, and whether sums are exact."""

    rows: np.ndarray
    f: int
    bad: tuple[int, ...]
    exact: bool

    def __repr__(self):
        n, d = self.rows.shape
        return f"Case(n={n}, d={d}, {self.rows.dtype}, f={self.f}, bad={self.bad}, exact={self.exact})"


def random_case(seed, least_rows, dtype, most_rows=64, most_coordinates=10_000):
    """A case with n >= least_rows(f) and at most f planted rows.

    Args:
        seed: fixes the case.
        least_rows: the rule's `min_rows`.
        dtype: float32 or float64.
    """
    rng = np.random.default_rng([seed, 0xB52])
    biggest_f = max(f for f in range(most_rows) if least_rows(f) <= most_rows)
    f = int(rng.integers(0, biggest_f + 1)) if rng.random() < 0.7 else 0
    least = least_rows(f)
    n = least if rng.random() < 0.3 else int(rng.integers(least, most_rows + 1))
    d = int(np.exp(rng.uniform(0, np.log(most_coordinates)))) if seed % 5 else int(rng.integers(1, 40))
    rows, exact = _honest(rng, n, d)
    rows = rows.astype(dtype)
    bad = tuple(sorted(rng.choice(n, size=int(rng.integers(0, f + 1)), replace=False).tolist()))
    for i in bad:
        _spoil(rng, rows, i)
    return Case(rows, f, bad, exact)


def _honest(rng, n, d):
    kind = int(rng.integers(0, 5))
    if kind == 0:  # gradients around a common direction
        return rng.normal(size=d) + 0.3 * rng.normal(size=(n, d)), False
    if kind == 1:  # small whole numbers: many ties, and every sum is exact
        return rng.integers(-3, 4, size=(n, d)).astype(float), True
    if kind == 2:  # duplicated rows
        return rng.integers(-50, 51, size=(max(n // 3, 1), d))[rng.integers(0, max(n // 3, 1), n)] / 8.0, True
    if kind == 3:  # sparse, as gradients behind ReLU are
        return rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.2), False
    return rng.normal(size=(n, d)) * 10.0 ** rng.integers(-30, 4), False  # all scales


def _spoil(rng, rows, i):
    kind = int(rng.integers(0, 5))
    d = rows.shape[1]
    if kind == 0:
        rows[i] = np.nan
    elif kind == 1:
        rows[i, rng.integers(0, d)] = rng.choice([np.nan, np.inf, -np.inf, -np.nan])
    elif kind == 2:
        rows[i] = rng.choice([-1e30, 1e30])
    elif kind == 3:
        rows[i] = -rows[i] * rows.dtype.type(1e10)
    else:
        rows[i] = 0.0


def layouts(rows):
    """The same rows as callers hold them: (name, data)."""
    n, d = rows.shape
    padded = np.zeros((n, d + 7), rows.dtype)
    padded[:, :d] = rows
    read_only = rows.copy()
    read_only.setflags(write=False)
    return {
        "contiguous": rows,
        "padded": padded[:, :d],
        "fortran": np.asfortranarray(rows),
        "read-only": read_only,
        "list": [rows[i].copy() for i in range(n)],
    }


def attacked(attack, rows, byzantine, **options):
    """A copy of the rows after an attack."""
    copy = rows.copy()
    attack(copy, byzantine, **options)
    return copy
