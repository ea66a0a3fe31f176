"""What the report says of each kind of evidence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from horovod_byz.host.place import Place
from horovod_byz.ledger.evidence import NOTICES, PROOFS, SUSPICIONS
from horovod_byz.ledger.pattern import Pattern

__all__ = [
    *("ASSUMES", "CONDITION", "SERIOUS"),
    *("deeds", "device", "listed", "meaning", "notice", "suggestion", "where"),
]

# Notices after which no conclusion about single workers holds: more than f of them may be wrong.
SERIOUS = frozenset({"two camps", "no majority"})

# The tests of a "run" record: what each compares, and what it assumes.
ASSUMES = {
    "exchangeable": "each worker against the others, which assumes that their data are shuffled",
    "own past": "each worker against its own past, which assumes that its data do not change at a step",
}

# The same in a few words, behind a false-alarm rate, which holds under no other condition.
CONDITION = {
    "exchangeable": "if workers draw their data alike (shuffled)",
    "own past": "if no worker's data change at a step",
}

_DEEDS = {
    "outvoted": "lost {votes}",
    "non-finite": "sent NaN or infinite values in {steps}",
    "two stories": "gave different ranks different data in {steps}",
    "header": "announced another step, length, dtype, mode, rule or policy than the others, {times}",
    "late": "did not arrive in time, {times}",
    "state": "held another state than most ranks, {times}",
    "aggregate": "returned a wrong aggregate in {steps}",
    "named": "is named by the error that ended the run",
    "unlike the others": "sends gradients unlike the others'",
    "unlike its own past": "sends gradients unlike its own earlier ones",
}

_NOTICES = {
    "altered in transit": "{who} is the victim of a rank that relays its rows: altered in transit in {steps}",
    "complaint": "{who} says that rows arrive altered, and no other rank does, in {steps}: its link is "
    "disturbed, or it lies",
    "overflow": "over half of the workers sent NaN or infinite values in {steps}: look at the loss and its "
    "scale, not at a worker",
    "two camps": "the rows form two camps in {steps}: more workers than the rule tolerates, perhaps the "
    "majority, may be wrong",
    "no majority": "a redundancy group had no majority in {steps}: more than half of it may be wrong",
    "slow": "{who} keeps the others waiting",
}


def deeds(counts: Mapping[str, int]) -> str:
    """What a worker or rank did, most frequent first: "lost 3 votes"."""
    done = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return " and ".join(_counted(_DEEDS, reason, count) for reason, count in done)


def notice(reason: str, count: int, who: str) -> str:
    """A notice in a sentence, with the number of its steps."""
    if reason not in _NOTICES:
        return f"{who}: {_counted(_NOTICES, reason, count)}"
    return _counted(_NOTICES, reason, count, who)


def _counted(texts: Mapping[str, str], reason: str, count: int, who: str = "") -> str:
    times = "once" if count == 1 else f"{count} times"
    if reason not in texts:  # of a later version; it is no format, and may hold braces
        return f"{reason or 'a reason without a name'}, {times}"
    votes, steps = (f"{count} {noun}{'s' * (count != 1)}" for noun in ("vote", "step"))
    return texts[reason].format(votes=votes, steps=steps, times=times, who=who)


def meaning(reason: str) -> str:
    """What a reason means, for a reader who sees it for the first time."""
    return {**PROOFS, **SUSPICIONS, **NOTICES}.get(reason, "")


def suggestion(counts: Mapping[str, int], when: Pattern | None, target: str, repaired: bool = False) -> str:
    """What to do about a culprit.

    Args:
        counts: steps by reason.
        when: the pattern of its faults; None for a suspicion.
        target: what to act on: a host, or a worker or rank whose host is not known.
        repaired: whether its state was replaced from the majority's, and it did nothing wrong since.
    """
    if when is None:
        return f"watch {target}, look at its data"
    if "two stories" in counts:
        return f"drain {target} and treat it as hostile until shown otherwise"
    if set(counts) <= {"late", "named"}:
        return f"look whether {target} is up, and at its log; restart without it if it is not"
    if set(counts) == {"header"}:
        return f"compare the script, its settings and versions on {target} with the others"
    if "state" in counts and set(counts) <= {"state", "outvoted"}:  # it loses votes until it is repaired
        then = f"watch {target}, drain it at the next" if repaired else f"drain {target}"
        return then if repaired else f"{then}, restart from a checkpoint"
    if set(counts) == {"non-finite"} and when.name != "transient":
        return f"look at the worker's data; if they are sound, drain {target}"
    if sum(counts.values()) == 1:
        return f"watch {target}, drain it at the next"
    return f"drain {target}"


def device(name: str) -> str:
    """A device in short: "GPU 2" for "cuda:2 NVIDIA H200 GPU-5d3f"."""
    first = name.split(" ")[0]
    kind, _, index = first.partition(":")
    return f"GPU {index}" if kind == "cuda" and index.isdecimal() else first


def where(place: Place) -> str:
    """Host and device: "host b, GPU 2"; without what is not known, and without a device that is a CPU."""
    host = f"host {place.host}" if place.host != "?" else ""
    name = device(place.device)
    return ", ".join(part for part in (host, name) if part not in ("", "cpu"))


def listed(numbers: Iterable[int], noun: str) -> str:
    """Numbers with their noun: "rank 2", "ranks 2 and 3", "workers 0 to 6"; "" for none."""
    at = sorted(set(numbers))
    if len(at) < 2:
        return "".join(f"{noun} {number}" for number in at)
    if len(at) > 2 and at[-1] - at[0] == len(at) - 1:
        return f"{noun}s {at[0]} to {at[-1]}"
    return f"{noun}s {', '.join(map(str, at[:-1]))} and {at[-1]}"
