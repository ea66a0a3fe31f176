"""Growth of time with n and d: fitted exponents beside those of the papers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["CLAIMS", "exponents", "slope"]

# (exponent of d, exponent of n) that the papers give; for DETOX p workers stand for n.
CLAIMS = {
    "median": ("1", "1 (sorting: n log n)", "Xie et al. 2018, section 4.4"),
    "mean around median": ("1", "1 (sorting: n log n)", "Xie et al. 2018, section 4.4"),
    "trimmed mean": ("1", "1 (sorting: n log n)", "Yin et al. 2018"),
    "BrSGD": ("1", "1", "Li et al. 2021"),
    "Multi-Krum": ("1", "2", "Blanchard et al. 2017"),
    "geometric median": ("1", "1 per iteration; here 2, once", "Xie et al. 2018, section 4.4"),
    "DETOX, median": ("1", "nearly 1", "Rajput et al. 2019, section 4"),
}


def slope(points: Mapping[float, float]) -> float | None:
    """Exponent k of the least-squares fit time = c x^k, or None for fewer than two points."""
    if len(points) < 2:
        return None
    x, y = (np.log(np.array(list(values), float)) for values in (points.keys(), points.values()))
    fitted = float(np.polyfit(x, y, 1)[0])
    return fitted if math.isfinite(fitted) else None


def exponents(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per rule the fitted exponents: in d for the n with most sizes, in n for d = 10^6 or the nearest.

    Args:
        cells: as the JSON file holds them.
    """
    cells = list(cells)
    sizes = sorted({int(cell["d"]) for cell in cells})
    middle = min(sizes, key=lambda d: abs(math.log(d / 1e6)))
    fits = []
    for way, (in_d, in_n, source) in CLAIMS.items():
        times = {
            (cell["n"], cell["d"]): timing["cpu_ms"]
            for cell in cells
            for timing in cell["timings"]
            if timing["name"] == way
        }
        if not times:
            continue
        counts = {n: sum(1 for other, _ in times if other == n) for n, _ in times}
        widest = max(counts, key=lambda n: (counts[n], n == 45, n))
        fits.append(
            {
                "way": way,
                "in_d": slope({d: t for (n, d), t in times.items() if n == widest}),
                "at_n": widest,
                "claimed_in_d": in_d,
                "in_n": slope({n: t for (n, d), t in times.items() if d == middle}),
                "at_d": middle,
                "claimed_in_n": in_n,
                "source": source,
            }
        )
    return fits
