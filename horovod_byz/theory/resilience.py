"""Resilience constants of Krum and of the median-based rules (Xie, Koyejo, Gupta 2018).

Legend: n workers, f of them Byzantine, d coordinates; g the true gradient, sigma the standard deviation of
one coordinate of one honest row. A rule is (alpha, f)-resilient if eta(n, f) sqrt(d) sigma < |g|; then
sin(alpha) = eta sqrt(d) sigma / |g| and <E[aggregate], g> >= (1 - sin alpha) |g|^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from horovod_byz.rules import Krum
from horovod_byz.rules.condition import MAJORITY
from horovod_byz.theory import checks


def eta_krum(n: int, f: int) -> float | None:
    """Returns eta_0 of Krum, or None where Krum's condition fails.

        eta_0^2 = 2 (n - f + [f (n - f - 2) + f^2 (n - f - 1)] / (n - 2f - 2))

    Reference:
        Lemma 1 (Blanchard et al. 2017).
    """
    checks.counts(n, f, "eta_krum")
    if not Krum.condition.holds(n, f):
        return None
    return math.sqrt(2 * (n - f + (f * (n - f - 2) + f**2 * (n - f - 1)) / (n - 2 * f - 2)))


def eta_geometric_median(n: int, f: int) -> float | None:
    """Returns eta_1 = (2n - 2f) / (n - 2f) * sqrt(n - f), or None without an honest majority.

    Reference:
        Theorem 3.
    """
    checks.counts(n, f, "eta_geometric_median")
    return geometric_median_factor(n, f) * math.sqrt(n - f) if MAJORITY.holds(n, f) else None


def eta_median(n: int, f: int) -> float | None:
    """Returns eta_2 = sqrt(n - f) of the marginal median, None without an honest majority. Theorem 4."""
    checks.counts(n, f, "eta_median")
    return math.sqrt(n - f) if MAJORITY.holds(n, f) else None


def eta_mean_around_median(n: int, f: int) -> float | None:
    """Returns eta_3 = sqrt(10 (n - f)), or None without an honest majority. Reference: Theorem 5."""
    checks.counts(n, f, "eta_mean_around_median")
    return math.sqrt(10 * (n - f)) if MAJORITY.holds(n, f) else None


def etas(n: int, f: int) -> dict[str, float | None]:
    """Returns eta of the four rules by name; None where the theorem does not apply."""
    return {
        "krum": eta_krum(n, f),
        "geometric-median": eta_geometric_median(n, f),
        "median": eta_median(n, f),
        "mean-around-median": eta_mean_around_median(n, f),
    }


def sin_alpha(eta: float, d: int, sigma: float, norm: float) -> float:
    """Returns eta sqrt(d) sigma / |g|; resilience is proved where it is below 1.

    Args:
        eta: the rule's constant.
        d: number of coordinates.
        sigma: standard deviation of one coordinate, so that E|G - g|^2 = d sigma^2.
        norm: |g|.

    Raises:
        ValueError: if |g| is not > 0.
    """
    return eta * math.sqrt(d) * sigma / checks.positive(norm, "norm of the gradient")


def resilience_angle(eta: float | None, d: int, sigma: float, norm: float) -> float | None:
    """Returns alpha in radians, 0 <= alpha < pi / 2, or None where the theorem's assumption is violated.

    The arguments are those of `sin_alpha`; eta may be None.
    """
    if eta is None:
        return None
    sine = sin_alpha(eta, d, sigma, norm)
    return math.asin(sine) if sine < 1 else None


def second_moment_bound(rule: str, n: int, f: int, d: int, sigma: float) -> float | None:
    """Returns the bound eta^2 d sigma^2 on E|aggregate - g|^2, or None where the theorem does not apply.

    Args:
        rule: a key of `etas`.
        n: as in the module's legend.
        f: as in the module's legend.
        d: as in the module's legend.
        sigma: as in the module's legend.

    Raises:
        ValueError: if the rule is unknown.

    Reference:
        proofs of Theorems 3, 4, 5.
    """
    table = etas(n, f)
    if rule not in table:
        raise ValueError(f"no resilience constant is known for {rule!r}: choose one of {', '.join(table)}")
    eta = table[rule]
    return None if eta is None else eta**2 * d * sigma**2


def geometric_median_factor(n: int, f: int) -> float:
    """Returns c_f = (2n - 2f) / (n - 2f) of Lemma 3.

    Raises:
        ValueError: if no majority is honest.
    """
    checks.counts(n, f, "Lemma 3")
    MAJORITY.check(n, f, f"Lemma 3 with f = {f}")
    return (2 * n - 2 * f) / (n - 2 * f)


def geometric_median_bound(
    n: int, f: int, radius: float, epsilon: float = 0.0, objective: float = 0.0
) -> float:
    """Returns c_f r + epsilon c_z, which bounds the norm of an approximate geometric median.

    c_z = objective / (n - 2f), and c_f is `geometric_median_factor`.

    Args:
        n: number of points.
        f: at most so many of them lie outside the ball.
        radius: r, all other points lie within this distance of the origin.
        epsilon: the point is a (1 + epsilon)-approximation.
        objective: the minimum of sum |z - z_i|, which a row at 1e20 makes huge.

    Raises:
        ValueError: if no majority is honest.

    Reference:
        Lemma 3.
    """
    return geometric_median_factor(n, f) * radius + epsilon * objective / (n - 2 * f)


def median_interval(honest: Sequence[float]) -> tuple[float, float]:
    """Returns [min, max] of the honest values: the median of all lies there if most are honest. Lemma 4."""
    return min(honest), max(honest)


def mean_around_median_radius(honest: Sequence[float], median: float) -> float:
    """Returns max |u_i - median| over the honest u_i; it bounds |mean around median - median|.

    Reference:
        Lemma 5.
    """
    return max(abs(value - median) for value in honest)
