"""Python logging: a line for each culprit, once for each reason, the moment that it is entered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from horovod_byz.ledger.evidence import NOTICES, PROOFS, SUSPICIONS, Action, Evidence
from horovod_byz.ledger.quiet import Quiet

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger

__all__ = ["LOGGER", "Log", "sentence"]

LOGGER = logging.getLogger("horovod_byz")
_MEANINGS = {**PROOFS, **SUSPICIONS, **NOTICES}


class Log(Quiet):
    """Warns on the logger "horovod_byz", on rank 0 of a job, so that a culprit is on one screen once."""

    def __init__(self) -> None:
        self._said: set[tuple[int | None, int | None, str]] = set()

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        culprit = (evidence.worker, evidence.rank, evidence.reason)
        if ledger.rank == 0 and culprit not in self._said:
            self._said.add(culprit)
            LOGGER.warning("%s", sentence(ledger, evidence))

    def acted(self, ledger: Ledger, action: Action) -> None:
        if action.action == "readmit":
            self._said = {culprit for culprit in self._said if culprit[0] != action.worker}
        if ledger.rank == 0:
            who = _who(ledger, action) if action.worker is None else ""  # a policy's words name the worker
            LOGGER.warning("%s at step %d: %s%s", action.action, action.step, who, _plain(action.detail))


def sentence(ledger: Ledger, evidence: Evidence) -> str:
    """The evidence in one line: worker, rank, host and device, the step, and the reason."""
    detail = f" ({_plain(evidence.detail)})" if evidence.detail else ""
    meaning = _MEANINGS.get(evidence.reason, "")
    what = f"{_who(ledger, evidence)}{evidence.reason}: {meaning}{detail}"
    return f"{evidence.kind} at step {evidence.step}: {what}"


def _who(ledger: Ledger, evidence: Evidence | Action) -> str:
    place = next((place for place in ledger.places if place.rank == evidence.rank), None)
    where = f"rank {evidence.rank}" if evidence.rank is not None else ""
    if place is not None:
        where = f"{where}, host {place.host}, local rank {place.local_rank}, {place.device}"
    if evidence.worker is not None:
        return f"worker {evidence.worker}" + (f" ({where}): " if where else ": ")
    return f"{where}: " if where else ""


def _plain(text: str) -> str:
    """The text in one line of printable ASCII: it may hold what a peer sent."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
