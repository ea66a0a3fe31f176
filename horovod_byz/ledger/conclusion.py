"""What a run's evidence comes to: who is at fault, since when, in which pattern, and what to do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from horovod_byz.ledger import wording
from horovod_byz.ledger.culprits import Charge, charges, collapsed
from horovod_byz.ledger.history import History
from horovod_byz.ledger.parsed import Binding, Entry
from horovod_byz.ledger.pattern import Pattern, pattern
from horovod_byz.ledger.sifted import from_ends, sift, with_totals

__all__ = ["Conclusion", "Culprit", "Host", "Warned", "conclude", "rate_in_words"]

_BY_LAUNCHER = "Terminated: "  # how the reason of a rank begins that the launcher ended with the others
CLEAN, CULPRIT = 0, 2  # exit codes of `horovod-byz report`

_DONE = {
    "exclude": "excluded",
    "keep": "not excluded (see the log)",
    "readmit": "readmitted",
    "repair": "repaired",
    "stop": "run stopped",
}


@dataclass(frozen=True)
class Culprit:
    """A worker, rank or host that proof or a test names.

    Attributes:
        charge: what is entered against it.
        kind: "proof" or "suspicion".
        pattern: when it fails; None for a suspicion, and where only counts are known.
        suggestion: what to do.
        acted: what a policy did about it already.
        sentence: all this, in a sentence.
    """

    charge: Charge
    kind: Literal["proof", "suspicion"]
    pattern: Pattern | None
    suggestion: str
    acted: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Host:
    """A host with its ranks; `bad` if all of its several ranks are culprits, and not all of other hosts'."""

    host: str
    ranks: tuple[int, ...]
    workers: tuple[int, ...]
    devices: tuple[str, ...]
    culprits: tuple[str, ...]
    bad: bool


@dataclass(frozen=True)
class Warned:
    """A warning that names no culprit; `serious` if more workers than the rule tolerates may be wrong."""

    reason: str
    count: int
    first: int | None
    text: str
    serious: bool = False


@dataclass(frozen=True)
class Conclusion:
    """What the report says first.

    Attributes:
        verdict: "culprit", "warning" (more workers than the rule tolerates may be wrong), "suspect", "error"
            (the run ended by an error that names nobody) or "clean".
        line: the conclusion in a line.
        culprits: named by proof.
        suspects: named by a test.
        hosts: each host of the last binding.
        warnings: what else an operator should know, serious ones first.
        code: exit code, 0 or 2.
    """

    verdict: Literal["culprit", "warning", "suspect", "error", "clean"]
    line: str
    culprits: tuple[Culprit, ...]
    suspects: tuple[Culprit, ...]
    hosts: tuple[Host, ...]
    warnings: tuple[Warned, ...]

    @property
    def code(self) -> int:
        return CULPRIT if self.verdict in ("culprit", "warning", "suspect") else CLEAN


def conclude(history: History) -> Conclusion:
    """Draws the conclusion of a run."""
    sifted = sift(history)
    proofs = [*sifted.proofs, *from_ends(history, sifted.proofs)]
    proven = with_totals(charges(history, proofs), history, sifted)
    named = sorted(collapsed(proven, history.binding), key=lambda charge: not _ended_the_run(history, charge))
    culprits = tuple(_culprit(history, charge) for charge in named)
    accused = {worker for charge in proven for worker in charge.workers}
    doubted = [c for c in charges(history, sifted.suspicions) if not set(c.workers) <= accused]
    warnings = _warnings(history, sifted.notices, proven)
    camps = any(warning.reason == "two camps" for warning in warnings)
    suspects = tuple(_suspect(history, charge, camps) for charge in doubted)
    verdict, line = _line(history, culprits, suspects, warnings)
    return Conclusion(verdict, line, culprits, suspects, _hosts(history, culprits), warnings)


def _culprit(history: History, charge: Charge) -> Culprit:
    when = _pattern(history, charge)
    acted = _acted(history, charge)
    repaired = _repaired(history, charge)
    if repaired and when is not None and when.name == "persistent":
        when = Pattern("transient")  # it lost all votes until its state was replaced, and none since
    shown = when if when is not None else Pattern("transient")
    advice = wording.suggestion(charge.counts, shown, charge.target, repaired)
    detail = f" ({charge.details[0]})" if charge.details and not _plain(charge) else ""
    steps = _steps(charge, when)
    parts = [wording.deeds(charge.counts) + detail, *steps, *([str(when)] if when else []), *acted]
    return Culprit(
        charge, "proof", when, advice, acted, f"{charge.name}: {', '.join(parts)}; suggest: {advice}"
    )


def _repaired(history: History, charge: Charge) -> bool:
    """Whether its state was replaced, and nothing was entered against it since."""
    steps = [a.step for a in history.actions if a.action == "repair" and a.rank in charge.ranks]
    return bool(steps) and max(steps) >= (charge.last or 0)


def _pattern(history: History, charge: Charge) -> Pattern | None:
    """None where only counts are known, and for a rank that stayed away once: that may be for ever."""
    away = set(charge.counts) <= {"late", "named"} and len(charge.steps) < 2
    count = sum(charge.counts.values())
    if away or not charge.steps or (len(charge.steps) == 1 and count > 2):
        return None
    counted = charge.level == "worker" and any(worker in history.totals for worker in charge.workers)
    return pattern(charge.steps, history.last_step or 0, count if counted else 0)


def _ended_the_run(history: History, charge: Charge) -> bool:
    """Whether an error at the run's end names it: then it is the first to look at."""
    return any(rank in end.ranks for end in history.ends if end.reason for rank in charge.ranks)


def _plain(charge: Charge) -> bool:
    """Whether the details add nothing to the reasons."""
    return set(charge.counts) <= {"outvoted", "non-finite"}


def _suspect(history: History, charge: Charge, camps: bool) -> Culprit:
    advice = wording.suggestion(charge.counts, None, charge.target)
    acted = _acted(history, charge)
    since = f"{wording.deeds(charge.counts)}, since step {charge.steps[0]}"
    rate = rate_in_words(history.binding)
    if rate:
        rate = f"{rate} {wording.CONDITION.get(history.binding.test, '')}".strip()
    if camps:
        rate = "and perhaps of the honest minority: the rows form two camps"
    parts = [since, *([rate] if rate else []), *acted]
    sentence = f"{charge.name}: suspected, not proven: {', '.join(parts)}; suggest: {advice}"
    return Culprit(charge, "suspicion", None, advice, acted, sentence)


def _steps(charge: Charge, when: Pattern | None) -> list[str]:
    """Which steps, in a few words."""
    if not charge.steps:
        return [] if charge.last is None else [f"last at step {charge.last}"]
    if charge.last == charge.steps[0]:
        return [f"at step {charge.last}"]
    first = [f"first at step {charge.steps[0]}"]
    return first if when and when.name != "transient" else [*first, f"last at step {charge.last}"]


def _acted(history: History, charge: Charge) -> tuple[str, ...]:
    """What was done about a culprit: "excluded at step 420"."""
    texts = []
    for action in history.actions:
        place = history.bound(action.binding).place_of(action.worker)
        rank = action.rank if action.rank is not None else place.rank if place else None
        if action.worker in charge.workers or (action.worker is None and rank in charge.ranks):
            texts.append(f"{_DONE.get(action.action, action.action)} at step {action.step}")
    itself = [end.reason for end in history.ends if not end.ranks and end.source in charge.ranks]
    # An error that other ranks ended by as well, such as a policy's stop, is none of its own.
    others = {end.reason for end in history.ends if end.source not in charge.ranks}
    own = [reason for reason in itself if reason not in {"", *others} and not reason.startswith(_BY_LAUNCHER)]
    return (*texts, *(f"ended by its own error: {reason}" for reason in own))


def _warnings(history: History, notices: tuple[Entry, ...], proven: list[Charge]) -> tuple[Warned, ...]:
    grouped: dict[tuple[str, str], list[int]] = defaultdict(list)
    for entry in notices:
        fact = entry.evidence
        serious = fact.reason in wording.SERIOUS or fact.reason == "overflow"
        who = "" if serious else _who(history, entry)
        grouped[fact.reason, who].append(fact.step)
    warned = [
        Warned(
            reason,
            len(set(steps)),
            min(steps),
            f"{wording.notice(reason, len(set(steps)), who)} (first at step {min(steps)})",
            reason in wording.SERIOUS,
        )
        for (reason, who), steps in grouped.items()
    ]
    f = history.binding.f
    wrong = {worker for charge in proven for worker in charge.workers}
    if f is not None and len(wrong) > f:
        are = "1 worker is" if len(wrong) == 1 else f"{len(wrong)} workers are"
        text = f"{are} proven wrong and the rule tolerates f = {f}: do not trust the model"
        warned.append(Warned("more than f", len(wrong), None, text, serious=True))
    return tuple(sorted(warned, key=lambda warning: not warning.serious))


def _who(history: History, entry: Entry) -> str:
    fact = entry.evidence
    named = charges(history, [entry])
    return named[0].name if fact.worker is not None or fact.rank is not None else "somebody"


def _hosts(history: History, culprits: tuple[Culprit, ...]) -> tuple[Host, ...]:
    binding = history.binding
    names = dict.fromkeys(place.host for place in binding.places if place.host != "?")
    hosts = []
    for name in names:
        places = [place for place in binding.places if place.host == name]
        inside = [culprit.charge for culprit in culprits if culprit.charge.host == name]
        hosts.append(
            Host(
                name,
                tuple(place.rank for place in places),
                tuple(worker for place in places for worker in place.workers),
                tuple(dict.fromkeys(wording.device(place.device) for place in places)),
                tuple(charge.name for charge in inside),
                any(charge.level == "host" for charge in inside),
            )
        )
    return tuple(hosts)


def _line(
    history: History,
    culprits: tuple[Culprit, ...],
    suspects: tuple[Culprit, ...],
    warnings: tuple[Warned, ...],
) -> tuple[Literal["culprit", "warning", "suspect", "error", "clean"], str]:
    serious = [warning for warning in warnings if warning.serious]
    if culprits:
        return "culprit", _together(culprits, "culprits")
    if serious:
        return "warning", f"no worker is named; warning: {serious[0].text}"
    if suspects:
        return "suspect", _together(suspects, "suspects, not proven")
    failed = next((end for end in history.ends if end.reason), None)
    if failed is not None:
        ended = f"rank {failed.source} ended by an error at step {failed.step}: {failed.reason}"
        return "error", f"no worker is named; {_without_a_word(history) or ended}"
    return "clean", _clean(history)


def _without_a_word(history: History) -> str:
    """The only rank that wrote no end, where the launcher ended all others; "" if there is none.

    It is no proof, as the launcher may have killed it before it could write; but a launcher ends a job when a
    rank fails, and Open MPI ends it before the others have learnt which.
    """
    places, spoke = history.binding.places, {end.source for end in history.ends}
    silent = [place for place in places if place.rank not in spoke]
    launcher = all(end.reason.startswith(_BY_LAUNCHER) for end in history.ends)
    if len(silent) != 1 or len(places) < 3 or not launcher:
        return ""
    (place,), step = silent, max(end.step for end in history.ends)
    where = wording.where(place)
    name = f"rank {place.rank}" + (f" ({where})" if where else "")
    return f"the launcher ended the run after step {step}, and {name} alone left no word: look there first"


def _together(named: tuple[Culprit, ...], noun: str) -> str:
    if len(named) == 1:
        return named[0].sentence
    targets = list(dict.fromkeys(culprit.charge.target for culprit in named))
    return f"{len(named)} {noun}: {'; '.join(c.charge.name for c in named)}; look first at {targets[0]}"


def _clean(history: History) -> str:
    n, steps = history.binding.workers, history.steps
    if not steps:
        return "no step is recorded yet"
    over = f"{steps} step{'s' * (steps != 1)}" + (f" of {n} workers" if n else "")
    rate = rate_in_words(history.binding)
    tested = f"test: {history.binding.test}, {rate}" if rate else "no statistical test ran"
    if _too_few(history.binding):
        tested = "no statistical test ran, since it compares at least 3 workers or redundancy groups"
    return f"no worker is proven or suspected wrong in {over}; {tested}"


def rate_in_words(binding: Binding) -> str:
    """The test's false-alarm rate, for all workers together; empty where no test ran."""
    alpha = binding.alpha
    if not binding.test or not alpha or not 0 < alpha < 1 or _too_few(binding):
        return ""
    return f"at most 1 false alarm in {1 / alpha:,.0f} runs"


def _too_few(binding: Binding) -> bool:
    """Whether the test has too few rows to compare: of two rows none is unlike the others."""
    rows = binding.workers if binding.groups is None else len(binding.groups)
    return binding.test == "exchangeable" and rows is not None and rows < 3
