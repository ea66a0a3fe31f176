"""The report for a machine: plain values, whose keys stay (`docs/operating.md` lists them)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from horovod_byz.ledger.conclusion import Culprit
from horovod_byz.ledger.report.overview import Overview

__all__ = ["FORMAT", "plain"]

FORMAT = 1


def plain(shown: Overview) -> dict[str, Any]:
    """The report in values that JSON can hold; what was not measured is None."""
    conclusion, history = shown.conclusion, shown.history
    return {
        "format": FORMAT,
        "verdict": conclusion.verdict,
        "exit_code": conclusion.code,
        "line": conclusion.line,
        "culprits": [_culprit(culprit) for culprit in conclusion.culprits],
        "suspects": [_culprit(suspect) for suspect in conclusion.suspects],
        "warnings": [asdict(warning) for warning in conclusion.warnings],
        "hosts": [asdict(host) for host in conclusion.hosts],
        "run": _run(shown),
        "workers": [asdict(row) for row in shown.workers],
        "phases": shown.phases,
        "ranks": [asdict(times) for times in shown.ranks],
        "actions": [asdict(action) for action in history.actions],
        "notes": list(history.notes),
    }


def _run(shown: Overview) -> dict[str, Any]:
    history = shown.history
    binding = history.binding
    return {
        "path": str(history.path),
        "started": binding.started,
        "version": binding.version,
        "rule": binding.rule,
        "collect": binding.collect,
        "workers": binding.workers,
        "f": binding.f,
        "test": binding.test,
        "alpha": binding.alpha,
        "bindings": len(history.bindings),
        "steps": history.steps,
        "last_step": history.last_step,
        "state": shown.state,
        "ends": [asdict(end) for end in history.ends],
    }


def _culprit(culprit: Culprit) -> dict[str, Any]:
    charge, place = culprit.charge, culprit.charge.place
    return {
        "kind": culprit.kind,
        "level": charge.level,
        "worker": charge.workers[0] if charge.level == "worker" else None,
        "rank": charge.ranks[0] if len(charge.ranks) == 1 else None,
        "workers": list(charge.workers),
        "ranks": list(charge.ranks),
        "host": charge.host or None,
        "local_rank": place.local_rank if place else None,
        "device": place.device if place else None,
        "reasons": charge.counts,
        "first_step": charge.steps[0] if charge.steps else None,
        "last_step": charge.last,
        "pattern": culprit.pattern.name if culprit.pattern else None,
        "period": culprit.pattern.period if culprit.pattern else None,
        "detail": "; ".join(charge.details),
        "acted": list(culprit.acted),
        "suggestion": culprit.suggestion,
        "sentence": culprit.sentence,
    }
