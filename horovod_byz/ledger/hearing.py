"""Listening to a ledger for the length of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.ledger.quiet import Quiet
from horovod_byz.ledger.truth import GroundTruth

__all__ = ["books_of", "hearing"]


class _Heard(Quiet):
    """A listener that keeps what is entered."""

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        self.evidence.append(evidence)


@contextmanager
def hearing(ledger: Any) -> Iterator[list[Evidence]]:
    """Inside, lists the evidence that is entered in a ledger."""
    heard, books = _Heard(), books_of(ledger)
    for book in books:
        book.listeners.append(heard)
    try:
        yield heard.evidence
    finally:
        for book in books:
            book.listeners.remove(heard)


def books_of(ledger: Any) -> tuple[Ledger, ...]:
    """The ledger itself, or those of a `GroundTruth`, an operator's first."""
    if not isinstance(ledger, GroundTruth):
        return (ledger,)
    return ledger.whole, ledger.byzantine, ledger.honest
