"""Carries out a policy: who is excluded now, decided on every rank from the same verdicts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from horovod_byz.aggregation.source import Groups
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.host.place import Place
from horovod_byz.ledger import exclusions
from horovod_byz.ledger.evidence import NOTICES, PROOFS, SUSPICIONS, Evidence
from horovod_byz.ledger.hearing import books_of
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.ledger.policy import SHARED, Policy, PolicyStopError
from horovod_byz.rules import Rule, excluding

__all__ = ["Enforcer"]

_MEANING = {**PROOFS, **SUSPICIONS, **NOTICES}
# Steps without a majority of one redundancy group that count as more than f wrong; one may be a disturbance.
_VOID = 2


class Judged(Protocol):
    """What a policy reads of a step's result, such as a `Collected`; equal on all ranks."""

    @property
    def step(self) -> int: ...
    @property
    def excluded(self) -> tuple[int, ...]: ...
    @property
    def verdicts(self) -> tuple[Verdict, ...]: ...
    @property
    def overflowed(self) -> bool: ...


@dataclass
class _Exclusion:
    """An excluded worker on probation."""

    needed: int | None  # clean steps until it is readmitted
    clean: int = 0


@dataclass
class _Case:
    """The step that is judged."""

    result: Judged
    rules: tuple[Rule, ...]  # the first is that of the gradients
    groups: Groups
    ledger: Ledger
    named: set[int] = field(default_factory=set)  # workers with evidence at this step
    void: set[int] = field(default_factory=set)  # workers of groups without a majority at this step

    @property
    def step(self) -> int:
        return self.result.step

    @property
    def n(self) -> int:
        return len(self.result.verdicts)


class Enforcer:
    """A policy at work in one job.

    Args:
        policy: the policy, equal on all ranks.
        rank: this rank. All decide; rank 0 logs, and writes the file of excluded hosts.
    """

    def __init__(self, policy: Policy, rank: int = 0) -> None:
        self.policy, self.rank = policy, rank
        self._times: Counter[int] = Counter()
        self.forget()

    def forget(self) -> None:
        """Readmits everybody: the ranks were bound anew, and worker i may be another one."""
        self._excluded: dict[int, _Exclusion] = {}
        self._proofs: dict[int, deque[int]] = {}
        self._accused: dict[int, int] = {}
        self._voids: Counter[Any] = Counter()
        self._said: set[Any] = set()
        self._times.clear()

    def __getstate__(self) -> dict[str, Any]:
        """For a copy of the optimizer: who is excluded, and how often. It counts steps anew."""
        return {"policy": self.policy, "rank": self.rank, "excluded": self._excluded, "times": self._times}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["policy"], state["rank"])  # type: ignore[misc]
        self._excluded, self._times = state["excluded"], state["times"]

    @property
    def excluded(self) -> tuple[int, ...]:
        """The workers whose rows do not count, ascending."""
        return tuple(sorted(self._excluded))

    def restricted(self, rule: Rule) -> Rule:
        """The rule on the rows that count."""
        return excluding(rule, self._excluded)

    def settled(
        self,
        result: Judged,
        evidence: Sequence[Evidence],
        rules: Sequence[Rule],
        groups: Groups | None,
        ledger: Any,
    ) -> None:
        """Acts on a step's evidence.

        Args:
            result: the step's result.
            evidence: what was entered in the ledger for it.
            rules: the rules, over all rows, that must hold without an excluded worker; the gradients' first.
            groups: the redundancy groups of all workers, or None.
            ledger: records actions.

        Raises:
            PolicyStopError: if the policy stops the run; on all ranks.
        """
        if result.excluded != self.excluded:
            self.forget()
        if result.overflowed:
            return  # over half sent NaN or infinities: that says something of the loss, and of no worker
        if not evidence and not self._excluded:
            return
        everybody = (tuple(range(len(result.verdicts))),)
        case = _Case(result, tuple(rules), groups or everybody, books_of(ledger)[0])
        case.void = self._void(case)
        shared = [
            e
            for e in evidence
            if e.reason in SHARED and not (e.reason == "outvoted" and e.worker in case.void)
        ]
        for entry in shared:
            if entry.worker is not None and entry.kind != "notice":
                self._judge(entry, case)
        self._release(case)
        self._check_excess(shared, case)

    def late(self, ranks: Sequence[int], ledger: Any) -> None:
        """Excludes the hosts of ranks that did not arrive; the lowest rank that did writes the file."""
        book = books_of(ledger)[0]
        there = [place.rank for place in book.places if place.rank not in ranks]
        if self.policy.excluded_hosts is not None and self.rank == min(there, default=0):
            for rank in ranks:
                self._exclude_host(rank, f"rank {rank}: {PROOFS['late']}", book.places)

    def _void(self, case: _Case) -> set[int]:
        """The workers of groups without a majority: nothing shows which of them are wrong."""
        outvoted = {v.worker for v in case.result.verdicts if v.reason in ("outvoted", "non-finite")}
        lost = {v.worker for v in case.result.verdicts if v.reason == "outvoted"}
        members: set[int] = set()
        for group in case.groups:
            voters = set(group) - set(self._excluded)
            if len(voters) > 1 and voters <= outvoted and voters & lost:
                self._voids[group] += 1
                members |= voters
        return members

    def _judge(self, evidence: Evidence, case: _Case) -> None:
        worker = evidence.worker
        assert worker is not None
        case.named.add(worker)
        self._accused[worker] = evidence.step
        if worker in self._excluded or not self._is_due(evidence):
            return
        answer = self.policy.answer(evidence)
        if answer == "exclude":
            self._exclude(evidence, case)
        elif answer == "stop":
            self._stop(self._words(evidence, case), case, (worker,))

    def _is_due(self, evidence: Evidence) -> bool:
        """Whether evidence reaches the policy's number of proofs."""
        if evidence.kind != "proof" or callable(self.policy.on_proof):
            return True
        steps = self._proofs.setdefault(evidence.worker or 0, deque(maxlen=self.policy.after))
        if not steps or steps[-1] != evidence.step:
            steps.append(evidence.step)
        within = self.policy.within
        recent = within is None or steps[0] > evidence.step - within
        return len(steps) == self.policy.after and recent

    def _exclude(self, evidence: Evidence, case: _Case) -> None:
        worker, words = evidence.worker, self._words(evidence, case)
        assert worker is not None
        why_not = self._why_not(worker, case)
        if why_not is not None:
            if self.policy.otherwise == "stop":
                self._stop(f"{words}, and it cannot be excluded: {why_not}", case, (worker,))
            self._once(("keep", worker), "keep", worker, f"{words}; not excluded: {why_not}", case)
            return
        times, probation = self._times[worker], self.policy.probation
        self._times[worker] += 1
        self._excluded[worker] = _Exclusion(None if probation is None else probation * 2 ** min(times, 30))
        self._act("exclude", worker, f"{words}; excluded from the next step on", case)
        if self.rank == 0:
            self._exclude_host(
                case.ledger.rank_of(worker), f"worker {worker}: {evidence.reason}", case.ledger.places
            )

    def _why_not(self, worker: int, case: _Case) -> str | None:
        workers = (*self._excluded, worker)
        limit = (case.n - 1) // 2 if self.policy.limit is None else self.policy.limit
        if len(workers) > limit:
            return f"that would be {len(workers)} workers of {case.n}, and the policy's limit is {limit}"
        try:
            for rule in case.rules:
                excluding(rule, workers).check(case.n)
        except ValueError as error:
            return str(error)
        return None

    def _release(self, case: _Case) -> None:
        """Counts the excluded workers' clean steps, and readmits those with enough."""
        for worker in self.excluded:
            if worker not in case.result.excluded:
                continue  # excluded by this very step
            trial, verdict = self._excluded[worker], case.result.verdicts[worker]
            trial.clean = 0 if verdict.suspect or worker in case.named else trial.clean + 1
            if trial.needed is not None and trial.clean >= trial.needed:
                del self._excluded[worker]
                self._proofs.pop(worker, None)
                self._accused.pop(worker, None)
                self._said.discard(("keep", worker))
                case.ledger.readmit(worker)
                self._act("readmit", worker, f"worker {worker}: {trial.clean} clean steps in a row", case)

    def _check_excess(self, evidence: Iterable[Evidence], case: _Case) -> None:
        """Warns or stops where more workers are wrong than the rule covers."""
        for key, words in self._excesses(evidence, case):
            if self.policy.on_excess == "stop":
                self._stop(words, case, self._recently_accused(case.step))
            self._once(key, "warn", None, words, case)

    def _excesses(self, evidence: Iterable[Evidence], case: _Case) -> Iterator[tuple[Any, str]]:
        rule, accused = case.rules[0], self._recently_accused(case.step)
        f = max(rule.max_byzantine(case.n), 0) if accused else 0
        if len(accused) > f:
            count = f"{len(accused)} worker{'s' * (len(accused) != 1)}"
            workers = f"{count} ({', '.join(map(str, accused))})"
            yield "excess", f"evidence accuses {workers}, more than the {f} that {rule!r} covers"
        for entry in evidence:
            if entry.reason == "no majority" and not case.void:  # a rule that marks nobody as outvoted
                self._voids[entry.detail or entry.worker] += 1
            if entry.reason == "two camps":
                yield "two camps", NOTICES["two camps"]
        for group, times in self._voids.items():
            if times >= _VOID:
                yield (
                    ("void", group),
                    f"the vote of redundancy group {group} had no majority in {times} steps",
                )

    def _recently_accused(self, step: int) -> tuple[int, ...]:
        within = self.policy.within
        recent = (w for w, last in self._accused.items() if within is None or last > step - within)
        return tuple(sorted({*recent, *self._excluded}))

    def _stop(self, words: str, case: _Case, workers: tuple[int, ...]) -> None:
        worker = workers[0] if len(workers) == 1 else None
        self._act("stop", worker, words, case)
        raise PolicyStopError(
            f"step {case.step}: {words}. The policy ends the run; the model is as before this step",
            case.step,
            workers,
        )

    def _once(self, key: Any, action: str, worker: int | None, words: str, case: _Case) -> None:
        if key not in self._said:
            self._said.add(key)
            self._act(action, worker, words, case)

    def _act(self, action: str, worker: int | None, words: str, case: _Case) -> None:
        rank = None if worker is None else case.ledger.rank_of(worker)
        case.ledger.act(case.step, action, worker, rank, words)

    def _words(self, evidence: Evidence, case: _Case) -> str:
        where = next((p for p in case.ledger.places if evidence.worker in p.workers), None)
        place = "" if where is None else f" ({where})"
        detail = f" ({evidence.detail})" if evidence.detail else ""
        return f"worker {evidence.worker}{place} {_MEANING[evidence.reason]}{detail}"

    def _exclude_host(self, rank: int | None, reason: str, places: Sequence[Place]) -> None:
        path = self.policy.excluded_hosts
        if path is not None:
            exclusions.exclude_host_of(rank, places, path, reason, self.policy.readmit_after)
