"""Who was wrong, and how often: verdicts per worker, added up over the steps of a run."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from horovod_byz.aggregation.source import Groups
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.host.place import Place
from horovod_byz.ledger.evidence import PROOFS, Action, Evidence, Kind
from horovod_byz.ledger.listening import standard

# Pieces of evidence that a ledger keeps in memory; its accounts count all of them.
KEPT = 1000


class Listener(Protocol):
    """What a ledger tells at once: a file, a log, a board. It runs on every rank; it waits for no other."""

    def bound(self, ledger: Ledger, facts: dict[str, Any]) -> None:
        """The ranks have agreed; `facts` are the keys of a "run" record that the session knows."""

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        """Evidence was entered."""

    def acted(self, ledger: Ledger, action: Action) -> None:
        """Something was done about a worker or a rank."""

    def stepped(self, ledger: Ledger, result: Any, step: int) -> None:
        """A step was entered, after its evidence."""

    def ended(self, ledger: Ledger, reason: str, ranks: Sequence[int]) -> None:
        """The run ends; `reason` is empty for a normal end."""


@dataclass
class Account:
    """What one worker did so far.

    Attributes:
        worker: its index.
        steps: steps with a verdict on it.
        weight: sum of the weights that its rows received.
        ignored: steps in which its row had weight 0.
        reasons: steps in which it was suspect, by reason ("non-finite", "outvoted", "far").
        nonfinite: number of NaN and infinite values it sent.
        rewritten: steps in which a peer rewrote its row on the way; the worker is the victim.
        absent: steps for which it did not arrive in time.
        distance: sum of its distances to the result, over `measured` steps.
        measured: steps in which its distance was finite.
        last_suspect: last step in which it was suspect, or -1.
        group: its redundancy group, or None where there are none.
    """

    worker: int
    steps: int = 0
    weight: float = 0.0
    ignored: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    nonfinite: int = 0
    rewritten: int = 0
    absent: int = 0
    distance: float = 0.0
    measured: int = 0
    last_suspect: int = -1
    group: int | None = None

    @property
    def suspect(self) -> int:
        """Steps in which the worker was suspect or absent."""
        return sum(self.reasons.values()) + self.absent

    def add(self, verdict: Verdict, step: int) -> None:
        self.steps += 1
        self.weight += verdict.weight
        self.ignored += verdict.weight == 0.0
        self.nonfinite += verdict.nonfinite
        if math.isfinite(verdict.distance):
            self.distance += verdict.distance
            self.measured += 1
        if verdict.suspect:
            self.reasons[verdict.reason] += 1
            self.last_suspect = step

    def report(self) -> dict[str, Any]:
        """The account in plain values, with means instead of sums; None where nothing was measured."""
        return {
            "worker": self.worker,
            "steps": self.steps,
            "mean_weight": _mean(self.weight, self.steps),
            "ignored": self.ignored,
            "suspect": self.suspect,
            "reasons": dict(sorted(self.reasons.items())),
            "nonfinite_values": self.nonfinite,
            "rewritten": self.rewritten,
            "absent": self.absent,
            "mean_distance": _mean(self.distance, self.measured),
            "last_suspect_step": self.last_suspect if self.last_suspect >= 0 else None,
            "group": self.group,
        }


class Ledger:
    """Adds up each step's verdicts; cheap enough to be always on: O(n) per step.

    Once it belongs to an optimizer, rank 0 warns of each culprit on the logger "horovod_byz", at once, and
    again only for another reason.

    Args:
        path: folder of the ledger's file, which is written while the run goes on: by rank 0 `ledger.jsonl`,
            and by every rank `ledger.rank<r>.jsonl` when it ends by an error. An earlier run in the folder
            stays; this one is appended. After `kill -9` the file holds all up to the last window of steps,
            and all evidence. Default none.
        on_verdict: called with each `Evidence` the moment that it is entered, on every rank; an exception
            in it ends the step, on all ranks alike, as they see the same evidence.
        listeners: further ones, such as `TensorBoard` and `Prometheus` of `horovod_byz.ledger.boards`.

    Attributes:
        steps: steps entered.
        evidence: the last proofs, suspicions and notices.
        places: where each rank runs.
        rank: this process's rank; None for a ledger that belongs to no optimizer.
        listeners: what is told of every entry. A copied or pickled ledger takes them along: files are opened
            anew, and appended to; a function must be one that pickle can name.

    Raises:
        OSError: if the folder cannot be made or written to, on each rank that cannot.
        TypeError: if `on_verdict` is no function.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> ledger = hb.Ledger()
        >>> ledger.add(hb.aggregate(np.array([[1.0], [1.0], [np.nan]]), hb.Median()))
        >>> ledger.suspects
        (2,)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        on_verdict: Callable[[Evidence], Any] | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.steps = 0
        self._accounts: dict[int, Account] = {}
        self._outvoted_ranks: Counter[int] = Counter()
        self._complainers: Counter[int] = Counter()
        self.places: tuple[Place, ...] = ()
        self.evidence: deque[Evidence] = deque(maxlen=KEPT)
        self.rank: int | None = None
        self.listeners: list[Listener] = standard(path, on_verdict, listeners)

    def bind(self, places: Sequence[Place] = (), rank: int | None = 0, **facts: Any) -> None:
        """Notes where the ranks run, which of them this is, and what the session knows of the run."""
        self.places, self.rank = tuple(places), rank
        for listener in self.listeners:
            listener.bound(self, facts)

    def enter(self, evidence: Evidence) -> None:
        """Enters evidence of any kind, and tells the listeners at once."""
        self.evidence.append(evidence)
        for listener in self.listeners:
            listener.entered(self, evidence)

    def act(
        self,
        step: int,
        action: str,
        worker: int | None = None,
        rank: int | None = None,
        detail: str = "",
    ) -> None:
        """Tells the listeners at once what was done about a worker or a rank; see `Action`."""
        for listener in self.listeners:
            listener.acted(self, Action(step, action, worker, rank, detail))

    def end(self, reason: str = "", ranks: Sequence[int] = ()) -> None:
        """Tells the listeners that the run ends."""
        for listener in self.listeners:
            listener.ended(self, reason, ranks)

    def rank_of(self, worker: int) -> int | None:
        """The rank that holds a worker, or None where no ranks are known."""
        return next((place.rank for place in self.places if worker in place.workers), None)

    def add(self, result: Any, step: int | None = None, groups: Groups | None = None) -> None:
        """Enters one step.

        Args:
            result: what a session's `step` or `hb.aggregate` returned.
            step: number of the optimizer step; counts up from 0 where it is not given.
            groups: the workers' redundancy groups.
        """
        at = self.steps if step is None else step
        for k, group in enumerate(groups or ()):
            for worker in group:
                self._account(worker).group = k
        for verdict in result.verdicts:
            self._account(verdict.worker).add(verdict, at)
            if verdict.reason in PROOFS:
                detail = f"{verdict.nonfinite} values" if verdict.nonfinite else ""
                self._enter(at, "proof", verdict.reason, verdict.worker, detail=detail)
        for worker in getattr(result, "rewritten", ()):
            self._account(worker).rewritten += 1
            self._enter(at, "notice", "altered in transit", worker)
        for rank in getattr(result, "outvoted_ranks", ()):
            self._outvoted_ranks[rank] += 1
            self._enter(at, "proof", "aggregate", rank=rank)
        for rank in getattr(result, "complainers", ()):
            self._complainers[rank] += 1
            self._enter(at, "notice", "complaint", rank=rank)
        self.steps += 1
        for listener in self.listeners:
            listener.stepped(self, result, at)

    def absent(self, workers: Any, step: int | None = None) -> None:
        """Enters that workers did not arrive in time for a step."""
        for worker in workers:
            account, at = self._account(worker), self.steps if step is None else step
            account.absent += 1
            account.last_suspect = at
            self._enter(at, "proof", "late", worker)

    @property
    def suspects(self) -> tuple[int, ...]:
        """Workers that were suspect in more than half of the steps, lowest first."""
        return tuple(a.worker for a in self._sorted() if a.suspect > (a.steps + a.absent) / 2)

    def report(self) -> dict[str, Any]:
        """The ledger in plain values that JSON can hold."""
        return {
            "steps": self.steps,
            "suspects": list(self.suspects),
            # As aggregators (`Sharded(replicas=r)`): rank -> steps; JSON wants names as keys.
            "outvoted_ranks": _by_rank(self._outvoted_ranks),
            # Ranks whose complaints about what they received nobody confirms.
            "complainers": _by_rank(self._complainers),
            "workers": [account.report() for account in self._sorted()],
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain values that `torch.save` and `torch.load(weights_only=True)` take."""
        accounts = [{**vars(account), "reasons": dict(account.reasons)} for account in self._sorted()]
        ranks = {"outvoted_ranks": dict(self._outvoted_ranks), "complainers": dict(self._complainers)}
        return {"steps": self.steps, "accounts": accounts, **ranks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave, in place of what is here: a resumed run goes on counting."""
        accounts = (Account(**{**kept, "reasons": Counter(kept["reasons"])}) for kept in state["accounts"])
        self._accounts = {account.worker: account for account in accounts}
        self.steps, self._outvoted_ranks = state["steps"], Counter(state["outvoted_ranks"])
        self._complainers = Counter(state.get("complainers", {}))  # 0.1.0 kept none

    def to_json(self) -> str:
        """`report()` as JSON text."""
        return json.dumps(self.report(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        """A table, one line per worker."""
        head = ("worker", "steps", "weight", "ignored", "suspect", "reasons", "distance", "rewritten")
        lines = [head, *(_line(account.report()) for account in self._sorted())]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
        )

    def account(self, worker: int) -> Account:
        """What is entered of one worker; an empty account where nothing is."""
        return self._accounts.get(worker, Account(worker))

    def _enter(
        self,
        step: int,
        kind: Kind,
        reason: str,
        worker: int | None = None,
        rank: int | None = None,
        detail: str = "",
    ) -> None:
        rank = self.rank_of(worker) if worker is not None else rank
        self.enter(Evidence(step, kind, reason, worker, rank, detail))

    def _account(self, worker: int) -> Account:
        return self._accounts.setdefault(worker, Account(worker))

    def _sorted(self) -> list[Account]:
        return [self._accounts[worker] for worker in sorted(self._accounts)]


def _line(account: dict[str, Any]) -> tuple[str, ...]:
    reasons = [f"{reason} {count}" for reason, count in account["reasons"].items()]
    if account["absent"]:
        reasons.append(f"absent {account['absent']}")
    return (
        str(account["worker"]),
        str(account["steps"]),
        _number(account["mean_weight"]),
        str(account["ignored"]),
        str(account["suspect"]),
        ", ".join(reasons) or "-",
        _number(account["mean_distance"]),
        str(account["rewritten"]),
    )


def _by_rank(counts: Counter[int]) -> dict[str, int]:
    return {str(rank): count for rank, count in sorted(counts.items())}


def _mean(total: float, count: int) -> float | None:
    # JSON has no infinity; a sum of distances to rows near 1e308 may be one.
    return total / count if count and math.isfinite(total) else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
