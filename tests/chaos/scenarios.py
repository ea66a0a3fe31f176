"""The table of `make chaos`: what goes wrong, where, and what must come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import horovod_byz as hb

Ends = Literal["survives", "HeaderMismatchError", "StateMismatchError", "LateRanksError"]
Script = Literal["plain", "skips", "repeats", "stops", "vanishes"]

STEPS = 12  # of a scenario whose run survives
AT = 5  # the step of most faults
CHECKED_EVERY = 2  # steps between two comparisons of the ranks' state
MANY, FEW = 6, 3  # ranks: two redundancy groups of three; and few, where each scenario starts its own

COLLECTS: dict[str, Any] = {
    "symmetric": "symmetric",
    "root": "root",
    "sharded": "sharded",
    "replicas": hb.Sharded(replicas=3),
}
RULES: dict[str, Any] = {
    "mean": hb.Mean(),
    "median": hb.Median(),
    "trimmed-mean": hb.TrimmedMean(f=1),
    "krum": hb.Krum(f=1),
    "multi-krum": hb.MultiKrum(f=1),
    "geometric-median": hb.GeometricMedian(),
    "brsgd": hb.BrSGD(),
    "detox": hb.Detox(hb.Redundancy(3), inner=hb.Mean(), outer=hb.Mean()),
    "draco": hb.Draco(f=1),
}
VOTES = ("detox", "draco")  # rules under which one wrong replica changes no bit of the run


@dataclass(frozen=True)
class Scenario:
    """A row of the table.

    Attributes:
        backend: "gloo" or "mpi".
        ranks: number of ranks.
        collect: a key of `COLLECTS`.
        rule: a key of `RULES`.
        faults: what goes wrong.
        script: what rank 2's script does by itself: nothing; it "skips" a step that it computed,
            "repeats" one, "stops" stepping, or "vanishes", by an exit that no launcher takes for a failure.
        ends: "survives", or the class of the error with which every other rank ends.
        named: the ranks that must be named, and nobody else.
        reason: the ledger's reason, where the run survives.
        at: the first step of the fault.
        notice: the ledger's notice, which accuses nobody, where one must be entered.
        expects_state: what happens to state that differs: "stop" ends the run with StateMismatchError; with
            "repair" it is replaced from the majority, and the run survives. Both name the tensor.
        timeout: seconds that a wait between ranks may take.
        killed: whether the launcher ends the other ranks; they may then end before they can say anything.
    """

    backend: str
    ranks: int
    collect: str
    rule: str
    faults: hb.Faults = field(default_factory=hb.Faults)
    script: Script = "plain"
    ends: Ends = "survives"
    named: tuple[int, ...] = ()
    reason: str = ""
    at: int = AT
    notice: str = ""
    expects_state: str = ""
    timeout: float = 60.0
    killed: bool = False

    @property
    def name(self) -> str:
        """Unique in the table; it tells the scenario."""
        what = "; ".join(map(str, self.faults.faults)) or self.script
        if self.faults and self.script != "plain":
            what = f"{self.script}; {what}"
        return f"{self.backend} {self.collect} {self.rule}: {what}"

    @property
    def fatal(self) -> bool:
        """Whether nothing can run after it in the same processes, so that it needs a launch of its own."""
        return self.ends == "LateRanksError"

    @property
    def folder(self) -> str:
        """Of its ledger, inside the folder of a launch's results."""
        return f"ledger{TABLE.index(self)}"

    @property
    def seen_at(self) -> int:
        """The first step at which the ledger can know of it: states are compared at some steps only."""
        return -(-self.at // CHECKED_EVERY) * CHECKED_EVERY if self.expects_state else self.at

    @property
    def unchanged(self) -> bool:
        """Whether the run must end with the bits of a run without faults."""
        harmless = not self.named or self.reason == "aggregate"
        return self.ends == "survives" and (self.rule in VOTES or harmless)


# Whom a row fault names, by proof, under each rule: non-finite values everywhere, other bits by a vote.
def _survive(backend: str) -> Iterator[Scenario]:
    """Scenarios that leave the processes as they were: one launch runs them all."""
    f = hb.Faults()
    rows: list[tuple[str, str, hb.Faults, str]] = [
        ("symmetric", "mean", f.nan(worker=2, at=AT), "non-finite"),
        ("symmetric", "geometric-median", f.nan(worker=2, count=1, start=AT, every=3), "non-finite"),
        ("symmetric", "detox", f.bitflip(worker=2, bit=0, at=AT), "outvoted"),
        ("symmetric", "draco", f.burst(worker=2, start=AT), "outvoted"),
        ("symmetric", "detox", f.stale(worker=2, start=AT), "outvoted"),
        ("root", "median", f.infinite(worker=2, at=AT), "non-finite"),
        ("root", "detox", f.bitflip(worker=2, bit=30, start=AT, every=3), "outvoted"),
        ("root", "draco", f.corrupt(worker=2, start=AT, until=9), "outvoted"),
        ("root", "detox", f.zero(worker=2, at=AT), "outvoted"),
        ("sharded", "krum", f.nan(worker=2, count=3, at=AT), "non-finite"),
        ("sharded", "brsgd", f.infinite(worker=2, count=1, at=AT), "non-finite"),
        ("sharded", "detox", f.flip_sign(worker=2, start=AT), "outvoted"),
        ("sharded", "draco", f.perturb(worker=2, scale=1e-6, at=AT), "outvoted"),
        ("replicas", "trimmed-mean", f.nan(worker=2, start=AT), "non-finite"),
        ("replicas", "detox", f.burst(worker=2, length=8, period=16, highest=22, at=AT), "outvoted"),
        ("replicas", "draco", f.attack(worker=2, attack="gaussian:std=200", start=AT), "outvoted"),
        ("replicas", "detox", f.bitflip(worker=2, bit=(3, 17), at=AT), "outvoted"),
        ("replicas", "median", f.lie_as_aggregator(rank=2, at=AT), "aggregate"),
        ("replicas", "detox", f.lie_as_aggregator(rank=2, factor=-1, start=AT), "aggregate"),
    ]
    for collect, rule, faults, reason in rows:
        yield Scenario(backend, MANY, collect, rule, faults, named=(2,), reason=reason)
    for rule, collect in zip(RULES, 3 * list(COLLECTS), strict=False):
        yield Scenario(backend, MANY, collect, rule)  # without faults: what others are compared with
    slow = f.slow(rank=2, seconds=0.5, at=(AT, AT + 1))
    for collect, rule in zip(COLLECTS, ("mean", "median", "multi-krum", "detox"), strict=True):
        yield Scenario(backend, MANY, collect, rule, slow)
    relay = f.tamper_as_relay(rank=1, victim=0, at=AT)
    yield Scenario(backend, MANY, "symmetric", "median", relay, notice="altered in transit")
    yield Scenario(backend, MANY, "sharded", "mean", relay)
    for collect in COLLECTS:
        yield from _mismatches(backend, collect)
        yield from _repairs(backend, collect)


def _repairs(backend: str, collect: str) -> Iterator[Scenario]:
    """State that differs is replaced from the majority; where rows are put to the vote, no bit is lost."""
    repair: dict[str, Any] = {"named": (2,), "reason": "state", "expects_state": "repair"}
    f = hb.Faults()
    in_parameter, in_state = f.flip_parameter(rank=2, at=AT), f.flip_state(rank=2, at=AT)
    voted = in_parameter if collect in ("symmetric", "sharded") else in_state
    yield Scenario(backend, MANY, collect, "detox", voted, **repair)
    if collect in ("sharded", "replicas"):
        yield Scenario(backend, MANY, collect, "median", in_parameter, **repair)


def _mismatches(backend: str, collect: str) -> Iterator[Scenario]:
    """Errors on every rank, after which all may begin anew."""
    if collect in ("symmetric", "root"):
        flips = {"symmetric": hb.Faults().flip_parameter(rank=2, at=AT)}
        flip = flips.get(collect, hb.Faults().flip_state(rank=2, at=AT))
        stops: dict[str, Any] = {"ends": "StateMismatchError", "expects_state": "stop"}
        yield Scenario(backend, MANY, collect, "median", flip, named=(2,), **stops)
    for script in ("skips", "repeats"):
        step: dict[str, Any] = {"ends": "HeaderMismatchError", "script": script}
        yield Scenario(backend, MANY, collect, "mean", named=(2,), **step)


def _end(backend: str) -> Iterator[Scenario]:
    """Scenarios that end the processes, each in a launch of its own."""
    f = hb.Faults()
    late: dict[str, Any] = {"ends": "LateRanksError", "named": (2,)}
    for collect in COLLECTS:
        yield Scenario(backend, FEW, collect, "median", f.kill(rank=2, at=AT), killed=True, **late)
    waits = {**late, "timeout": 6.0}
    yield Scenario(backend, FEW, "symmetric", "median", f.stall(rank=2, at=AT), **waits)
    yield Scenario(backend, FEW, "replicas", "mean", f.stall(rank=2, at=AT), **waits)
    yield Scenario(backend, FEW, "root", "median", f.freeze(rank=2, at=AT), **waits)
    yield Scenario(backend, FEW, "sharded", "mean", f.freeze(rank=2, at=AT), **waits)
    yield Scenario(backend, FEW, "sharded", "median", script="stops", **waits)
    # A rank that waits for another, or comes after it was missed, is not late.
    after = f.slow(rank=1, seconds=0.4, at=AT)
    yield Scenario(backend, FEW, "root", "mean", after.leave(rank=2, at=AT), **late)
    yield Scenario(backend, FEW, "replicas", "median", f.leave(rank=2, at=AT), **late)
    failing = after.fail(rank=2, at=AT)
    yield Scenario(backend, FEW, "symmetric", "mean", failing, killed=True, **late)
    yield Scenario(backend, FEW, "sharded", "mean", f.fail(rank=2, at=AT), killed=True, **late)
    vanishing: dict[str, Any] = {**late, "script": "vanishes", "killed": backend == "mpi"}
    yield Scenario(backend, FEW, "symmetric", "median", after, **vanishing)
    yield Scenario(backend, FEW, "sharded", "median", after, **vanishing)


TABLE: tuple[Scenario, ...] = tuple(
    scenario for backend in ("gloo", "mpi") for group in (_survive, _end) for scenario in group(backend)
)
BY_NAME = {scenario.name: scenario for scenario in TABLE}

# The short form, for the test suite: a launch on Gloo; test_failures and test_journal end processes.
_BRIEF = (
    ("symmetric", "detox", "outvoted"),
    ("symmetric", "detox", "state"),
    ("root", "median", "non-finite"),
    ("replicas", "detox", "outvoted"),
    ("replicas", "median", "aggregate"),
)
SHORT: tuple[Scenario, ...] = (
    *(s for s in _survive("gloo") if (s.collect, s.rule, s.reason) in _BRIEF),
    *(s for s in _survive("gloo") if s.collect == "symmetric" and (s.notice or s.ends != "survives")),
    *(s for s in _survive("gloo") if s.rule == "detox" and not s.named and not s.faults),
)


def launches(table: tuple[Scenario, ...]) -> list[tuple[Scenario, ...]]:
    """The scenarios of each launch: those that end the processes alone, the others together."""
    together: dict[tuple[str, int], list[Scenario]] = {}
    for scenario in table:
        if not scenario.fatal:
            together.setdefault((scenario.backend, scenario.ranks), []).append(scenario)
    return [*map(tuple, together.values()), *((s,) for s in table if s.fatal)]


def repeated(table: tuple[Scenario, ...] = TABLE) -> list[str]:
    """Names that stand in the table twice."""
    return [name for name, count in Counter(s.name for s in table).items() if count > 1]
