"""What a job does about a worker that evidence names: warn, exclude its rows, or stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from horovod_byz.common.checks import count
from horovod_byz.common.errors import ExplainedError
from horovod_byz.ledger.evidence import Evidence

__all__ = ["SHARED", "Policy", "PolicyStopError", "Reaction", "as_policy"]

Answer = Literal["warn", "exclude", "stop"]
Reaction = Answer | Callable[[Evidence], Answer | None]

_ANSWERS = ("warn", "exclude", "stop")
_LIMITED = ("warn", "stop")
_ACTIONS = ("on_proof", "on_suspicion", "on_excess", "otherwise")
_DECIDING = (*_ACTIONS, "after", "within", "limit", "probation")
# All ranks enter these alike: they follow from verdicts, which every rank has bit for bit. What a rank
# received late, in two versions or rewritten may be seen by some ranks only, so nothing is decided from it.
SHARED = frozenset(
    {"non-finite", "outvoted", "unlike the others", "unlike its own past", "two camps", "no majority"}
)


class PolicyStopError(ExplainedError, RuntimeError):
    """A policy ends the run, on all ranks at the same step; the step's aggregate did not reach the model.

    Attributes:
        step: the optimizer step.
        workers: the workers that the evidence names; empty if it names none.
    """

    def __init__(self, message: str, step: int, workers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.step, self.workers = step, workers


@dataclass(frozen=True)
class Policy:
    """What follows from evidence. All ranks must have the same; each decides alike, from the same verdicts.

    "warn" only tells; "exclude" drops the worker's rows from then on; "stop" ends the run with
    `PolicyStopError` before the step's aggregate reaches the model. A function gets each `Evidence`
    and returns one of these, or None for nothing. It runs on every rank, and must answer alike on all: from
    the evidence alone, not from the clock, the host, or random numbers.

    A worker is excluded only if the rule holds without it: its condition for the smaller n with the same f,
    and redundancy groups that can still outvote a wrong replica. An excluded worker computes on, and its rows
    are collected and judged, without weight. Steps in which over half of the rows overflowed are nobody's
    fault, and no evidence here.

    Args:
        on_proof: on a proof against a worker: it sent NaN or infinities, or lost a vote of replicas.
        on_suspicion: on a suspicion: a statistical test, with a stated rate of false alarms.
        on_excess: where more workers are wrong than the rule covers: more are accused than f, the rows form
            two camps, or a redundancy group had no majority twice. "stop" fails closed.
        after: proofs against a worker before `on_proof` acts, one a step at most; a function is asked each
            time.
        within: steps in which these proofs must lie; default any number.
        limit: most workers excluded at a time; default fewer than half.
        otherwise: "warn" or "stop" where a worker should be excluded and cannot be.
        probation: clean steps in a row after which an excluded worker is readmitted, twice as many after each
            further exclusion; default never. A clean step has no suspect verdict on it.
        excluded_hosts: a JSON file for `launch/discover_hosts.py`, with the hosts of excluded workers and of
            ranks that did not arrive in time, which Elastic then leaves out; default none.
        readmit_after: seconds after which such a host may return, twice as many after each further exclusion;
            default never.

    Raises:
        TypeError, ValueError: if an argument is none of these.

    Examples:
        >>> Policy("exclude", after=3, within=1000).on_suspicion
        'warn'
    """

    on_proof: Reaction = "warn"
    on_suspicion: Reaction = "warn"
    on_excess: Literal["warn", "stop"] = "warn"
    after: int = 1
    within: int | None = None
    limit: int | None = None
    otherwise: Literal["warn", "stop"] = "warn"
    probation: int | None = None
    excluded_hosts: str | None = None
    readmit_after: float | None = None

    def __post_init__(self) -> None:
        for name in ("on_proof", "on_suspicion"):
            _check_answer(f"Policy: {name}", getattr(self, name), _ANSWERS, functions=True)
        for name in ("on_excess", "otherwise"):
            _check_answer(f"Policy: {name}", getattr(self, name), _LIMITED)
        object.__setattr__(self, "after", count(self, "after", self.after, least=1))
        for name, least in (("within", self.after), ("limit", 0), ("probation", 1)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, count(self, name, getattr(self, name), least))
        if self.excluded_hosts is not None:
            object.__setattr__(self, "excluded_hosts", os.fspath(self.excluded_hosts))
        self._check_readmit_after()

    def _check_readmit_after(self) -> None:
        seconds: Any = self.readmit_after
        if seconds is None:
            return
        if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.number):
            raise TypeError(f"Policy: readmit_after must be a number of seconds, got {seconds!r}")
        if not 0 < seconds < float("inf"):
            raise ValueError(f"Policy: readmit_after must be over 0 seconds, got {seconds!r}")
        if self.excluded_hosts is None:
            raise ValueError(
                "Policy: readmit_after is about hosts in a file: give excluded_hosts='excluded.json' too, or "
                "probation=... in steps for the workers of this job"
            )
        object.__setattr__(self, "readmit_after", float(seconds))

    def terms(self, ledger: Any) -> str:
        """What ranks must have in common for all to decide alike: this policy, and the test that it acts on.

        The file of excluded hosts is none of it: rank 0 writes it, and its path may differ between hosts. Nor
        is a test whose findings lead to nothing but a warning.

        Args:
            ledger: the ledger whose evidence is acted on.
        """
        terms = [f"{name}={_name_of(getattr(self, name))}" for name in _DECIDING]
        if self.acts_on_tests:
            terms += [f"{name}={getattr(ledger, name, None)}" for name in ("test", "alpha")]
        return " ".join(terms)

    @property
    def acts_on_tests(self) -> bool:
        """Whether a finding of a statistical test leads to more than a warning."""
        return self.on_suspicion != "warn" or self.on_excess != "warn"

    @property
    def excludes(self) -> bool:
        """Whether it can exclude a worker."""
        return any(action == "exclude" or callable(action) for action in (self.on_proof, self.on_suspicion))

    def action(self, evidence: Evidence) -> Reaction:
        """What a proof or a suspicion leads to."""
        return self.on_proof if evidence.kind == "proof" else self.on_suspicion

    def answer(self, evidence: Evidence) -> Answer | None:
        """The answer to evidence against a worker; a function is asked.

        Raises:
            TypeError: if a function returns something else.
        """
        action = self.action(evidence)
        if not callable(action):
            return action
        answer = action(evidence)
        if answer is not None and answer not in _ANSWERS:
            raise TypeError(
                f"Policy: {_name_of(action)} must return 'warn', 'exclude', 'stop' or None, got {answer!r}"
            )
        return answer


def as_policy(policy: Any) -> Policy:
    """The policy that an argument stands for: itself, "warn", "exclude" or "stop" on proofs, or a function.

    A function answers to proofs and to suspicions.

    Raises:
        TypeError, ValueError: if it is none of these.
    """
    if policy is None:
        return Policy()
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, type) and issubclass(policy, Policy):
        raise TypeError("policy must be a value such as hb.Policy('exclude'), got the class Policy")
    _check_answer("policy", policy, _ANSWERS, functions=True)
    return Policy(policy, policy) if callable(policy) else Policy(policy)


def _check_answer(what: str, value: Any, answers: tuple[str, ...], *, functions: bool = False) -> None:
    if functions and callable(value) and not isinstance(value, type):
        return
    if not isinstance(value, str) or value not in answers:
        or_function = ", or a function of an Evidence" if functions else ""
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"{what} must be {' or '.join(map(repr, answers))}{or_function}, got {value!r}")


def _name_of(function: Any) -> str:
    """A function's name; other values as they are written."""
    if not callable(function):
        return repr(function)
    # Never its repr, in which ranks may have different addresses.
    return getattr(function, "__qualname__", type(function).__qualname__)
