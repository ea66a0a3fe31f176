"""The page of the step benchmark: pure functions of its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from horovod_byz.bench.step_variants import PARTS

__all__ = ["headline", "page", "title"]

_MEANING = """A ratio is the time of a step over that of {baseline}'s own optimizer in the same round of
the same job: the median over the rounds, with the quartiles. "Whole step" includes forward and backward
pass; "synchronize" is the communication and aggregation alone, which DDP cannot do without a backward pass.
The parts are those of the slowest rank, medians in milliseconds: *compute* is forward and backward (with
the sends that the baseline starts meanwhile), *around* the copies between gradients and row, and the
ledger; for the baseline all of its synchronize(). *Sent* are the bytes of the rank that sends most, over 4
d (not counted under MPI on loopback, which copies through memory); *memory* is the peak beyond that of a
step without communication, of the rank that takes most, over 4 d. Horovod's own buffers count for Horovod
alone, though the others use them too."""


def headline(jobs: Iterable[Mapping[str, Any]]) -> str:
    """One line for the README: sharded Median beside Horovod's own; empty where it was not measured."""
    for job in jobs:
        if (job["backend"], job["ranks"], job["model"], job["network"]) != ("gloo", 4, "large", "loopback"):
            continue
        if job["loaded"]:
            continue
        for entry in job["variants"]:
            if entry["name"] == "Median, sharded":
                return (
                    f'A training step with `rule=hb.Median(), collect="sharded"` takes '
                    f"**{entry['ratio']['mid']:.2f}** times ({_quartiles(entry['ratio'])}) as long as with "
                    f"Horovod's own optimizer, which averages: {job['ranks']} ranks, Gloo, "
                    f"d = {job['d']:,}, {job['machine']['cores']} cores (`make bench-step`)."
                )
    return ""


def page(jobs: Iterable[Mapping[str, Any]]) -> str:
    """The page of one machine's results, in Markdown.

    Args:
        jobs: as results.json holds them.
    """
    jobs = sorted(jobs, key=_order)
    machine = jobs[0]["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, level {machine['level']}"
    lines = ["# The price of a step", "", f"{where}. Made by `make bench-step`; how to read it stands below."]
    line = headline(jobs)
    lines += ["", line] if line else []
    lines += ["", "![Time of a step over that of the own optimizer](step.png)"]
    for job in jobs:
        lines += ["", f"## {title(job)}", "", _circumstances(job), "", *_table(job)]
    own = " or ".join(sorted({job["baseline"] for job in jobs}, reverse=True))
    lines += ["", "## How to read it", "", _MEANING.format(baseline=own)]
    return "\n".join(lines) + "\n"


def title(job: Mapping[str, Any]) -> str:
    """A job in one line."""
    transport = {"gloo": "Horovod on Gloo", "mpi": "Horovod on MPI", "torch": "torch.distributed on Gloo"}
    network = "loopback" if job["network"] == "loopback" else f"emulated hosts at {job['network']}"
    return (
        f"{transport[job['backend']]}, {job['ranks']} ranks, d = {job['d']:,} in {job['tensors']} tensors, "
        f"{network}"
    )


def _order(job: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        job["network"] != "loopback",
        job["network"],
        job["backend"],
        job["d"],
        job["tensors"],
        job["ranks"],
    )


def _circumstances(job: Mapping[str, Any]) -> str:
    machine, load = job["machine"], job["load"]
    before = f"{load['before']['average'][0]:.1f} before, {load['after'][0]:.1f} after"
    text = (
        f"{job['title']}; {job['rounds']} rounds, {job['threads']} thread(s) per rank; load average "
        f"{before}; other processes used {job['others_cores']:.2f} cores meanwhile; "
        f"torch {machine['packages']['torch']}, commit {(machine['commit'] or 'unknown')[:10]}."
    )
    return f"**The machine was loaded: these are no results.** {text}" if job["loaded"] else text


def _table(job: Mapping[str, Any]) -> list[str]:
    columns = ["", "whole step", "quartiles", "synchronize", "quartiles"]
    columns += ["ms" if part == "step" else part for part in PARTS] + ["sent", "memory"]
    lines = [_row(columns), _row(["---"] * len(columns))]
    unit = 4 * job["d"]
    for entry in job["variants"]:
        alone = entry["communication_ratio"]
        cells = [entry["name"], f"{entry['ratio']['mid']:.2f}", _quartiles(entry["ratio"])]
        cells += ["", ""] if alone is None else [f"{alone['mid']:.2f}", _quartiles(alone)]
        cells += [f"{entry['ms'][part]['mid']:.0f}" for part in PARTS]
        cells += [_most(entry["sent_bytes"], unit), _most(entry["extra_bytes"], unit)]
        lines.append(_row(cells))
    return lines


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _quartiles(spread: Mapping[str, float]) -> str:
    return f"{spread['low']:.2f} to {spread['high']:.2f}"


def _most(values: list[int | None] | None, unit: int) -> str:
    """The largest of the ranks' bytes in units of one gradient; empty where one is not known."""
    known = [value for value in values or () if value is not None]
    return f"{max(known) / unit:.1f} d" if known and values and len(known) == len(values) else ""
