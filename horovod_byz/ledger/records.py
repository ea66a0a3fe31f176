"""The format of a ledger's file: a JSON object a line, appended and flushed while the run goes on.

The folder that `DistributedOptimizer(..., ledger="runs/a")` names holds `ledger.jsonl`, written by
rank 0, and `ledger.rank3.jsonl` of each rank that had to say why it ended. A run that is resumed, or
another one with the same folder, appends a new "run" record. A reader skips a last line that is not whole,
and keys and records that it does not know. Every record has the key "record":

run: at binding, again after a new binding.
    format, version, started (ISO 8601, UTC), resumed (whether it goes on with the steps before it), workers
    (their number), rule, collect, groups (lists of workers, or null), f (rule.max_byzantine, or null),
    alpha, test ("exchangeable" or "own past"), places (a list of rank, workers, host, local_rank, device:
    see `Place`).
evidence: at once. The first pieces of each culprit and reason, then some of each window.
    step, kind, reason, worker, rank, detail (see `Evidence`), time (seconds since "started").
window: every 20 steps; windows grow, so that at most `WINDOWS` are written in a run of any length.
    first, last (steps), time, workers (a list of worker, weight, distance, norm, measured, proofs,
    suspicion: log10 of the e-value), phases (mean seconds of collect, aggregate, return, compute,
    apply, of rank 0), ranks (a list of rank, wait, compute: mean seconds). `measured` is in how many
    of the window's steps the distance was.
totals: with each window; the last counts.
    step, time, report (the ledger's `report()`), evidence_left_out (where pieces were).
action: when a policy acts.
    step, action ("exclude", "keep": not excluded, and why, "readmit", "warn", "stop", "repair"), worker,
    rank, detail.
end: when a script ends; by an error, each rank writes it into its own file, behind the run, the last
    evidence and the totals: the rank 0 that wrote the rest may be the one that is gone.
    step, time, reason ("" for a normal end, else the error's first line), ranks (those it names).

Workers and ranks count from 0, steps are optimizer steps from 0, times are seconds. Numbers that
are not finite are null.
"""

from __future__ import annotations

__all__ = ["FORMAT", "NAME", "WINDOWS", "rank_file"]

FORMAT = 1
NAME = "ledger.jsonl"
# Windows that a file keeps; later ones are longer, so that a file stays small in a run of any length.
WINDOWS = 512


def rank_file(rank: int) -> str:
    """The file of a rank that ended by an error."""
    return f"ledger.rank{rank}.jsonl"
