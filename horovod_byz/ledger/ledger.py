"""Who was wrong: proof and suspicion per worker, and verdicts added up over the steps of a run."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from horovod_byz.aggregation.source import Groups
from horovod_byz.aggregation.verdict import Seen, Table, Verdict
from horovod_byz.host.place import Place
from horovod_byz.ledger.account import Account, Sums
from horovod_byz.ledger.evidence import PROOFS, Action, Evidence, Kind
from horovod_byz.ledger.listening import standard
from horovod_byz.ledger.suspicion import Suspicion, TestName

# Pieces of evidence that a ledger keeps in memory; its accounts count all of them.
KEPT = 1000
_TOGETHER = 20  # steps that are added up together


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


class Ledger:
    """Adds up verdicts and keeps evidence; cheap enough to be always on: O(n log n) per step.

    A worker is a suspect by *proof*, of which one occurrence names it, or by *suspicion*, a test that names
    an honest worker of a run with probability alpha at most. A rule has no say in it, whatever weight it
    gives.

    Once it belongs to an optimizer, rank 0 warns of each culprit on the logger "horovod_byz", at once, and
    again only for another reason.

    Args:
        path: folder of the ledger's file, which is written while the run goes on: by rank 0 `ledger.jsonl`,
            and by every rank `ledger.rank<r>.jsonl` when it ends by an error. An earlier run in the folder
            stays; this one is appended. After `kill -9` the file holds all up to the last window of steps,
            and all evidence. Default none.
        alpha: the probability that the test ever names an honest worker.
        test: "exchangeable" compares a worker with the others of the same step, and assumes that workers draw
            their samples alike (shuffled data); "own past" compares it with its own earlier rows, for workers
            with unlike data; None tests nothing, so that only proof names. See docs/ledger.md.
        on_verdict: called with each `Evidence` the moment that it is entered, on every rank; an exception
            in it ends the step, on all ranks alike, as they see the same evidence.
        listeners: further ones, such as `TensorBoard` and `Prometheus` of `horovod_byz.ledger.boards`.

    Attributes:
        steps: steps entered.
        loads: how often `load_state_dict` replaced its history.
        evidence: the last proofs, suspicions and notices.
        places: where each rank runs.
        rank: this process's rank; None for a ledger that belongs to no optimizer.
        listeners: what hears of every entry. A copied or pickled ledger takes them along: files are opened
            anew, and appended to; a function must be one that pickle can name.

    Raises:
        OSError: if the folder cannot be made or written to, on each rank that cannot.
        TypeError: if `on_verdict` is no function.
        ValueError: for another alpha or test.

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
        alpha: float = 1e-3,
        test: TestName | None = "exchangeable",
        on_verdict: Callable[[Evidence], Any] | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.steps = 0
        self.loads = 0
        self.alpha, self.test = alpha, test
        self.suspicion = None if test is None else Suspicion(alpha, test)
        self._accounts: dict[int, Account] = {}
        self._sums: Sums | None = None  # what tables added to the accounts, until somebody reads them
        self._pending: list[tuple[Seen, int]] = []  # steps that are not in the sums yet
        self._grouped: Groups | None = None  # the groups that the accounts have
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
        """Enters evidence, and tells the listeners at once; proof and suspicion accuse the worker."""
        if evidence.worker is not None and evidence.kind != "notice":
            self._account(evidence.worker).accuse(evidence)
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
        seen = Table.seen(result)
        self._tally(result, seen, at, groups)
        excluded = getattr(result, "excluded", ())
        counted: list[Verdict] = []
        if seen.proven:  # else there is nothing to prove
            counted = [verdict for verdict in result.verdicts if verdict.worker not in excluded]
        if 2 * sum(verdict.nonfinite > 0 for verdict in counted) > len(counted):
            self._enter(at, "notice", "overflow", detail=_overflow(counted))
        else:
            if counted:
                self._prove(result.verdicts, counted, at, groups)
            self._suspect(seen, at, groups)
        for worker in getattr(result, "rewritten", ()):
            self._enter(at, "notice", "altered in transit", worker)
        for rank in getattr(result, "outvoted_ranks", ()):
            self._enter(at, "proof", "aggregate", rank=rank)
        for rank in getattr(result, "complainers", ()):
            self._enter(at, "notice", "complaint", rank=rank)
        for listener in self.listeners:
            listener.stepped(self, result, at)

    def tally(self, result: Any, step: int, groups: Groups | None = None) -> None:
        """Adds up the numbers of a step, and enters no evidence; the arguments are those of `add`."""
        self._tally(result, Table.seen(result), step, groups)

    def _tally(self, result: Any, seen: Seen, step: int, groups: Groups | None) -> None:
        if groups and groups != self._grouped:
            self._grouped = groups
            for k, group in enumerate(groups):
                for worker in group:
                    self._account(worker).group = k
        self._pending.append((seen, step))
        if len(self._pending) >= _TOGETHER:
            self._add_up()
        for worker in getattr(result, "rewritten", ()):
            self._account(worker).rewritten += 1
        self._outvoted_ranks.update(getattr(result, "outvoted_ranks", ()))
        self._complainers.update(getattr(result, "complainers", ()))
        self.steps += 1

    def _add_up(self) -> None:
        """Adds the tables of the last steps: one after the other they cost less than each at its step."""
        pending, self._pending = self._pending, []
        for seen, step in pending:
            table = seen.table
            if self._sums is None or not self._sums.is_of(table):
                if self._sums is not None:
                    self._sums.write()
                self._sums = Sums([self._account(worker) for worker in table.workers.tolist()])
            self._sums.add(table)
            for worker, reason in table.notable:
                self._account(worker).stood_out(reason, step)

    def _prove(
        self, verdicts: Sequence[Verdict], counted: Sequence[Verdict], step: int, groups: Groups | None
    ) -> None:
        # An excluded worker has no vote; its row is judged against the row that its group elected.
        of_worker = {verdict.worker: verdict for verdict in counted}
        split: set[int] = set()
        # A rule without redundancy that votes, such as `MajorityVote`, votes among all rows.
        for k, group in enumerate(groups or (tuple(of_worker),)):
            present = [of_worker[worker] for worker in group if worker in of_worker]
            if _undecided(present):
                # Nothing shows who of them is wrong, so that nobody is outvoted.
                split.update(verdict.worker for verdict in present if not verdict.nonfinite)
                detail = f"group {k}: workers {', '.join(str(verdict.worker) for verdict in present)}"
                self._enter(step, "notice", "no majority", detail=detail)
        for verdict in verdicts:
            if verdict.reason in PROOFS and verdict.worker not in split:
                count = verdict.nonfinite
                detail = f"{count} value{'s' * (count > 1)}" if count else ""
                self._enter(step, "proof", verdict.reason, verdict.worker, detail=detail)

    def _suspect(self, seen: Seen, step: int, groups: Groups | None) -> None:
        if self.suspicion is None or not seen.n:
            return
        finding = self.suspicion.observe(step, seen, groups)
        for worker, value in finding.named.items():
            detail = f"e-value {value:.1e} over {self.account(worker).steps} steps"
            self._enter(step, "suspicion", self.suspicion.reason, worker, detail=detail)
        if finding.camps:
            self._enter(step, "notice", "two camps", detail=finding.camps)

    def readmit(self, worker: int) -> None:
        """Tests a worker anew that takes part again: a suspicion that was acted on may be entered again."""
        if self.suspicion is not None:
            self.suspicion.readmit(worker)

    def forget_suspicion(self) -> None:
        """Begins the test anew, as where worker i may be another machine from here on; accounts stay."""
        if self.suspicion is not None:
            self.suspicion = Suspicion(self.alpha, self.suspicion.test)

    @property
    def history(self) -> str:
        """What a policy decides from beside the steps to come, in words for ranks to compare."""
        return "" if self.suspicion is None else self.suspicion.history

    def absent(self, workers: Any, step: int | None = None) -> None:
        """Enters that workers did not arrive in time for a step."""
        self._add_up()  # whose steps are earlier
        for worker in workers:
            account, at = self._account(worker), self.steps if step is None else step
            account.absent += 1
            account.last_suspect = at
            self._enter(at, "proof", "late", worker)

    @property
    def suspects(self) -> tuple[int, ...]:
        """Workers with proof against them, or that the test named; lowest first."""
        return tuple(account.worker for account in self._sorted() if account.accused)

    def report(self) -> dict[str, Any]:
        """The ledger in plain values that JSON can hold."""
        test = self.suspicion
        return {
            "steps": self.steps,
            "suspects": list(self.suspects),
            "alpha": self.alpha,
            "test": self.test,
            "assumes": None if test is None else test.assumes,
            # Whether the test gave up, since it cannot tell who is wrong.
            "undecided": test is not None and test.undecided,
            # As aggregators (`Sharded(replicas=r)`): rank -> steps; JSON wants names as keys.
            "outvoted_ranks": _by_rank(self._outvoted_ranks),
            # Ranks whose complaints about what they received nobody confirms.
            "complainers": _by_rank(self._complainers),
            "workers": [
                # log10 of the e-value; the test names at log10(workers / alpha).
                {
                    **account.report(),
                    "suspicion": None if test is None else round(test.log10(account.worker), 3),
                }
                for account in self._sorted()
            ],
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain values that `torch.save` and `torch.load(weights_only=True)` take."""
        accounts = [account.state_dict() for account in self._sorted()]
        ranks = {"outvoted_ranks": dict(self._outvoted_ranks), "complainers": dict(self._complainers)}
        suspicion = None if self.suspicion is None else self.suspicion.state_dict()
        return {"steps": self.steps, "accounts": accounts, **ranks, "suspicion": suspicion}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave, in place of what is here: a resumed run goes on counting.

        The evidence of another test is left aside; this ledger's own test then starts anew.
        """
        self.loads += 1
        accounts = [Account.from_state(kept) for kept in state["accounts"]]
        self._accounts = {account.worker: account for account in accounts}
        self._sums = self._grouped = None
        self._pending.clear()
        self.steps, self._outvoted_ranks = state["steps"], Counter(state["outvoted_ranks"])
        self._complainers = Counter(state.get("complainers", {}))  # 0.1.0 kept none
        if self.suspicion is not None:
            self.suspicion = Suspicion(self.alpha, self.suspicion.test)
            kept = state.get("suspicion")  # earlier versions tested nothing
            if kept is not None:
                self.suspicion.load_state_dict(kept)

    def to_json(self) -> str:
        """`report()` as JSON text."""
        return json.dumps(self.report(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        """A table, one line per worker."""
        head = ("worker", "steps", "weight", "ignored", "distance", "rewritten", "stood out", "accused of")
        lines = [head, *(_line(account.report()) for account in self._sorted())]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
        )

    def account(self, worker: int) -> Account:
        """What is entered of one worker; an empty account where nothing is."""
        self._settle()
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

    def _settle(self) -> None:
        self._add_up()
        if self._sums is not None:
            self._sums.write()

    def _account(self, worker: int) -> Account:
        return self._accounts.setdefault(worker, Account(worker))

    def _sorted(self) -> list[Account]:
        self._settle()
        return [self._accounts[worker] for worker in sorted(self._accounts)]


def _undecided(verdicts: Sequence[Verdict]) -> bool:
    """Whether the replicas of a group lost to one another: every row is marked, and none took part."""
    marked = all(verdict.reason in ("outvoted", "non-finite") and verdict.weight == 0 for verdict in verdicts)
    return marked and any(verdict.reason == "outvoted" for verdict in verdicts)


def _overflow(verdicts: Sequence[Verdict]) -> str:
    return f"{sum(verdict.nonfinite > 0 for verdict in verdicts)} of {len(verdicts)} workers"


def _line(account: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(account["worker"]),
        str(account["steps"]),
        _number(account["mean_weight"]),
        str(account["ignored"]),
        _number(account["mean_distance"]),
        str(account["rewritten"]),
        _counts(account["reasons"]),
        _counts(account["proofs"] | account["suspicions"]),
    )


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "-"


def _by_rank(counts: Counter[int]) -> dict[str, int]:
    return {str(rank): count for rank, count in sorted(counts.items())}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
