"""Judges what the ranks of a scenario wrote: a pure function of their records and of the launch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.scenarios import STEPS, Scenario

Record = dict[str, Any]
TENSOR = re.compile(r"\b[02]\.(weight|bias)\b")  # of the scenarios' model


@dataclass(frozen=True)
class Reported:
    """What `horovod-byz report` says of a scenario's ledger: its first line, and its exit code."""

    line: str
    code: int


@dataclass(frozen=True)
class Launched:
    """What was seen of a launch besides its ranks' records.

    Attributes:
        ended: whether it ended by itself within its limit.
        seconds: how long it took.
        processes: processes that it left behind.
        files: files that it left in its folder for temporary ones.
        printed: what launcher and ranks printed.
        report: of the scenario's ledger.
    """

    ended: bool = True
    seconds: float = 0.0
    processes: int = 0
    files: int = 0
    printed: str = ""
    report: Reported = Reported("", 0)


@dataclass
class Verdict:
    """A scenario's outcome, and all that is wrong with it; green if nothing is."""

    row: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def need(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)


def judge(scenario: Scenario, records: Sequence[Record], launched: Launched, clean: str | None) -> Verdict:
    """Compares a scenario's records with what must come of it.

    Args:
        scenario: the scenario.
        records: what its ranks wrote, a record each; a rank that ended without a word has none.
        launched: its launch.
        clean: digest of the parameters after a run of this rule without faults, if there was one.
    """
    verdict = Verdict()
    named = named_by(records)
    by_launcher = scenario.killed and not named
    if by_launcher:
        named = {rank: "launcher" for rank in scenario.named if launcher_names(launched.printed, rank)}
    _ends(verdict, scenario, records, launched)
    _names(verdict, scenario, records, named)
    hosts = _hosts(named, records)
    if by_launcher:
        _report_of_killed(verdict, scenario, launched.report)
    else:
        _report(verdict, scenario, launched.report, hosts)
    differing, infinite = _parameters(verdict, scenario, records, clean)
    verdict.need(not launched.processes, f"{launched.processes} processes left behind")
    verdict.need(not launched.files, f"{launched.files} files left behind")
    others = [record for record in records if record["rank"] not in scenario.named] or [{}]
    verdict.row = {
        "scenario": scenario.name,
        "backend": scenario.backend,
        "ranks": scenario.ranks,
        "collect": scenario.collect,
        "rule": scenario.rule,
        "fault": scenario.name.partition(": ")[2],
        "ends": "/".join(sorted({record["ends"] for record in records})) or "ended by the launcher",
        "named": {str(rank): why for rank, why in sorted(named.items())},
        "hosts": hosts,
        "report": launched.report.line,
        "false_accusations": sorted(set(named) - set(scenario.named)),
        "first_step": _first_step(records, scenario),
        "steps_lost": _lost(scenario, others[0]),
        "seconds": max((record["seconds"] for record in records), default=None),
        "launch_seconds": round(launched.seconds, 1),
        "differing_ranks": differing,
        "nonfinite_ranks": infinite,
        "processes_left": launched.processes,
        "files_left": launched.files,
        "wrong": verdict.wrong,
    }
    return verdict


def named_by(records: Sequence[Record]) -> dict[int, str]:
    """Every rank that some rank accuses, and why: by proof or suspicion in its ledger, or by its error."""
    named: dict[int, str] = {}
    for record in records:
        for evidence in record["evidence"]:
            if evidence["kind"] != "notice" and evidence["rank"] is not None:
                named.setdefault(evidence["rank"], evidence["reason"])
            elif evidence["kind"] != "notice" and evidence["worker"] is not None:
                named.setdefault(evidence["worker"], evidence["reason"])  # a worker on each rank
        for rank in record["ranks"]:
            named.setdefault(rank, record["ends"])
    return named


def _hosts(named: dict[int, str], records: Sequence[Record]) -> dict[str, str]:
    """The host of each named rank: as the ledger says, or as the rank says itself; "?" where neither does."""
    itself = {record["rank"]: record["host"] for record in records}
    known = {int(rank): host for record in records for rank, host in record["places"].items()}
    return {str(rank): known.get(rank) or itself.get(rank, "?") for rank in sorted(named)}


def _report(verdict: Verdict, scenario: Scenario, report: Reported, hosts: dict[str, str]) -> None:
    """The report's first line names the culprit with its host, and nobody else; its exit code says so."""
    wanted = 2 if scenario.named else 0
    verdict.need(report.code == wanted, f"the report's exit code is {report.code}")
    if not scenario.named:
        clean = report.line.startswith("no worker is proven or suspected wrong in ")
        verdict.need(clean, f"the report of a run without a culprit says: {report.line}")
        return
    (rank,) = scenario.named
    host = hosts.get(str(rank), "?")
    begins = report.line.startswith(f"worker {rank} (rank {rank}, host {host}): ")
    verdict.need(begins, f"the report does not begin with rank {rank} on {host}: {report.line}")
    if scenario.reason:
        step = f"at step {scenario.seen_at},"
        verdict.need(step in report.line, f"the report does not say {step!r}: {report.line}")
    if scenario.expects_state:
        verdict.need(TENSOR.search(report.line) is not None, f"the report names no tensor: {report.line}")


def _report_of_killed(verdict: Verdict, scenario: Scenario, report: Reported) -> None:
    """Open MPI ends all ranks 0.1 s after one was killed: the report says where to look, or nothing."""
    verdict.need(report.code == 0, f"the report's exit code is {report.code}")
    named = re.findall(r"rank (\d+) \(host", report.line)
    right = report.line.startswith("no worker is named; ") and set(named) <= set(map(str, scenario.named))
    verdict.need(right, f"the report names another: {report.line}")


def launcher_names(printed: str, rank: int) -> bool:
    """Whether horovodrun (Gloo) or prterun (MPI) says which rank's process ended first, and badly."""
    said = (rf"Process name: {rank}\n", rf"process rank {rank} with PID", rf"Process name: \[\S+,{rank}\]\n")
    return any(re.search(text, printed) for text in said)


def _ends(verdict: Verdict, scenario: Scenario, records: Sequence[Record], launched: Launched) -> None:
    verdict.need(launched.ended, f"did not end within its limit of {launched.seconds:.0f} s")
    speaks = {record["rank"] for record in records}
    gone = set(scenario.named) if scenario.fatal else set()
    silent = set(range(scenario.ranks)) - speaks - gone
    verdict.need(scenario.killed or not silent, f"ranks {sorted(silent)} ended without a word")
    for record in records:
        if record["rank"] in gone:
            continue
        verdict.need(
            record["ends"] == scenario.ends,
            f"rank {record['rank']} ended with {record['ends']} ({record['text'][:300]})",
        )


def _names(verdict: Verdict, scenario: Scenario, records: Sequence[Record], named: dict[int, str]) -> None:
    innocent = sorted(set(named) - set(scenario.named))
    verdict.need(not innocent, f"innocent ranks {innocent} were named")
    missed = sorted(set(scenario.named) - set(named))
    verdict.need(not missed, f"ranks {missed} were not named")
    for record in records:
        if scenario.ends != "survives" and record["rank"] not in scenario.named:
            culprits = list(scenario.named)
            verdict.need(record["ranks"] == culprits, f"rank {record['rank']} names {record['ranks']}")
        notices = {e["reason"] for e in record["evidence"] if e["kind"] == "notice"}
        verdict.need(
            not scenario.notice or scenario.notice in notices, f"no notice {scenario.notice!r} was entered"
        )
        if scenario.reason:
            steps = [e["step"] for e in record["evidence"] if e["reason"] == scenario.reason]
            first = min(steps, default=None)
            verdict.need(first == scenario.seen_at, f"named first at {first}")
            faults = () if scenario.expects_state else scenario.faults.faults
            active = all(fault.active(step) for fault in faults for step in steps)
            verdict.need(active, f"named at steps {steps}, in some of which nothing was wrong")


def _parameters(
    verdict: Verdict, scenario: Scenario, records: Sequence[Record], clean: str | None
) -> tuple[int, int]:
    digests = Counter(record["digest"] for record in records if scenario.ends == record["ends"])
    differing = digests.total() - max(digests.values(), default=0)
    infinite = sum(not record["finite"] for record in records)
    wanted = len(scenario.named) if scenario.expects_state == "stop" else 0
    verdict.need(differing == wanted, f"{differing} ranks have other parameters than most")
    verdict.need(not infinite, f"{infinite} ranks have NaN or Inf in their parameters")
    if scenario.unchanged and clean is not None:
        same = digests.most_common(1)[0][0] == clean if digests else False
        verdict.need(same, "the model is not that of the run without faults")
    return differing, infinite


def _first_step(records: Sequence[Record], scenario: Scenario) -> int | None:
    """The step that the ledger or the error names first."""
    proofs = [e["step"] for r in records for e in r["evidence"] if e["kind"] != "notice"]
    ended = [r["steps"] for r in records if r["ranks"] and r["rank"] not in scenario.named]
    return min([*proofs, *ended], default=None)


def _lost(scenario: Scenario, record: Record) -> int | None:
    """Steps that were not taken, of a run that survives; else those taken since the fault, to be repeated."""
    if "steps" not in record:
        return None
    return STEPS - record["steps"] if scenario.ends == "survives" else max(0, record["steps"] - scenario.at)
