"""What is entered against a worker or a rank: proof, or a statistical test that it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["NOTICES", "PROOFS", "SUSPICIONS", "Action", "Evidence", "Kind"]

Kind = Literal["proof", "suspicion", "notice"]

# One occurrence of these names the worker or rank: no honest one produces them.
PROOFS = {
    "non-finite": "sent NaN or infinite values",
    "outvoted": "sent another gradient than the replicas of its group",
    "two stories": "gave different ranks different data",
    "header": "announced another step, length, dtype, mode, rule or policy than the other ranks",
    "late": "did not arrive in time",
    "state": "holds other parameters, buffers or optimizer state than most ranks",
    "aggregate": "returned another result than the other aggregators of its shard",
}
# A test with a stated false-alarm rate; the ledger's report says what each assumes.
SUSPICIONS = {
    "unlike the others": "sends gradients unlike the others', which accuses it only if all draw their data "
    "alike (shuffled)",
    "unlike its own past": "sends gradients unlike its own earlier ones, which accuses it only if its data "
    "did not change",
}
# Worth an operator's attention, and nobody's proven fault.
NOTICES = {
    "altered in transit": "its row was rewritten by a rank that relays it; it is the victim",
    "complaint": "says that rows arrived altered, and no other rank does: its link is disturbed, or it lies",
    "overflow": "over half of the workers sent NaN or infinite values: look at the loss, not at a worker",
    "two camps": "the rows form two camps: more than f workers, perhaps the majority, may be wrong",
    "no majority": "a redundancy group had no majority: more than half of it may be wrong",
    "slow": "keeps the others waiting",
}


@dataclass(frozen=True)
class Evidence:
    """A proof, a suspicion or a notice, of one step.

    Attributes:
        step: the optimizer step.
        kind: "proof", "suspicion" or "notice".
        reason: a key of `PROOFS`, `SUSPICIONS` or `NOTICES`.
        worker: the worker, or None where a rank acted for no worker: as aggregator, relay, or with its state.
        rank: its rank, or None where ranks are not known, as for rows that no session collected.
        detail: more, such as the first tensor that differs, or the number of non-finite values.
    """

    step: int
    kind: Kind
    reason: str
    worker: int | None = None
    rank: int | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its fields as a record of the ledger's file."""
        return {"record": "evidence", **vars(self)}


@dataclass(frozen=True)
class Action:
    """What the library did about a worker or a rank, as a record of the ledger's file.

    Attributes:
        step: the optimizer step.
        action: "repair", "exclude", "stop" or "readmit".
        worker: the worker, or None where it concerns a rank.
        rank: its rank, or None where ranks are not known.
        detail: more, such as the tensor that was replaced.
    """

    step: int
    action: str
    worker: int | None = None
    rank: int | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its fields as a record of the ledger's file."""
        return {"record": "action", **vars(self)}
