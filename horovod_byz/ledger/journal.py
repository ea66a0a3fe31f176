"""The ledger's file: written while the run goes on, and complete to the last step after `kill -9`.

See `records` for the format. A file is small whatever the length of the run: windows grow, and of repeated
evidence only the first pieces and some of each window are written; the totals count all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from horovod_byz.host.machine import version_of
from horovod_byz.ledger import endings
from horovod_byz.ledger.appended import AppendedLines, check_folder
from horovod_byz.ledger.evidence import Action, Evidence
from horovod_byz.ledger.log import LOGGER
from horovod_byz.ledger.quiet import Quiet
from horovod_byz.ledger.records import FORMAT, NAME, rank_file
from horovod_byz.ledger.windows import Window

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger

__all__ = ["Budget", "Journal"]

FIRST = 100  # pieces of evidence of one culprit and reason that are written in any case
IN_WINDOW = 2  # then so many of each window
MOST = 2000  # of all culprits together that are written in any case
MOST_IN_WINDOW = 64
LAST_WORDS = 100  # pieces that a rank repeats in its own file when it ends by an error


class Budget:
    """Says which evidence is written; the first of each culprit and reason always is."""

    def __init__(self) -> None:
        self._of: Counter[tuple[Any, ...]] = Counter()
        self._in_window: Counter[tuple[Any, ...]] = Counter()
        self._written = self._written_in_window = self.left_out = 0

    def allows(self, evidence: Evidence) -> bool:
        """Whether a piece is written; counts it."""
        key = (evidence.worker, evidence.rank, evidence.reason)
        early = self._of[key] < FIRST and self._written < MOST
        recent = self._in_window[key] < IN_WINDOW and self._written_in_window < MOST_IN_WINDOW
        allowed = self._of[key] == 0 or early or recent
        if allowed:
            self._of[key] += 1
            self._in_window[key] += 1
            self._written += 1
            self._written_in_window += 1
        else:
            self.left_out += 1
        return allowed

    def window(self) -> None:
        """A new window begins."""
        self._in_window.clear()
        self._written_in_window = 0


class Journal(Quiet):
    """Writes a ledger's file: rank 0 `ledger.jsonl`, and every rank its own when it ends by an error.

    The folder may hold an earlier run: it stays, and a "run" record begins the new one. So a job that is
    started again, by hand or by a scheduler, neither stops at its old file nor destroys it.

    Args:
        folder: made where it does not exist; of a copied or pickled journal, opened anew.

    Raises:
        OSError: if the folder cannot be made or written; on every rank that cannot.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()  # a script may go to another folder
        check_folder(self.folder)
        self._lines = AppendedLines(self.folder / NAME)
        self._run: dict[str, Any] | None = None
        self._budget, self._window = Budget(), Window()
        self._clock = time.time()
        self._ended: str | None = None
        self._warned = False

    def bound(self, ledger: Ledger, facts: dict[str, Any]) -> None:
        self._close_window(ledger)
        self._clock = time.time()
        resumed = ledger.steps > 0
        if not resumed:
            self._budget, self._window = Budget(), Window()
        self._run = {
            **_first_record(self._clock, resumed),
            **facts,
            "alpha": getattr(ledger, "alpha", None),
            "test": getattr(ledger, "test", None),
            "places": [vars(place) for place in ledger.places],
        }
        self._ended = None
        endings.watch(self.folder, ledger)
        if ledger.rank == 0:
            self._lines.write([self._run])
        else:
            self._lines.release()

    def entered(self, ledger: Ledger, evidence: Evidence) -> None:
        if evidence.kind == "proof":
            self._window.prove(evidence.worker)
        if ledger.rank == 0 and self._budget.allows(evidence):
            self._lines.write([{**evidence.to_json(), "time": self._time()}])

    def acted(self, ledger: Ledger, action: Action) -> None:
        if ledger.rank == 0:
            self._lines.write([{**action.to_json(), "time": self._time()}])

    def stepped(self, ledger: Ledger, result: Any, step: int) -> None:
        self._ended = None
        if ledger.rank == 0:
            self._warn_if_shared(ledger)
            self._window.add(result, step)
            if self._window.is_full:
                self._close_window(ledger)

    def ended(self, ledger: Ledger, reason: str, ranks: Sequence[int]) -> None:
        if self._ended is not None and reason in ("", self._ended):
            return  # said already: an error ends a step first, and then the script
        self._ended = reason
        self._close_window(ledger)
        end = {
            "record": "end",
            "step": max(0, ledger.steps - 1),
            "time": self._time(),
            "reason": reason,
            "ranks": list(ranks),
        }
        if reason:
            last = [evidence.to_json() for evidence in list(ledger.evidence)[-LAST_WORDS:]]
            records = [*([] if self._run is None else [self._run]), *last, self._totals(ledger), end]
            AppendedLines(self.folder / rank_file(ledger.rank or 0)).write(records)
        elif ledger.rank == 0:
            self._lines.write([end])

    def _warn_if_shared(self, ledger: Ledger) -> None:
        """Warns once if another ledger of this process has begun to write to the folder."""
        if not self._warned and endings.owner_of(self.folder) not in (None, ledger):
            self._warned = True
            LOGGER.error(
                "two ledgers of this process write to %s: the report would show the later one only; give "
                "each optimizer a folder of its own",
                self.folder,
            )

    def _close_window(self, ledger: Ledger) -> None:
        window = self._window
        if ledger.rank == 0 and window.steps:
            test = getattr(ledger, "suspicion", None)  # None for a ledger without a test
            log10 = _unknown if test is None else test.log10
            self._lines.write([window.record(self._time(), log10), self._totals(ledger)])
            self._window = Window(window.number + 1)
            self._budget.window()

    def _totals(self, ledger: Ledger) -> dict[str, Any]:
        left_out = self._budget.left_out
        step = max(0, ledger.steps - 1)
        totals = {"record": "totals", "step": step, "time": self._time(), "report": ledger.report()}
        return {**totals, "evidence_left_out": left_out} if left_out else totals

    def _time(self) -> float:
        return round(time.time() - self._clock, 3)


def _unknown(worker: int) -> None:
    return None


def _first_record(now: float, resumed: bool) -> dict[str, Any]:
    return {
        "record": "run",
        "format": FORMAT,
        "version": version_of("horovod-byz"),
        "started": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "resumed": resumed,
    }
