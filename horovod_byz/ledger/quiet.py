"""A listener that does nothing: the base of those that hear some things only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from horovod_byz.ledger.evidence import Action, Evidence

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger

__all__ = ["Quiet"]


class Quiet:
    """See `Listener`; a subclass says what it does."""

    def bound(self, ledger: Ledger, facts: dict[str, Any]) -> None: ...

    def entered(self, ledger: Ledger, evidence: Evidence) -> None: ...

    def acted(self, ledger: Ledger, action: Action) -> None: ...

    def stepped(self, ledger: Ledger, result: Any, step: int) -> None: ...

    def ended(self, ledger: Ledger, reason: str, ranks: Sequence[int]) -> None: ...
