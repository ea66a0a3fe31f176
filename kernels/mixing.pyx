# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Mixtures of rows, each a weight times the sum of some rows, and coordinate-wise rules over them."""

from horovod_byz.kernels.dispatch cimport (HB_MEAN_AROUND_MEDIAN, HB_MEDIAN, HB_PHOCAS, HB_SIGN_MAJORITY,
                                           HB_TRIMMED_MEAN)
from horovod_byz.kernels.rows cimport Rows, check, checked_array, checked_output, checked_rows, checked_threads

import operator

import numpy as np

include "generated/mixing.pxi"

_RULES = {
    "median": HB_MEDIAN,
    "trimmed_mean": HB_TRIMMED_MEAN,
    "mean_around_median": HB_MEAN_AROUND_MEDIAN,
    "sign_majority": HB_SIGN_MAJORITY,
    "phocas": HB_PHOCAS,
}


cdef class Mixing:
    """Mixtures of n rows: y_i = w_i sum_j x_j over some rows j.

    Args:
        weights: shape (k, n), float64, finite; the weights of a mixture that are not 0 are equal.

    Raises:
        TypeError, ValueError: if they do not fit.
    """

    cdef readonly Py_ssize_t n, k
    cdef list active
    cdef object weight, subset

    def __init__(self, weights: object) -> None:
        if not isinstance(weights, np.ndarray) or weights.dtype != np.float64 or weights.ndim != 2:
            raise TypeError("weights must be a float64 array of shape (k, n)")
        if not weights.size or not self.fits(weights):
            raise ValueError("the weights of each mixture must be finite, and equal where they are not 0")
        self.k, self.n = weights.shape
        self.active = np.flatnonzero(weights.any(axis=0)).tolist() or [0]
        taken = weights[:, self.active] != 0
        groups = -(-len(self.active) // 4)
        bits = np.zeros((self.k, groups, 4), np.uint8)
        bits.reshape(self.k, -1)[:, :len(self.active)] = taken
        self.subset = np.ascontiguousarray((bits @ np.array([1, 2, 4, 8], np.uint8)).T)
        self.weight = np.ascontiguousarray(weights[np.arange(self.k), np.abs(weights).argmax(axis=1)])

    @staticmethod
    def fits(weights: object) -> bool:
        """Whether the weights of each mixture, shape (k, n), are finite, and equal where they are not 0."""
        largest = weights[np.arange(len(weights)), np.abs(weights).argmax(axis=1)]
        return bool(np.isfinite(weights).all() and ((weights == 0) | (weights == largest[:, None])).all())

    cdef Rows read(self, object rows):
        cdef Rows source = checked_rows(rows)
        if source.n != self.n:
            raise ValueError(f"rows must be the {self.n} that are mixed, got {source.n}")
        return source.take(self.active)

    def mixtures(self, rows: Rows, out: object, threads: int = 1) -> None:
        """Writes the mixtures.

        A row that is in no mixture is not read. The rows are added in their own type, in an order that depends
        on the weights only. A result that is not finite is written as 0.

        Args:
            rows: n rows of d values.
            out: shape (k, d), dtype of the rows, contiguous and writable.
            threads: how many at most; no effect on the result.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing was written.
        """
        cdef Rows source = self.read(rows)
        cdef int team = checked_threads(threads), status
        cdef const double[::1] weight = self.weight
        cdef const unsigned char[:, ::1] subset = self.subset
        cdef void *to = NULL
        checked_array(out, "out", 2)
        if out.shape != (self.k, source.d) or not out.flags.c_contiguous:
            raise ValueError(f"out must be contiguous, of shape ({self.k}, {source.d}), got {out.shape}")
        for mixture in out:
            checked_output(source, mixture)
        to = checked_output(source, out[0])
        with nogil:
            status = mixed_of(source, self.k, &weight[0], &subset[0, 0], to, team)
        check(status)

    def rule(self, rows: Rows, rule: tuple, out: object, threads: int = 1) -> None:
        """Writes a coordinate-wise rule over the mixtures, with the bits that it has on `mixtures`.

        Args:
            rows: n rows of d values.
            rule: (name, f) of a rule of `coordinate`; f is 0 for a rule that drops nothing.
            out: shape (d,), dtype of the rows, contiguous and writable.
            threads: how many at most; no effect on the result.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing was written.
        """
        name, dropped = rule
        if name not in _RULES:
            raise ValueError(f"rule must be one of {', '.join(_RULES)}, got {name!r}")
        cdef Rows source = self.read(rows)
        cdef int team = checked_threads(threads), status, which = _RULES[name]
        cdef Py_ssize_t f = operator.index(dropped), trimmed = (self.k - 1) // 2
        most = {"trimmed_mean": trimmed, "phocas": trimmed, "mean_around_median": self.k - 1}.get(name, 0)
        if not 0 <= f <= most:
            raise ValueError(f"{name} of {self.k} mixtures needs 0 <= f <= {most}, got f = {f}")
        cdef const double[::1] weight = self.weight
        cdef const unsigned char[:, ::1] subset = self.subset
        cdef void *to = checked_output(source, out)
        with nogil:
            status = mixed_rule_of(source, self.k, &weight[0], &subset[0, 0], which, f, to, team)
        check(status)
