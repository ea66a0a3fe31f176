"""The cyclic code of DRACO over the real numbers: coefficients, parity checks, and location of liars.

Legend: n workers and n batches, f Byzantine workers, r = 2f + 1 replicas; worker i computes the batches
whose column of the coefficients B has an entry in row i, and sends sum_k B[i, k] g_k. The parity checks H,
(2f, n), meet H B = 0, so that H times the rows shows only what was added to them: the syndrome.

The paper's code is complex, its rows as long as two gradients. This one is real, of the same distance: the
2f parity frequencies lie symmetrically about the Nyquist frequency, where the discrete Fourier transform
of a real row is its own mirror image. That needs an odd number of positions N, so an even n leaves the last
of N = n + 1 positions empty. Every column of B adds up to 1: with no row erased, the decoded gradient is
the plain mean of the rows, which magnifies rounding errors the least.

Reference:
    Chen, Wang, Charles, Papailiopoulos (2018), DRACO: Byzantine-resilient Distributed Training via
    Redundant Gradients, section 4.2; Reed and Solomon (1960) over the roots of unity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.source import Floats

# Relative rounding error of the statistics of a pass: two float64 sums of squares are subtracted.
_ROUNDING = 1e-14


@lru_cache(maxsize=64)
def _sines(steps: int) -> tuple[float, ...]:
    """sin(pi k / (2 steps)) for k in 0 .. 4 steps - 1, correctly rounded.

    Not math.sin or numpy's: their last bit depends on the processor, and all ranks need the same weights.
    """
    with localcontext() as context:
        context.prec = 40
        pi = Decimal("3.141592653589793238462643383279502884197")
        quarter = []
        for k in range(steps + 1):
            x = pi * k / (2 * steps)
            term = total = x
            for j in itertools.count(1):
                term *= -x * x / ((2 * j) * (2 * j + 1))
                if abs(term) < Decimal("1e-38"):
                    break
                total += term
            quarter.append(float(total))
    half = quarter + quarter[-2:0:-1]
    return tuple(half + [-value for value in half])


def _positions(n: int) -> int:
    return n | 1


@lru_cache(maxsize=16)
def coefficients(n: int, f: int) -> Floats:
    """B, (n, n) read-only: worker i sends sum_k B[i, k] g_k; entry (i, k) is zero unless i computes batch k.

    Column k is the one code word whose entries lie at the 2f + 1 workers k, k + 1, ... (modulo n). All are
    positive for an odd n: by the q-binomial theorem they are products of sines.
    """
    total = _positions(n)
    sines = _sines(total)
    code = np.zeros((n, n))
    for k in range(n):
        window = [i if i < n else i - n + total for i in range(k, k + 2 * f + 1)]
        raw = [
            (-1) ** at / math.prod(_sine(sines, 2 * (at - other)) for other in window if other != at)
            for at in window
        ]
        scale = math.fsum(raw)
        for at, value in zip(window, raw, strict=True):
            code[at % total, k] = value / scale
    code.setflags(write=False)
    return code


@lru_cache(maxsize=16)
def parity(n: int, f: int) -> Floats:
    """H, (2f, n) read-only, entries at most 1: rows m and f + m are the cosine and sine of a frequency."""
    total = _positions(n)
    sines = _sines(total)
    checks = np.empty((2 * f, n))
    for m, at in itertools.product(range(f), range(n)):
        angle = 2 * (2 * m + 1) * at
        checks[m, at] = (-1) ** at * _sine(sines, angle + total)
        checks[f + m, at] = (-1) ** at * _sine(sines, angle)
    checks.setflags(write=False)
    return checks


def _sine(sines: tuple[float, ...], k: int) -> float:
    return sines[k % len(sines)]


def checks_without(n: int, f: int, erased: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Parity checks that do not depend on the erased rows.

    Returns:
        V, (2f, 2f - e), an orthonormal basis of the complement of the erased columns of H; and V^T H,
        (2f - e, n), zero at the erased rows. By Householder reflections, with exact or element-wise sums.
    """
    checks = parity(n, f)
    basis = np.eye(2 * f)
    for step, row in enumerate(erased):
        column = checks[:, row].tolist()
        x = np.array([_dot(direction, column) for direction in basis.T[step:].tolist()])
        # Away from zero, as in every Householder reflection: the sum must not cancel.
        x[0] += math.copysign(math.sqrt(_dot(x.tolist(), x.tolist())), x[0])
        x /= math.sqrt(_dot(x.tolist(), x.tolist()))
        along = np.array([_dot(direction, x.tolist()) for direction in basis[:, step:].tolist()])
        basis[:, step:] -= 2.0 * np.multiply.outer(along, x)
    rest = basis[:, len(erased) :]
    without = np.zeros((rest.shape[1], n))
    for factor, check in zip(rest, checks, strict=True):
        without += np.multiply.outer(factor, check)
    without[:, list(erased)] = 0.0
    return rest, without


def recovery(n: int, f: int, erased: tuple[int, ...]) -> Floats:
    """The weights of the rows, (n,), that give the mean of the n batches without the erased rows.

    u = (1 - H^T y) / n with the shortest y that makes u zero where a row is erased; B^T u = 1 / n holds for
    every y. Sums are exact (fsum), so the bits depend on nothing but the arguments.
    """
    checks = parity(n, f)
    basis: list[list[float]] = []
    lower: list[list[float]] = []
    for row in erased:
        column = [float(value) for value in checks[:, row]]
        factors = [0.0] * len(basis)
        for _ in range(2):  # twice is enough: Gram-Schmidt to full precision
            for j, direction in enumerate(basis):
                factor = _dot(direction, column)
                factors[j] += factor
                column = [c - factor * x for c, x in zip(column, direction, strict=True)]
        length = math.sqrt(_dot(column, column))
        basis.append([c / length for c in column])
        lower.append([*factors, length])
    z: list[float] = []
    for entries in lower:
        z.append((1.0 - math.fsum(a * b for a, b in zip(entries[:-1], z, strict=True))) / entries[-1])
    y = [math.fsum(factor * d[p] for factor, d in zip(z, basis, strict=True)) for p in range(2 * f)]
    weights = np.array([(1.0 - _dot(checks[:, i].tolist(), y)) / n for i in range(n)])
    weights[list(erased)] = 0.0
    return weights


def _dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def amplification(n: int, f: int) -> float:
    """The largest sum_i |u_i| for f neighbouring erased workers: the factor on rounding errors.

    Neighbours are the worst known set; the tests try others.
    """
    starts = range(1 if n % 2 else n)  # an even code is not symmetric at its empty position
    runs = [tuple(sorted((start + i) % n for i in range(f))) for start in starts]
    return max(1.0, *(float(np.abs(recovery(n, f, run)).sum()) for run in runs))


def separation(n: int, f: int) -> float:
    """The least singular value of H on 2f neighbouring workers, relative to the largest.

    Two sets of f liars whose rows differ from honest ones by a relative error x can be distinguished where
    x is over the tolerance divided by this number; for 45 workers it is 1e-4 with f = 2 and 3e-8 with f = 5.
    """
    values = np.linalg.svd(parity(n, f)[:, : 2 * f], compute_uv=False)
    return float(values[-1] / values[0])


def locate(gram: Floats, n: int, f: int, erased: tuple[int, ...], limit: float) -> tuple[int, ...] | None:
    """The fewest rows, besides the erased ones, that explain the syndrome.

    A polynomial with roots at the liars' positions annihilates the syndrome of every coordinate (Prony's
    method); this one does so best over all coordinates at once, from their inner products. So no error can
    hide. A random projection of the rows would allow that: a worker that knows the random numbers can send an
    error orthogonal to them.

    Args:
        gram: inner products of the 2f rows of the syndrome, (2f, 2f), without its part along the erased rows.
        n, f: the code.
        erased: rows that are certainly wrong.
        limit: squared length of the syndrome from rounding alone.

    Returns:
        The rows: empty if the syndrome is rounding only; None if f rows cannot explain it.
    """
    checks = parity(n, f)
    total = max(float(np.trace(gram)), 0.0)
    if _unexplained(gram, checks, erased) <= limit:
        return ()
    enough = max(limit, _ROUNDING * total)
    candidates = []
    for rows in _prony(gram, n, f, erased):
        if _unexplained(gram, checks, erased + rows) <= enough:
            return rows
        candidates.append(rows)
    for rows in candidates:
        better = _exchange(gram, checks, erased, rows)
        if _unexplained(gram, checks, erased + better) <= enough:
            return better
    return None


def _unexplained(gram: Floats, checks: Floats, rows: tuple[int, ...]) -> float:
    """The squared length of the part of the syndrome that errors in `rows` cannot have caused."""
    if not rows:
        return float(np.trace(gram))
    basis = np.linalg.qr(checks[:, list(rows)])[0]
    rest = np.eye(len(gram)) - basis @ basis.T
    return float(np.trace(rest @ gram @ rest))


def _prony(gram: Floats, n: int, f: int, erased: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """For each number of liars, from 1 on, the rows at which their polynomial is smallest."""
    nodes = np.exp(2j * np.pi * np.arange(n) / _positions(n))
    # Real rows to consecutive frequencies -(f - 1/2) .. f - 1/2 about the Nyquist frequency.
    upper = np.hstack([np.eye(f), 1j * np.eye(f)])
    sequence = np.vstack([upper[::-1].conj(), upper])
    for row in erased:  # x_{p + 1} - z x_p is free of a term z^p
        sequence = sequence[1:] - nodes[row] * sequence[:-1]
    inner = sequence @ gram @ sequence.conj().T
    for width, smooth in enumerate(_smoothed(inner, f - len(erased)), start=1):
        polynomial = np.linalg.eigh(np.conj(smooth))[1][:, 0]
        size: npt.NDArray[np.float64] = np.abs(np.polyval(polynomial[::-1], nodes))
        size[list(erased)] = np.inf
        yield tuple(sorted(int(i) for i in np.argsort(size, kind="stable")[:width]))


def _smoothed(inner: npt.NDArray[Any], widest: int) -> list[npt.NDArray[Any]]:
    """For each width from 1 on, the sum of all blocks of width + 1 on the diagonal.

    A width has the blocks of the next, each without its last line, and one more at the end.
    """
    size = len(inner)
    total = inner[: widest + 1, : widest + 1].copy()
    for at in range(1, size - widest):
        total += inner[at : at + widest + 1, at : at + widest + 1]
    sums = [total] if widest else []
    for width in range(widest, 1, -1):
        at = size - width
        total = total[:width, :width] + inner[at : at + width, at : at + width]
        sums.append(total)
    return sums[::-1]


def _exchange(
    gram: Floats, checks: Floats, erased: tuple[int, ...], rows: tuple[int, ...]
) -> tuple[int, ...]:
    """Exchanges one row at a time as long as that explains more of the syndrome."""
    best, least = rows, _unexplained(gram, checks, erased + rows)
    while True:
        better = next(_halved(gram, checks, erased, best, least), None)
        if better is None:
            return best
        best, least = better


def _halved(
    gram: Floats, checks: Floats, erased: tuple[int, ...], rows: tuple[int, ...], least: float
) -> Iterator[tuple[tuple[int, ...], float]]:
    """The exchanges of one row that leave less than half as much unexplained, and how much each leaves."""
    estimates = _exchanged(gram, checks, erased, rows)
    enough = 0.5 * least + _ROUNDING * float(np.trace(gram))
    for out, into in np.argwhere(~(estimates > enough)).tolist():
        if into in rows or into in erased:
            continue
        trial = tuple(sorted({*rows, into} - {rows[out]}))
        left = _unexplained(gram, checks, erased + trial)
        if left < 0.5 * least:
            yield trial, left


def _exchanged(gram: Floats, checks: Floats, erased: tuple[int, ...], rows: tuple[int, ...]) -> Floats:
    """About how much is unexplained with a row k of `rows` exchanged for row j; (len(rows), n).

    Every exchange from one factorisation. Without row k the span loses its direction q_k orthogonal to the
    others. With r_j for row j's part outside the span, that outside of what is left is r_j + q_k (q_k . h_j).
    """
    basis, upper = np.linalg.qr(checks[:, list(erased + rows)])
    dual = basis @ np.linalg.pinv(upper).T
    q = (dual / np.sqrt((dual**2).sum(axis=0)))[:, len(erased) :]
    rest = np.eye(len(gram)) - basis @ basis.T
    r = rest @ (rest @ checks)  # twice is enough: beside its neighbours little is left of a row
    along, product = q.T @ checks, gram @ r
    own = ((gram @ q) * q).sum(axis=0)[:, None]
    explained = (r * product).sum(axis=0) + 2 * along * (q.T @ product) + along**2 * own
    squares = (r**2).sum(axis=0) + along**2
    estimates: Floats = np.trace(rest @ gram @ rest) + own - explained / np.where(squares > 0, squares, 1.0)
    return estimates
