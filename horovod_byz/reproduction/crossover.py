"""When redundancy pays in time: aggregation of n rows against a vote and aggregation of n / r votes.

With DETOX every worker computes r times the samples. So a step is shorter where

    (r - 1) * (gradient of one worker's own images)  <  (time of the rule) - (time of vote and rule),

and the right-hand side over r - 1 is the longest gradient with which redundancy still pays in time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.bench.clock import seconds
from horovod_byz.host.environment import describe
from horovod_byz.rules import Detox, Rule
from horovod_byz.training import models
from horovod_byz.training.runs import replace_file

__all__ = ["Crossing", "main", "measure", "pairs", "table"]

N, F = 45, 5
_SHARE = 32  # images of one worker without redundancy, 1440 / 45
_MODELS: tuple[tuple[str, tuple[int, int, int]], ...] = (("lenet", (1, 28, 28)), ("mlp", (1, 28, 28)))


@dataclass(frozen=True)
class Crossing:
    """One pairing beside its vanilla rule.

    Attributes:
        name: of the vanilla rule.
        d: number of coordinates.
        vanilla: seconds that the rule takes on n rows; median over rounds.
        detox: seconds that vote and rules take on them.
        speedup: median over rounds of their ratio.
        pays_below: seconds of gradient computation per worker, without redundancy, below which a step with
            redundancy is shorter; negative where it never is.
    """

    name: str
    d: int
    vanilla: float
    detox: float
    speedup: float
    pays_below: float


def pairs(r: int) -> dict[str, tuple[Rule, Rule]]:
    """The vanilla rules of DETOX's experiments, each beside its pairing, with the full vote and the lazy."""
    redundancy = hb.Redundancy(r)
    pairings: dict[str, tuple[Rule, Detox]] = {
        "Median": (hb.Median(), hb.Detox.preset("median", redundancy, N, F)),
        "Multi-Krum": (hb.MultiKrum(f=F), hb.Detox.preset("multi-krum", redundancy, N, F)),
        "Bulyan": (hb.Bulyan(f=F), hb.Detox.preset("bulyan", redundancy, N, F)),
    }
    lazy = {
        f"{name}, lazy vote": (vanilla, replace(detox, vote=hb.MajorityVote(lazy=True)))
        for name, (vanilla, detox) in pairings.items()
    }
    return {**pairings, **lazy}


def replicated(r: int, d: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n, d) rows, equal within redundancy groups, each in memory of its own."""
    rng = np.random.default_rng(0)
    rows = np.empty((N, d), np.float32)
    for group in hb.Redundancy(r).groups_of(N):
        rows[list(group)] = rng.standard_normal(d, dtype=np.float32)
    return rows


def measure(r: int, d: int, rounds: int, clock: Callable[[Callable[[], object]], float]) -> list[Crossing]:
    """Times every pair once per round, after one round that is not counted.

    Args:
        r: replicas.
        d: number of coordinates.
        rounds: how many.
        clock: seconds that a call takes.
    """
    rows, crossings = replicated(r, d), []
    for name, (vanilla, detox) in pairs(r).items():
        taken = [
            (clock(lambda: vanilla(rows, threads=1)), clock(lambda: detox(rows, threads=1)))  # noqa: B023
            for _ in range(rounds + 1)
        ][1:]
        slow, fast = (statistics.median(column) for column in zip(*taken, strict=True))
        speedup = statistics.median(a / b for a, b in taken)
        saved = statistics.median(a - b for a, b in taken)
        crossings.append(Crossing(name, d, slow, fast, speedup, saved / (r - 1)))
    return crossings


def gradient_seconds(rounds: int, clock: Callable[[Callable[[], object]], float]) -> dict[str, float]:
    """Seconds for the gradient of one worker's own 32 images on this machine's processor, per model."""
    medians = {}
    for name, shape in _MODELS:
        model = models.build(name, shape, 10, seed=0)
        images = torch.zeros(_SHARE, *shape, dtype=torch.float32, device="cpu")
        labels = torch.zeros(_SHARE, dtype=torch.long, device="cpu")

        def step(
            model: nn.Module = model, images: torch.Tensor = images, labels: torch.Tensor = labels
        ) -> None:
            torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))

        step()
        medians[name] = statistics.median(clock(step) for _ in range(rounds))
    return medians


def table(crossings: Sequence[Crossing], r: int) -> str:
    """A Markdown table."""
    lines = [
        f"| rule on n = {N} | d | rule (ms) | vote + rule on {N // r} (ms) | times faster | pays where a "
        "worker's own gradient takes less than (ms) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for crossing in crossings:
        limit = f"{1e3 * crossing.pays_below:.3g}" if crossing.pays_below > 0 else "never"
        lines.append(
            f"| {crossing.name} | {crossing.d:.0e} | {1e3 * crossing.vanilla:.3g} | "
            f"{1e3 * crossing.detox:.3g} | {crossing.speedup:.2f} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def _processor_seconds(call: Callable[[], object]) -> float:
    """Processor time of a call: on a busy machine about the time that it takes on a free one."""
    return seconds(call).cpu


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and writes crossover.json and crossover.md to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-d", type=int, nargs="+", default=[10**5, 10**6, 10**7], help="coordinates")
    parser.add_argument("-r", type=int, default=3, help="replicas, 2 or more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/redundancy-crossover"))
    given = parser.parse_args(arguments)
    if given.r < 2 or given.rounds < 1 or min(given.d) < 1:
        parser.error("needs -r of at least 2, and --rounds and -d of at least 1")
    torch.set_num_threads(1)
    crossings = [
        crossing for d in given.d for crossing in measure(given.r, d, given.rounds, _processor_seconds)
    ]
    gradients = gradient_seconds(given.rounds, _processor_seconds)
    text = table(crossings, given.r)
    record = {
        "n": N,
        "f": F,
        "r": given.r,
        "rounds": given.rounds,
        "pairs": [asdict(crossing) for crossing in crossings],
        "gradient_seconds": gradients,
        "environment": describe(),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    replace_file(given.out / "crossover.json", (json.dumps(record, indent=1) + "\n").encode())
    replace_file(given.out / "crossover.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
