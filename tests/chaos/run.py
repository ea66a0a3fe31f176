"""`make chaos`: every scenario of the table with real processes under horovodrun, judged, and reported.

    python tests/chaos/run.py [--only TEXT] [--folder results/chaos]

Writes chaos.json after each launch, and README.md, which is a pure function of it. With --only the rows of
the other scenarios stay. Exit code 0 if every scenario that was run is green.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

import leftovers  # noqa: E402
from chaos.judge import Launched, Record, Reported, Verdict, judge  # noqa: E402
from chaos.page import text  # noqa: E402
from chaos.scenarios import BY_NAME, TABLE, Scenario, launches  # noqa: E402
from horovod_byz.cli.report_command import report  # noqa: E402
from horovod_byz.faults.faults import VARIABLE  # noqa: E402
from horovod_byz.ledger.lines import LedgerFileError  # noqa: E402
from rank_jobs import BACKENDS, HOROVODRUN, JOB, Job, built, environment  # noqa: E402

SETTLE = 8.0  # seconds that processes have to end after their launcher


def run(scenarios: Sequence[Scenario], python: Sequence[str] = (sys.executable,)) -> list[Verdict]:
    """Runs scenarios in one launch, whose ranks `python` starts, and judges each."""
    first = scenarios[0]
    limit = 300.0 + 12.0 * len(scenarios)  # a loaded machine takes minutes to start ranks
    with tempfile.TemporaryDirectory() as results, tempfile.TemporaryDirectory() as temporary:
        command = [*HOROVODRUN, "-np", str(first.ranks), *BACKENDS[first.backend]]
        command += [*python, str(HERE / "rank.py"), json.dumps([s.name for s in scenarios])]
        env = {**os.environ, **environment(), "RANK_RESULTS": results, "TMPDIR": temporary}
        if first.fatal:  # an unchanged script; scenarios that share a launch have faults of their own
            env[VARIABLE] = repr(first.faults)
        # On Gloo a rank that gave up waits so long for a frozen one at its exit; Horovod's default is 30 s.
        env["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "15"
        env["PYTHONPATH"] = f"{HERE.parent}{os.pathsep}{env['PYTHONPATH']}"
        begun = time.monotonic()
        with Job(command, env, limit) as job:
            ended = job.wait() is not None
            seconds = time.monotonic() - begun
            processes = left_running(job)
            printed = job.printed
        files = [path for path in pathlib.Path(temporary).rglob("*") if not path.is_dir()]
        launched = Launched(ended, seconds, processes, len(files), printed)
        reports = {s.name: reported(pathlib.Path(results, s.folder)) for s in scenarios}
        return judged(scenarios, read(pathlib.Path(results)), launched, reports)


def reported(folder: pathlib.Path) -> Reported:
    """What `horovod-byz report FOLDER` prints first, and its exit code; here without a process of its own."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = report(folder, as_json=False, page=None, live=False)
    except LedgerFileError as error:
        return Reported(str(error), 1)
    return Reported(printed.getvalue().partition("\n")[0], code)


def left_running(job: Job) -> int:
    """Processes of the job that still run a while after its launcher has ended."""
    deadline = time.monotonic() + SETTLE
    while (alive := leftovers.with_value(JOB, job.name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return sum(bool(leftovers.identity(pid)) for pid in alive)


def read(folder: pathlib.Path) -> list[Record]:
    """What all ranks wrote."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.open()]


def judged(
    scenarios: Sequence[Scenario],
    records: list[Record],
    launched: Launched,
    reports: Mapping[str, Reported],
) -> list[Verdict]:
    plain = {s.rule: s.name for s in scenarios if not s.faults and s.script == "plain"}
    digests = {r["scenario"]: r["digest"] for r in records}
    verdicts = []
    for scenario in scenarios:
        own = [record for record in records if record["scenario"] == scenario.name]
        clean = digests.get(plain.get(scenario.rule, ""))
        of_it = replace(of_launch(scenario, scenarios, own, launched), report=reports[scenario.name])
        verdicts.append(judge(scenario, own, of_it, clean))
    if any(verdict.wrong for verdict in verdicts):
        print("\n".join(launched.printed.splitlines()[-60:]), flush=True)
    return verdicts


def of_launch(
    scenario: Scenario, scenarios: Sequence[Scenario], own: Sequence[Record], launched: Launched
) -> Launched:
    """What a launch says about one of its scenarios: its end and what it left belong to the last one.

    A launch that hung also speaks against the scenarios that some rank did not end.
    """
    if scenario is scenarios[-1]:
        return launched
    complete = len({record["rank"] for record in own}) == scenario.ranks
    return replace(launched, ended=launched.ended or complete, processes=0, files=0)


def environment_of_results() -> dict[str, Any]:
    """What the results depend on."""
    import torch
    from horovod import __version__ as horovod

    import horovod_byz

    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "horovod_byz": horovod_byz.__version__,
        "horovod": horovod,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }


def kept(file: pathlib.Path) -> dict[str, Any]:
    """The rows of earlier runs, by scenario, without those that the table no longer has."""
    rows = json.loads(file.read_text())["scenarios"] if file.exists() else []
    return {row["scenario"]: row for row in rows if row["scenario"] in BY_NAME}


def save(folder: pathlib.Path, rows: dict[str, Any]) -> None:
    """Writes the rows in the table's order, and the page."""
    ran = [[rows[s.name]["launch_seconds"] for s in group if s.name in rows] for group in launches(TABLE)]
    seconds = round(sum(max(times, default=0) for times in ran))
    ordered = [rows[scenario.name] for scenario in TABLE if scenario.name in rows]
    results = {**environment_of_results(), "seconds": seconds, "scenarios": ordered}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaos.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "README.md").write_text(text(results))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the scenarios whose names contain this text")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "results" / "chaos")
    arguments = parser.parse_args()
    chosen = tuple(s for s in TABLE if arguments.only in s.name and built(s.backend))
    rows = kept(arguments.folder / "chaos.json") if arguments.only else {}
    red = 0
    for scenarios in launches(chosen):
        for verdict in run(scenarios):
            rows[verdict.row["scenario"]] = verdict.row
            red += bool(verdict.wrong)
            mark = "RED  " if verdict.wrong else "green"
            print(f"{mark} {verdict.row['scenario']} {'; '.join(verdict.wrong)}", flush=True)
        save(arguments.folder, rows)
    print(f"{len(chosen) - red} of {len(chosen)} scenarios are green")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
