"""One training run on the digits in this process, whose verdicts a ledger tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import horovod_byz as hb
from horovod_byz.attacks import (
    ALittleIsEnough,
    Attack,
    Gaussian,
    GradientScale,
    InnerProduct,
    LabelFlip,
    ReversedGradient,
    Zero,
    flip_bits,
)
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.rules import Rule
from horovod_byz.training import models
from horovod_byz.training.data import Dataset, load_dataset
from horovod_byz.training.gradients import Gradients, take
from horovod_byz.training.partition import dirichlet

__all__ = ["ATTACKS", "RULES", "Run", "framed", "replicas", "walk", "walked"]

WORKERS, BATCH, RATE, WIDTH = 20, 32, 0.1, 32
Rows = NDArray[np.float32]
Strike = Callable[[Rows, tuple[int, ...], int], None]

RULES: dict[str, Rule] = {
    "Mean": hb.Mean(),
    "Median": hb.Median(),
    "MultiKrum": hb.MultiKrum(f=6),
    "GeometricMedian": hb.GeometricMedian(),
}


class _Stale:
    """Rows of five steps ago."""

    def __init__(self) -> None:
        self._kept: list[Rows] = []

    def __call__(self, rows: Rows, byzantine: tuple[int, ...], step: int) -> None:
        self._kept.append(rows[list(byzantine)].copy())
        if len(self._kept) > 5:
            rows[list(byzantine)] = self._kept.pop(0)


def _flip(rows: Rows, byzantine: tuple[int, ...], step: int) -> None:
    for row in byzantine:
        rows[row, step % rows.shape[1]] = flip_bits(rows[row, step % rows.shape[1]][None], (20,))[0]


def _of(attack: Attack) -> Callable[[], Strike]:
    return lambda: lambda rows, byzantine, step: attack(rows, byzantine, step=step)


def _none(rows: Rows, byzantine: tuple[int, ...], step: int) -> None:
    pass


# Each makes what strikes the rows of one run; label flip acts on the labels.
ATTACKS: dict[str, Callable[[], Strike]] = {
    "Gaussian(200)": _of(Gaussian(std=200)),
    "sign flip": _of(ReversedGradient(c=1)),
    "scale 0.5": _of(GradientScale(scale=0.5)),
    "stale by 5 steps": _Stale,
    "label flip": lambda: _none,
    "ALIE(z=1)": _of(ALittleIsEnough(z=1.0, view="honest")),
    "inner product(0.5)": _of(InnerProduct(epsilon=0.5)),
    "zero rows": _of(Zero()),
    "one mantissa bit": lambda: _flip,
}


@dataclass(frozen=True)
class Run:
    """A run of the study; `start` is the first attacked step."""

    seed: int
    rule: str
    test: str
    steps: int
    alpha: float
    attack: str | None = None
    byzantine: int = 0
    start: int = 0

    @property
    def attackers(self) -> tuple[int, ...]:
        """Who attacks: drawn by the seed."""
        rng = np.random.default_rng([self.seed, 1])
        return tuple(sorted(rng.choice(WORKERS, self.byzantine, replace=False).tolist()))


@functools.cache
def _digits() -> Dataset:
    return load_dataset("digits")


class _Training:
    """The model, its workers' batches and gradients."""

    def __init__(self, run: Run) -> None:
        self.data, self._rng = _digits(), np.random.default_rng(run.seed)
        labels = self.data.train_y.numpy()
        everything = np.arange(len(labels))
        own = [everything] * WORKERS
        if run.test == "own past":
            own = dirichlet(labels, WORKERS, 0.1, run.seed, least=10)
        self._own, self._sizes = own, np.array([len(part) for part in own])
        model = models.build("mlp", self.data.shape, self.data.classes, seed=run.seed, width=WIDTH)
        self.gradients = Gradients(model, WORKERS)
        self._parameters = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        torch.nn.utils.vector_to_parameters(
            self._parameters, model.parameters()
        )  # views: one addition moves all

    def rows(self, flipped: tuple[int, ...]) -> Rows:
        """The gradients of the next batches; those of `flipped` with inverted labels."""
        draws = (self._rng.random((WORKERS, BATCH)) * self._sizes[:, None]).astype(np.int64)
        indices = np.stack([part[draw] for part, draw in zip(self._own, draws, strict=True)])
        images, labels = take(self.data.train_x, self.data.train_y, indices)
        for worker in flipped:
            labels[worker] = LabelFlip().labels(labels[worker], self.data.classes)
        self.gradients.compute(images, labels)
        rows: Rows = self.gradients.rows.numpy()
        return rows

    def move(self, value: Any) -> None:
        """A step of SGD."""
        self._parameters -= RATE * torch.from_numpy(value)


def walk(run: Run, strike: Strike | None = None) -> Ledger:
    """The ledger after a run.

    Args:
        run: what is run.
        strike: rewrites the attackers' rows in place of the run's attack.
    """
    training, attackers = _Training(run), run.attackers
    if strike is None:
        strike = _none if run.attack is None else ATTACKS[run.attack]()
    ledger = Ledger(alpha=run.alpha, test="own past" if run.test == "own past" else "exchangeable")
    for step in range(run.steps):
        attacked = step >= run.start
        rows = training.rows(attackers if run.attack == "label flip" and attacked else ())
        if attacked and attackers:
            strike(rows, attackers, step)
        result = hb.aggregate(rows, RULES[run.rule], step=step, threads=1)
        ledger.add(result, step)
        if set(attackers) & set(ledger.suspects) == set(attackers) != set():
            break  # all are named: nothing more to see
        training.move(result.value)
    return ledger


def walked(run: Run) -> dict[str, Any]:
    """What a run's ledger says, in plain values: suspects, who was named when, the highest log10 e-value."""
    ledger = walk(run)
    return {
        "suspects": list(ledger.suspects),
        "named": [(e.worker, e.step) for e in ledger.evidence if e.kind == "suspicion"],
        "camps": any(e.reason == "two camps" for e in ledger.evidence),
        "highest": max(account["suspicion"] for account in ledger.report()["workers"]),
    }


def framed(rule: str, f: int, aim: str, seeds: list[int], steps: int, alpha: float) -> dict[str, Any]:
    """An adversary that sees all rows and wants one honest worker, the victim, to be named.

    Args:
        rule: the rule.
        f: Byzantine rows.
        aim: "away" sends the mean of the honest rows less three times the victim's own deviation from it;
            "mirror" less once. Both move the aggregate away from the victim's row.
        seeds: of the runs.
        steps: of each run.
        alpha: of the test.
    """
    framers, victims, others = [], [], 0
    for seed in seeds:
        run = Run(seed, rule, "exchangeable", steps, alpha, byzantine=f)
        victim = next(worker for worker in range(WORKERS) if worker not in run.attackers)

        def strike(rows: Rows, byzantine: tuple[int, ...], step: int, victim: int = victim) -> None:
            mean = np.delete(rows, byzantine, axis=0).mean(axis=0)
            rows[list(byzantine)] = mean - (3.0 if aim == "away" else 1.0) * (rows[victim] - mean)

        ledger = walk(run, strike)
        named = {e.worker: e.step + 1 for e in ledger.evidence if e.kind == "suspicion"}
        victims.append(named.get(victim))
        framers.append(min((at for worker, at in named.items() if worker in run.attackers), default=None))
        others += any(worker not in (victim, *run.attackers) for worker in named)
    return {"rule": rule, "aim": aim, "f": f, "victim": victims, "framers": framers, "others_named": others}


def replicas(seed: int) -> dict[str, Any]:
    """One flipped mantissa bit at step 3 in one replica of three: at which step it is proven, and who."""
    redundancy = hb.Redundancy(r=3)
    rule, groups = (
        hb.Detox(redundancy, inner=hb.Mean(), outer=hb.Median(), groups=3),
        redundancy.groups_of(18),
    )
    rng, ledger = np.random.default_rng(seed), Ledger()
    for step in range(10):
        rows = np.empty((18, 1000), np.float32)
        for group in groups:
            rows[list(group)] = rng.normal(size=1000)
        if step == 3:
            _flip(rows, (7,), step)
        ledger.add(hb.aggregate(rows, rule, step=step, threads=1), step, groups)
    proofs = [(e.step, e.worker, e.reason) for e in ledger.evidence if e.kind == "proof"]
    return {"flipped_at": 3, "worker": 7, "proofs": [list(proof) for proof in proofs]}
