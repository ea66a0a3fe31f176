"""Runs in the peers' environment: times byzfl and byzpy on request. See peers.py."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

Ways = dict[str, Callable[[], Any]]


def versions() -> dict[str, str]:
    """The versions of the peers that this interpreter can import, and of its torch; empty without a peer."""
    installed = {}
    for name in ("byzfl", "byzpy"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            installed[name] = importlib.metadata.version(name)
    return {**installed, "torch": torch.__version__} if installed else {}


def byzfl(rows: torch.Tensor, f: int) -> Ways:
    """byzfl's rules on a tensor."""
    import byzfl as peer

    n = len(rows)
    krum = min(f, (n - 3) // 2)
    rules = {
        "median": peer.Median(),
        "trimmed mean": peer.TrMean(f=f),
        "mean around median": peer.Meamed(f=f),
        "Multi-Krum": peer.MultiKrum(f=krum),
        "geometric median": peer.GeometricMedian(),
    }
    return {f"byzfl {name}": partial(rule, rows) for name, rule in rules.items()}


def byzpy(rows: torch.Tensor, f: int) -> Ways:
    """byzpy's rules on a list of tensors, as it takes them."""
    from byzpy.aggregators.coordinate_wise import (
        CoordinateWiseMedian,
        CoordinateWiseTrimmedMean,
        MeanOfMedians,
    )
    from byzpy.aggregators.geometric_wise import GeometricMedian, MultiKrum

    n, given = len(rows), list(rows)
    krum = min(f, (n - 3) // 2)
    rules = {
        "median": CoordinateWiseMedian(),
        "trimmed mean": CoordinateWiseTrimmedMean(f=f),
        "mean around median": MeanOfMedians(f=f),
        "Multi-Krum": MultiKrum(f=krum, q=n - krum - 2),
        "geometric median": GeometricMedian(),
    }
    return {f"byzpy {name}": partial(rule.aggregate, given) for name, rule in rules.items()}


def make(n: int, d: int, present: dict[str, str]) -> Ways:
    """The rules that run over n random rows; each is tried once on a few columns."""
    rows = torch.from_numpy(np.random.default_rng(0).random((n, d), dtype=np.float32) - 0.5)
    ways: Ways = {}
    for name, peer in (("byzfl", byzfl), ("byzpy", byzpy)):
        if name not in present:
            continue
        try:
            small = peer(rows[:, :64].clone(), (n - 1) // 4)
        except (ImportError, TypeError, ValueError) as error:
            print(f"{name} is left out at n = {n}: {error}", file=sys.stderr)
            continue
        whole = peer(rows, (n - 1) // 4)
        for way, run in small.items():
            try:
                run()
            except Exception as error:  # noqa: BLE001  (foreign code: reported, and left out)
                print(f"{way} is left out at n = {n}: {error!r}", file=sys.stderr)
                continue
            ways[way] = whole[way]
    return ways


def main() -> None:
    """Answers one line per command until "quit"."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # else text that a peer prints would be read as an answer
    present = versions()
    ways: Ways = {}
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        answer: Any = None
        if command == "versions":
            answer = present
        elif command == "make":
            n, d = rest.split()
            ways = make(int(n), int(d), present)
            answer = list(ways)
        elif command == "run":
            wall, cpu = time.perf_counter(), time.thread_time()
            ways[rest]()
            answer = {"cpu": time.thread_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps(answer), file=answers, flush=True)
        if command == "quit":
            return


if __name__ == "__main__":
    main()
