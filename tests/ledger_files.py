"""Ledger files as a run writes them, one scenario each: what the tests of the report read.

Written from the format alone (`horovod_byz.ledger.records`), and not by the code that writes a ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HOSTS = "aabbccdd"
WORKERS = len(HOSTS)


def places(hosts: Iterable[str] = HOSTS, workers: int = 1) -> list[dict[str, Any]]:
    """One rank for each host name, on its own GPU, with so many workers each."""
    hosts, seen = list(hosts), []
    for rank, host in enumerate(hosts):
        local = hosts[:rank].count(host)
        held = list(range(rank * workers, (rank + 1) * workers))
        device = f"cuda:{local} NVIDIA H200 GPU-{host}{local}"
        seen.append({"rank": rank, "workers": held, "host": host, "local_rank": local, "device": device})
    return seen


class Writer:
    """Builds the records of one file.

    Args:
        fields: keys of the first "run" record to replace.
    """

    def __init__(self, **fields: Any) -> None:
        self.records: list[dict[str, Any]] = []
        self.reasons: dict[int, dict[str, int]] = {}
        self.run(**fields)

    def run(self, **fields: Any) -> Writer:
        self.bound = {
            "record": "run",
            "format": 1,
            "version": "0.3.0",
            "started": "2026-11-26T16:00:00+00:00",
            "workers": WORKERS,
            "rule": "MultiKrum(f=2)",
            "collect": "symmetric",
            "groups": None,
            "f": 2,
            "alpha": 0.001,
            "test": "exchangeable",
            "places": places(),
            "a key of a later version": {"x": 1},
            **fields,
        }
        self.records.append(self.bound)
        return self

    def evidence(self, step: int, reason: str, worker: int | None = None, **fields: Any) -> Writer:
        kind = fields.pop("kind", "proof")
        rank = next((p["rank"] for p in self.bound["places"] if worker in p["workers"]), None)
        record = {"step": step, "kind": kind, "reason": reason, "worker": worker, "rank": rank, "detail": ""}
        self.records.append({"record": "evidence", **record, "time": step * 0.1, **fields})
        if worker is not None:
            counts = self.reasons.setdefault(worker, {})
            counts[reason] = counts.get(reason, 0) + 1
        return self

    def window(self, first: int, last: int, proofs: dict[int, int] | None = None, **fields: Any) -> Writer:
        n = self.bound["workers"]
        workers = [
            {
                "worker": worker,
                "weight": 1 / n,
                "distance": 1.0 + 0.01 * worker,
                "norm": 3.0,
                "measured": last - first + 1,
                "proofs": (proofs or {}).get(worker, 0),
                "suspicion": 0.1 * worker,
            }
            for worker in range(n)
        ]
        ranks = [{"rank": p["rank"], "wait": 0.01, "compute": 0.2} for p in self.bound["places"]]
        phases = {"compute": 0.2, "collect": 0.01, "aggregate": 0.004, "return": 0.001, "apply": 0.002}
        record = {"first": first, "last": last, "time": last * 0.1, "workers": workers, "phases": phases}
        self.records.append({"record": "window", **record, "ranks": ranks, **fields})
        return self

    def windows(self, steps: int, proofs: dict[int, list[int]] | None = None, **fields: Any) -> Writer:
        for first in range(0, steps, 20):
            last = min(first + 19, steps - 1)
            inside = {w: sum(first <= at <= last for at in steps) for w, steps in (proofs or {}).items()}
            self.window(first, last, inside, **fields)
        return self.totals(steps)

    def totals(self, steps: int) -> Writer:
        workers = [
            {
                "worker": worker,
                "steps": steps,
                "mean_weight": 1 / self.bound["workers"],
                "ignored": 0,
                "reasons": self.reasons.get(worker, {}),
                "absent": 0,
                "mean_distance": 1.0,
                "last_suspect_step": None,
                "group": None,
            }
            for worker in range(self.bound["workers"])
        ]
        report = {"steps": steps, "suspects": [], "workers": workers}
        self.records.append({"record": "totals", "step": steps - 1, "time": steps * 0.1, "report": report})
        return self

    def action(self, step: int, action: str, worker: int | None = None, **fields: Any) -> Writer:
        record = {"step": step, "action": action, "worker": worker, "rank": worker, "detail": "", **fields}
        self.records.append({"record": "action", **record})
        return self

    def end(self, step: int, reason: str = "", ranks: Iterable[int] = ()) -> Writer:
        self.records.append(end(step, reason, ranks))
        return self

    def without_end(self) -> Writer:
        self.records = [record for record in self.records if record["record"] != "end"]
        return self

    def text(self) -> str:
        return "".join(json.dumps(record) + "\n" for record in self.records)

    def into(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ledger.jsonl").write_text(self.text())
        return folder


def end(step: int, reason: str = "", ranks: Iterable[int] = ()) -> dict[str, Any]:
    return {"record": "end", "step": step, "time": step * 0.1, "reason": reason, "ranks": list(ranks)}


def rank_ends(folder: Path, ends: dict[int, dict[str, Any]]) -> Path:
    """Writes the files of ranks that ended by an error."""
    for rank, record in ends.items():
        (folder / f"ledger.rank{rank}.jsonl").write_text(json.dumps(record) + "\n")
    return folder


def lost(steps: Iterable[int], run: int = 1000, worker: int = 3, **fields: Any) -> Writer:
    """A worker loses the vote of its group at some steps."""
    steps = list(steps)
    writer = Writer(groups=[[0, 3, 6], [1, 4, 7], [2, 5]], rule="Detox(...)", **fields)
    for at in steps:
        writer.evidence(at, "outvoted", worker)
    return writer.windows(run, {worker: steps}).end(run)


def clean() -> Writer:
    return Writer().windows(100).end(100)


def not_a_number() -> Writer:
    writer = Writer()
    for step in range(40, 100):
        writer.evidence(step, "non-finite", 5, detail="12 values")
    return writer.windows(100, {5: list(range(40, 100))}).end(100)


def late_rank(folder: Path) -> Path:
    error = "LateRanksError: rank 1 on a (local rank 1, cuda:1) did not arrive in time at step 30"
    Writer().windows(29).evidence(30, "late", 1).end(30, error, [1]).into(folder)
    # Ranks that end after the others name those that left before them.
    return rank_ends(folder, {0: end(30, error, [1]), 2: end(30, error, [1]), 3: end(30, error, [0, 1])})


def killed() -> Writer:
    return lost([12], run=60).without_end()


def whole_host() -> Writer:
    writer = Writer()
    for step in (50, 70, 90, 95):
        for worker in (2, 3):
            writer.evidence(step, "non-finite", worker)
    return writer.windows(100).end(100)


def suspicion() -> Writer:
    writer = Writer().evidence(210, "unlike the others", 5, kind="suspicion", detail="e-value 1e4.2")
    return writer.windows(400).end(400)


def two_camps() -> Writer:
    writer = Writer()
    for step in range(20, 100):
        writer.evidence(step, "two camps", kind="notice")
    writer.evidence(60, "unlike the others", 2, kind="suspicion")
    return writer.windows(100).end(100)


def repaired_state() -> Writer:
    writer = Writer().evidence(400, "state", rank=2, detail="layer1.weight, tile 7")
    return writer.action(400, "repair", rank=2).windows(500).end(500)


def slow_rank() -> Writer:
    writer = Writer().evidence(40, "slow", rank=4, kind="notice", detail="3.1 times the others' seconds")
    slow = [{"rank": r, "wait": 0.6 * (r != 4), "compute": 0.8 if r == 4 else 0.2} for r in range(WORKERS)]
    return writer.windows(100, ranks=slow).end(100)


def elastic() -> Writer:
    """Worker 3 on host b fails; after a new binding without host a the same GPU holds worker 1."""
    writer = Writer().evidence(10, "outvoted", 3).windows(20)
    writer.run(workers=6, places=places("bbccdd"), started="2026-11-26T16:10:00+00:00", resumed=True)
    return writer.evidence(30, "outvoted", 1).evidence(35, "outvoted", 1).windows(60).end(60)


def hostile() -> Writer:
    named = places()
    named[3]["host"] = "<script>alert(1)</script>"
    named[4]["host"] = "[red]b[/red]\x1b[31m"
    named[4]["device"] = "{{ 7 * 7 }} 'x' \"y\""
    writer = Writer(places=named).evidence(5, "outvoted", 3, detail="<img src=x onerror=alert(2)>")
    return writer.evidence(7, "state", 4, detail="[bold]layer[/bold] {n}").windows(40).end(40)


def example() -> Writer:
    """What the documentation shows: a GPU that flips bits, a suspect, and a slow rank."""
    writer = Writer(groups=[[0, 3, 6], [1, 4, 7], [2, 5]], rule="Detox(r=3, MultiKrum, Median)")
    lost = [412, 530, 871]
    for step in lost:
        writer.evidence(step, "outvoted", 3)
    writer.evidence(640, "unlike the others", 5, kind="suspicion", detail="e-value 8.9e+03 over 640 steps")
    writer.evidence(700, "slow", 6, kind="notice", detail="computes 0.31 s, the others 0.2 s")
    for first in range(0, 1000, 20):
        writer.window(first, first + 19, {3: sum(first <= step < first + 20 for step in lost)})
        for account in writer.records[-1]["workers"]:
            account["weight"] = None
            grown = min(4.2, 4.2 * max(0, first - 380) / 260) if account["worker"] == 5 else 0.0
            account["suspicion"] = grown
        for times in writer.records[-1]["ranks"]:
            times.update({"compute": 0.31, "wait": 0.0} if times["rank"] == 6 else {"wait": 0.11})
    writer.totals(1000)
    for account in writer.records[-1]["report"]["workers"]:
        account["mean_weight"] = None
    return writer.end(999)


SCENARIOS: dict[str, Callable[[], Writer]] = {
    "clean": clean,
    "transient": lambda: lost([412]),
    "periodic": lambda: lost(range(7, 1000, 7)),
    "persistent": lambda: lost(range(412, 1000)),
    "nan": not_a_number,
    "killed": killed,
    "host": whole_host,
    "suspicion": suspicion,
    "two camps": two_camps,
    "state": repaired_state,
    "slow": slow_rank,
    "elastic": elastic,
    "hostile": hostile,
    "example": example,
}
