"""A little is enough: how many standard deviations stay unnoticed (Baruch, Baruch, Goldberg 2019)."""

from __future__ import annotations

from horovod_byz.theory import checks
from horovod_byz.theory.normal import quantile


def supporters(n: int, f: int) -> int:
    """Returns s = floor(n / 2 + 1) - f, the honest workers whom the attackers must win for a majority.

    Raises:
        ValueError: if n and f are not counts with f <= n.
    """
    checks.counts(n, f, "supporters")
    return n // 2 + 1 - f


def z_max(n: int, f: int) -> float:
    """Returns the largest z at which s honest workers are expected to lie further out than the attackers.

        z_max = Phi^-1((n - f - s) / (n - f)),    s = floor(n / 2 + 1) - f

    Args:
        n: number of workers.
        f: number of colluding Byzantine workers.

    Returns:
        z_max, in standard deviations; infinite where the attackers need no supporter (s <= 0).

    Raises:
        ValueError: if n and f are not counts, or no worker is honest.

    Reference:
        Baruch et al. 2019, Algorithm 3, as more than ten public implementations have it (its first
        version divided by n).
    """
    needed = supporters(n, f)
    if f >= n:
        raise ValueError(f"z_max needs an honest worker: n > f, got n = {n}, f = {f}")
    return float("inf") if needed <= 0 else quantile((n - f - needed) / (n - f))
