"""The timed functions: the yardsticks, our kernels and rules, and the same in NumPy or torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from horovod_byz import rules
from horovod_byz.aggregation import engine
from horovod_byz.aggregation.arena import empty_rows
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Whole
from horovod_byz.bench.clock import MEAN, READ, Way
from horovod_byz.kernels import brsgd, coordinate, dispatch, distances, linear, scan, vote
from horovod_byz.kernels.rows import Rows
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Rule, StatedRule

Array = npt.NDArray[Any]


def matrix(n: int, d: int, dtype: str) -> Array:
    """Random rows in memory from `empty_rows`."""
    rng, rows = np.random.default_rng(0), empty_rows(n, d, dtype)
    part = np.empty(d, dtype)
    for row in rows:
        rng.random(dtype=part.dtype.type, out=part)
        np.subtract(part, 0.5, out=row)
    return rows


def replicas(rows: Array, r: int) -> Array:
    """A matrix of the same shape in which the first of each r consecutive rows stands r times."""
    copies = empty_rows(rows.shape[0], rows.shape[1], rows.dtype)
    for i in range(len(rows)):
        copies[i] = rows[i // r * r]
    return copies


def largest_f(rule: type[StatedRule], n: int) -> Rule | None:
    """The rule with the largest f that it tolerates among n rows, or None."""
    try:
        return rule()
    except TypeError:  # f has no default
        f = rule.condition.largest_f(n)
        return rule(f=f) if f >= 0 else None


def kernels(rows: Array, threads: int) -> dict[str, Way]:
    """The yardsticks and our kernels and rules, as functions over the rows."""
    n, d = rows.shape
    source, tensor, out = Rows(rows), torch.from_numpy(rows), np.zeros(d, rows.dtype)
    into = torch.from_numpy(np.zeros(d, rows.dtype))
    f, equal = (n - 1) // 4, np.full(n, 1 / n)
    ways: dict[str, Way] = {
        READ: lambda: scan.checksum(source, threads),
        MEAN: lambda: tensor.mean(0),
        "torch.mean(0, out)": lambda: torch.mean(tensor, 0, out=into),
        "mean": lambda: linear.weighted_sum(source, equal, out, threads),
        "median": lambda: coordinate.median(source, out, threads),
        "trimmed mean": lambda: coordinate.trimmed_mean(source, out, f, threads),
        "mean around median": lambda: coordinate.mean_around_median(source, out, f, threads),
        "sign majority": lambda: coordinate.sign_majority(source, out, threads),
        "BrSGD statistics": lambda: brsgd.statistics(source, threads),
        "squared distances": lambda: distances.squared(source, threads),
    }

    ways["median, in cache"] = _in_cache(source, out, threads)
    if rows.dtype == np.float32:
        halves = [row.view(torch.int16).numpy().view(np.uint16) for row in tensor.to(torch.bfloat16)]
        if coordinate.median_half([row[:1] for row in halves], out[:1], True):
            ways["median, bfloat16"] = lambda: coordinate.median_half(halves, out, True, threads)

    def aggregate(rule: Rule, given: Rows) -> Way:
        return lambda: engine.into(out, Whole(given), rule, Shard(given.d, threads=threads))

    for name, kind in (
        ("BrSGD", rules.BrSGD),
        ("Multi-Krum", rules.MultiKrum),
        ("Bulyan", rules.Bulyan),
        ("geometric median", rules.GeometricMedian),
    ):
        rule = largest_f(kind, n)
        if rule is not None:
            ways[name] = aggregate(rule, source)
    if n % 3 == 0:
        copies = Rows(replicas(rows, 3))
        groups = tuple(tuple(range(i, i + 3)) for i in range(0, n, 3))
        ways["vote"] = lambda: vote.equal(copies, groups, lazy=True, threads=threads)
        redundancy = Redundancy(r=3, groups=groups)
        ways["DETOX, median"] = aggregate(rules.Detox(redundancy, rules.Median(), rules.Mean()), copies)
        if n >= 15:
            five = rules.Detox(redundancy, rules.Mean(), rules.Median(), groups=5)
            ways["DETOX, 5 means, median"] = aggregate(five, copies)
    if dispatch.level() == "avx512":
        ways["median, avx2"] = _at("avx2", ways["median"])
    return ways


def _in_cache(source: Rows, out: Array, threads: int) -> Way:
    """The median of as many columns, but of those that a cache holds, again and again: its arithmetic."""
    width = max(1, min(source.d, (512 << 10) // (source.n * out.itemsize)))
    part, to = source.block(0, width), out[:width]

    def run() -> None:
        for _ in range(source.d // width):
            coordinate.median(part, to, threads)

    return run


def _at(level: str, way: Way) -> Way:
    def run() -> None:
        before = dispatch.level()
        dispatch.use(level)
        try:
            way()
        finally:
            dispatch.use(before)

    return run


def expressions(rows: Array) -> dict[str, Way]:
    """Short expressions in NumPy or torch for the same rules."""
    n, tensor = len(rows), torch.from_numpy(rows)
    f = (n - 1) // 4
    separate: Callable[[], object] = lambda: torch.stack(list(tensor)).mean(0)  # noqa: E731

    def multi_krum() -> torch.Tensor:
        square = torch.cdist(tensor, tensor).square()
        scores = square.sort(1).values[:, 1 : n - f - 1].sum(1)
        return tensor[scores.argsort()[: n - f - 2]].mean(0)

    return {
        "np.median": lambda: np.median(rows, axis=0),
        "torch.median": lambda: tensor.median(0).values,
        "np.partition, median": lambda: np.partition(rows, n // 2, axis=0)[n // 2],
        "torch.sort, trimmed": lambda: tensor.sort(0).values[f : n - f].mean(0),
        "torch.cdist, Multi-Krum": multi_krum,
        "torch.stack, mean": separate,
    }
