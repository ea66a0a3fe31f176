# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Equality of rows, bit for bit: replicas of one computation agree exactly, or at least one is wrong.

+0 and -0 differ; a NaN equals a NaN of the same bits.
"""

from horovod_byz.kernels.dispatch cimport (HB_MEAN, HB_MEAN_AROUND_MEDIAN, HB_MEDIAN, HB_PHOCAS, HB_SIGN_MAJORITY,
                                           HB_TRIMMED_MEAN, HB_UNDECIDED, HB_VOTE, HbStage)
from horovod_byz.kernels.rows cimport Rows, check, checked_output, checked_rows, checked_threads

import operator

import numpy as np

include "generated/vote.pxi"


cdef object equal_to(object rows, object threads):
    """For each row the lowest row that equals it, int64 of shape (n,)."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    lowest = np.empty(source.n, dtype=np.intp)
    cdef Py_ssize_t[::1] to = lowest
    with nogil:
        status = classes(<const void *const *>source.pointers, source.n,
                         source.d * (8 if source.is_double else 4),
                         &to[0], team)
    check(status)
    return lowest


def mismatches(rows: Rows, threads: int = 1) -> np.ndarray:
    """Finds the pairs of rows that differ in some bit; results of several column ranges combine by `or`.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        bool of shape (n, n), symmetric.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    lowest = equal_to(rows, threads)
    return lowest[:, None] != lowest[None, :]


def majority(rows: Rows, threads: int = 1) -> int:
    """The lowest row whose bits more than n / 2 rows share, or -1 if no such row exists.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        Row index, or -1.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    lowest = equal_to(rows, threads)
    counts = np.bincount(lowest)
    best = int(counts.argmax())
    return best if 2 * int(counts[best]) > len(lowest) else -1


_RULES = {
    "mean": HB_MEAN,
    "median": HB_MEDIAN,
    "trimmed_mean": HB_TRIMMED_MEAN,
    "mean_around_median": HB_MEAN_AROUND_MEDIAN,
    "sign_majority": HB_SIGN_MAJORITY,
    "phocas": HB_PHOCAS,
}


cdef object disjoint(object groups, Py_ssize_t n, bint cover):
    """Starts (one more than groups) and members of groups; checks that each of n rows is in one group, or at most one."""
    sizes = [len(group) for group in groups]
    members = np.array([operator.index(i) for group in groups for i in group], dtype=np.intp)
    distinct = set(members.tolist())
    if not sizes or 0 in sizes or len(distinct) < len(members) or (cover and len(distinct) < n):
        raise ValueError(f"groups must hold each of 0 .. {n - 1} {'' if cover else 'at most '}once and not be empty, "
                         f"got {groups}")
    if not distinct.issubset(range(n)):
        raise IndexError(f"groups must hold indices in [0, {n}), got {groups}")
    return np.array([0, *np.cumsum(sizes)], dtype=np.intp), members


cdef int check_rule(object rule, object sizes, str what) except -1:
    name, f = rule
    if name not in _RULES:
        raise ValueError(f"{what} must be one of {', '.join(_RULES)}, got {name!r}")
    half = (min(sizes) - 1) // 2
    most = {"trimmed_mean": half, "phocas": half, "mean_around_median": min(sizes) - 1}.get(name, 0)
    if not 0 <= operator.index(f) <= most:
        raise ValueError(f"{what} {name} of {min(sizes)} rows needs 0 <= f <= {most}, got f = {f}")
    return 0


def equal(rows: Rows, groups: object, lazy: bool = False, threads: int = 1) -> np.ndarray:
    """Finds the equal rows of each group, all groups in one pass.

    Args:
        rows: n rows of d values.
        groups: redundancy groups; no row is in two of them.
        lazy: whether replicas beyond a majority that agrees are left unread (of three, the third).
        threads: how many at most; no effect on the result.

    Returns:
        For each row the first row of its group that equals it, -1 where it was not read
        or is in no group; int64 of shape (n,).

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status, hasty = bool(lazy)
    cdef HbStage stages[3]
    first, member = disjoint(groups, source.n, False)
    # -1 from the start: the kernel writes the members of groups only.
    lowest = np.full(source.n, -1, dtype=np.intp)
    cdef Py_ssize_t[::1] starts = first, members = member, found = lowest
    stages[0] = HbStage(HB_VOTE, 0, len(groups), &starts[0], &members[0])
    # `out` is NULL below, so the kernel votes only and never reads these two.
    stages[1] = HbStage(HB_MEAN, 0, 0, NULL, NULL)
    stages[2] = HbStage(HB_MEAN, 0, 0, NULL, NULL)
    with nogil:
        status = voted_of(source, stages, hasty, NULL, &found[0], team)
    check(status)
    return lowest


def voted(rows: Rows, groups: object, inner: object, parts: object, outer: object, out: object,
          lazy: bool = False, threads: int = 1) -> np.ndarray | None:
    """Writes DETOX's result in one pass: vote in groups, `inner` in each part of the votes, `outer` over the parts.

    Args:
        rows: n rows of d values.
        groups: redundancy groups, a partition of the rows; the first of equal rows stands for its group.
        inner: `(name, f)` of a rule inside each part: "mean", "median", "trimmed_mean", "mean_around_median"
            or "sign_majority"; f is 0 where the rule has none.
        parts: a partition of the votes.
        outer: the same, over the parts' results.
        out: shape (d,), dtype of the rows, contiguous and writable.
        lazy: whether replicas beyond a majority that agrees are left unread (of three, the third).
        threads: how many at most; no effect on the result.

    Returns:
        For each row the first row of its group that equals it, -1 where it was not read; int64 of shape (n,).
        None where a group has no majority, or a mean would take in a non-finite value: then `out` holds nothing of use.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status, hasty = bool(lazy)
    cdef void *to = checked_output(source, out)
    cdef HbStage stages[3]
    first, member = disjoint(groups, source.n, True)
    begin, vote = disjoint(parts, len(groups), True)
    check_rule(inner, np.diff(begin).tolist(), "inner")
    check_rule(outer, [len(parts)], "outer")
    lowest = np.empty(source.n, dtype=np.intp)
    cdef Py_ssize_t[::1] starts = first, members = member, begins = begin, votes = vote, found = lowest
    stages[0] = HbStage(HB_VOTE, 0, len(groups), &starts[0], &members[0])
    stages[1] = HbStage(_RULES[inner[0]], inner[1], len(parts), &begins[0], &votes[0])
    stages[2] = HbStage(_RULES[outer[0]], outer[1], 1, NULL, NULL)
    with nogil:
        status = voted_of(source, stages, hasty, to, &found[0], team)
    if status == HB_UNDECIDED:  # not an error: the caller measures and decides in separate passes
        return None
    check(status)
    return lowest
