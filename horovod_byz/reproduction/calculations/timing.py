"""Time of the rules: against n and d, and at DETOX's true size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import horovod_byz as hb
from horovod_byz.aggregation import engine
from horovod_byz.rules import Detox, Rule
from horovod_byz.training import models

RESNET18 = 11_173_962
_ROUNDS = 5


def complexity() -> dict[str, Any]:
    """Slopes of log time against log n and log d, and DETOX's aggregation against the vanilla rules'."""
    values: dict[str, Any] = {}
    sizes = (20, 40, 80, 160, 320)
    times = [_rule_seconds(hb.Krum(f=n // 4), _rows(n, 100_000)) for n in sizes]
    values["Krum: slope of log time against log n"] = _slope(sizes, times)
    lengths = (200_000, 400_000, 800_000, 1_600_000)
    rules: list[Rule] = [hb.Median(), hb.MeanAroundMedian(f=6), hb.BrSGD(), hb.Krum(f=6)]
    for rule in rules:
        name = type(rule).__name__
        times = [_rule_seconds(rule, _rows(20, d)) for d in lengths]
        values[f"{name}: slope of log time against log d"] = _slope(lengths, times)
    return {**values, **_against_detox(2_000_000)}


def runtime() -> dict[str, Any]:
    """Seconds of one step at p = 45 and ResNet-18's d, split into compute and aggregation.

    Compute is one worker's forward and backward pass on one core, at 32 images and at 96. The time on the
    network depends on the cluster: here only the number of bytes that a worker sends is known.
    """
    values: dict[str, Any] = {"d": RESNET18}
    model = models.build("resnet18", (3, 32, 32), 10)
    for batch, kind in ((32, "vanilla"), (96, "DETOX")):
        values[f"compute: one worker's gradient, {batch} images ({kind}), s"] = _gradient(model, batch)
    values["communication: bytes that a worker sends, vanilla and DETOX alike"] = 4 * RESNET18
    values |= _against_detox(RESNET18, rounds=2)
    return {**values, **iterations(values), **numpy_aggregation()}


def iterations(values: Mapping[str, Any]) -> dict[str, Any]:
    """A step without the network: a worker's gradient and the aggregation, vanilla over DETOX."""
    compute = {
        kind: value for name, value in values.items() for kind in ("vanilla", "DETOX") if f"({kind})" in name
    }
    ratios = {}
    for rule in ("Median", "Multi-Krum", "Bulyan"):
        vanilla = compute["vanilla"] + values[f"aggregation: {rule}, s"]
        ratios[rule] = vanilla / (compute["DETOX"] + values[f"aggregation: D-{rule}, s"])
    return {
        "compute: DETOX over vanilla": compute["DETOX"] / compute["vanilla"],
        **{f"step without network: {rule} over D-{rule}": ratio for rule, ratio in ratios.items()},
        "step without network: largest ratio": max(ratios.values()),
    }


def numpy_aggregation(d: int = 1_000_000) -> dict[str, Any]:
    """Median and D-Median of 45 rows as a server written in NumPy, as the public code is, computes them."""
    rows = _rows(45, d)
    rows = np.repeat(rows[:15], 3, axis=0)

    def vanilla() -> object:
        return np.median(rows, axis=0)

    def detox() -> object:
        votes = []
        for begin in range(0, 45, 3):
            first, second, third = rows[begin : begin + 3]
            votes.append(first if (first == second).all() or (first == third).all() else second)
        groups = np.array(votes).reshape(5, 3, d).mean(axis=1)
        return np.median(groups, axis=0)

    times = {"Median": _seconds(vanilla, 3), "D-Median": _seconds(detox, 3)}
    named = {f"aggregation in NumPy, 1e6 coordinates: {name}, s": value for name, value in times.items()}
    return {**named, "aggregation in NumPy: Median over D-Median": times["Median"] / times["D-Median"]}


def _against_detox(d: int, rounds: int = 3) -> dict[str, Any]:
    """Aggregation seconds at p = 45, q = 5, r = 3; each group's three rows are equal, as honest ones are."""
    redundancy = hb.Redundancy(r=3)
    pairs: dict[str, tuple[Rule, str]] = {
        "Median": (hb.Median(), "median"),
        "Multi-Krum": (hb.MultiKrum(f=5), "multi-krum"),
        "Bulyan": (hb.Bulyan(f=5), "bulyan"),
    }
    rows = _rows(45, d)
    for group in redundancy.groups_of(45):
        rows[list(group)] = rows[group[0]]
    values: dict[str, Any] = {}
    for name, (rule, preset) in pairs.items():
        detox = Detox.preset(preset, redundancy, 45, 5)
        vanilla = _rule_seconds(rule, rows, rounds)
        ours = _rule_seconds(detox, rows, rounds)
        values[f"aggregation: {name}, s"] = vanilla
        values[f"aggregation: D-{name}, s"] = ours
        values[f"aggregation: D-{name} over {name}"] = ours / vanilla
    return values


def _gradient(model: torch.nn.Module, batch: int) -> float:
    images = torch.from_numpy(_rows(batch, 3 * 32 * 32)).view(batch, 3, 32, 32)
    labels = torch.arange(batch, device="cpu") % 10

    def once() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(once, 2)
    finally:
        torch.set_num_threads(before)


def _rows(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


def _rule_seconds(rule: Rule, rows: np.ndarray, rounds: int = _ROUNDS) -> float:
    return _seconds(lambda: engine.value(rows, rule, threads=1), rounds)


def _seconds(work: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """Least processor time of several calls: what other processes on the machine do counts little."""
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


def _slope(x: tuple[int, ...], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
