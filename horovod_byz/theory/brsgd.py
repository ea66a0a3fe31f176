"""Error bounds of BrSGD (Li, Chen, Dong, Zhang, Wang, Zeng 2021).

Legend: m workers with n samples each (the paper's letters here, since its formulas use both), alpha the
Byzantine fraction, d coordinates, D the diameter of the parameter space, L, G, lambda the Lipschitz,
smoothness and convexity constants, v the sub-exponential constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from horovod_byz.theory import checks


def paper_deviation(t: float, s: float, beta: float) -> float:
    """Returns t + 3 beta s, the paper's bound on |aggregate - mu|.

    Its proof divides by |C| where it needs |C| >= (1 - alpha) m, so it is printed and never relied on; see
    `safe_deviation`.

    Reference:
        Lemma 1, equation (3).
    """
    return t + 3 * beta * s


def safe_deviation(s: float, alpha: float) -> float:
    """Returns 3 s, which does bound |aggregate - mu| in one dimension where the threshold is s.

    With alpha < 1/2 the median lies within s of mu; a row that passes |g - median| <= 2 s lies within 3 s of
    mu; so does every mean of such rows.

    Args:
        s: max |g - mu| over the honest workers, and the threshold of Constraint 1.
        alpha: Byzantine fraction.

    Raises:
        ValueError: if alpha >= 1/2, where nothing can be said.
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"the bound needs 0 <= alpha < 1/2, got {alpha}: an honest majority")
    return 3 * s


def contraction(smoothness: float, convexity: float, steps: int = 1) -> float:
    """Returns (1 - lambda / (G + lambda))^steps, the factor on the initial distance. Reference: Theorem 1."""
    checks.positive(smoothness, "smoothness")
    checks.positive(convexity, "convexity")
    return (1 - convexity / (smoothness + convexity)) ** steps


def mean_deviation(n: int, m: int, d: int, lipschitz: float, diameter: float, v: float = 1.0) -> float:
    """Returns t = v max(x, sqrt(x)) with x = 8 d / (n m) ln(1 + n m L D). Reference: proof of Theorem 1."""
    x = 8 * d / (n * m) * math.log1p(n * m * lipschitz * diameter)
    return v * max(x, math.sqrt(x))


def worker_deviation(
    n: int,
    m: int,
    d: int,
    lipschitz: float,
    diameter: float,
    v: float = 1.0,
    reading: Literal["sum", "product"] = "sum",
) -> float:
    """Returns s = v max(x, sqrt(y)), the deviation of the worst honest worker.

        x = 4 / n (d ln(1 + n m L D) + ln m)

    Args:
        n: as in the module's legend.
        m: as in the module's legend.
        d: as in the module's legend.
        lipschitz: as in the module's legend.
        diameter: as in the module's legend.
        v: as in the module's legend.
        reading: the paper prints y = 4 / n (d ln(1 + n m L D) ln m) ("product") under the root, where its
            first entry has + ln m; "sum" takes y = x.

    Reference:
        proof of Theorem 1.
    """
    union, workers = d * math.log1p(n * m * lipschitz * diameter), math.log(m)
    x = 4 / n * (union + workers)
    y = x if reading == "sum" else 4 / n * union * workers
    return v * max(x, math.sqrt(y))


def confidence(n: int, m: int, d: int, lipschitz: float, diameter: float) -> float:
    """Returns 1 - 4 d / (1 + n m L D)^d, the probability with which Theorem 1 holds."""
    return 1 - 4 * d * math.exp(-d * math.log1p(n * m * lipschitz * diameter))


@dataclass(frozen=True)
class Rates:
    """Rates up to logarithms: the theorem's, and the lower bound that the paper compares it with.

    Attributes:
        proved: 1 / sqrt(n) + 1 / sqrt(n m).
        lower_bound: alpha / sqrt(n) + 1 / sqrt(n m) (Yin et al. 2018); smaller by far for small alpha.
    """

    proved: float
    lower_bound: float


def rates(n: int, m: int, alpha: float) -> Rates:
    """Returns the statistical rate of Theorem 1 and the lower bound beside it."""
    pooled = 1 / math.sqrt(n * m)
    return Rates(1 / math.sqrt(n) + pooled, alpha / math.sqrt(n) + pooled)


def final_error(initial: float, delta: float, smoothness: float, convexity: float, steps: int) -> float:
    """Returns contraction^steps * initial + 2 delta / lambda, bounding |w_T - w*|. Reference: Theorem 1."""
    return contraction(smoothness, convexity, steps) * initial + 2 / convexity * delta
