"""What hears of a ledger's entries at once, and the listeners that every ledger has."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.journal import Journal
from horovod_byz.ledger.log import Log
from horovod_byz.ledger.quiet import Quiet
from horovod_byz.ledger.slow import SlowRanks

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger, Listener

__all__ = ["Callback", "Quiet", "standard"]


class Callback(Quiet):
    """Calls a function with each piece of evidence, on every rank; what the function raises ends the step."""

    def __init__(self, function: Callable[[Evidence], Any]) -> None:
        if not callable(function):
            raise TypeError(f"on_verdict must be a function of one Evidence, got {function!r}")
        self._function = function

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        self._function(evidence)


def standard(
    path: str | os.PathLike[str] | None,
    on_verdict: Callable[[Evidence], Any] | None,
    listeners: Sequence[Listener] = (),
) -> list[Listener]:
    """The listeners of a ledger, in the order in which they hear: a callback that raises comes last."""
    journal = [] if path is None else [Journal(path)]
    callback = [] if on_verdict is None else [Callback(on_verdict)]
    return [SlowRanks(), Log(), *journal, *listeners, *callback]
