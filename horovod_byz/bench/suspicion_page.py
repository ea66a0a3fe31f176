"""The study of false alarms and power as a page: a pure function of its JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page"]

COMMAND = "make false-alarms"


def page(result: Mapping[str, Any]) -> str:
    """The text of README.md."""
    parts = [
        "# Who is suspected, measured",
        f"Made by `{COMMAND}` (`python -m horovod_byz.bench.false_alarms --folder results/ledger`), from "
        "`results.json` beside it. What the tests are and assume: [docs/ledger.md](../../docs/ledger.md). "
        f"Digits of scikit-learn, an MLP with two hidden layers of 32, {result['workers']} workers, batches of 32, "
        f"SGD with 0.1; alpha = {result['alpha']:g} per run.",
        "## False alarms in clean runs",
        _clean(result["clean"]),
        "The allowed number is alpha times the runs plus three standard deviations. An honest worker is named where "
        f"its e-value reaches workers / alpha, log10 = {_threshold(result):.2f}. Mean, Median, MultiKrum(f=6) and "
        "GeometricMedian take turns.",
        f'## Steps until a worker is named: "unlike the others" (shuffled data, {result["steps"]} steps)',
        "The attack begins at the first step. Median over "
        f"{result['seeds']} seeds of the step that names the first / the last attacker; the test names nobody before "
        "step 40. *never*: not in most of the runs.",
        _power(result["exchangeable"]),
        _harm(result["exchangeable"]),
        '## Steps until a worker is named: "unlike its own past" (Dirichlet(0.1), one attacker)',
        f"The attack begins at step {result['change']} of {result['steps']}; steps are counted from there.",
        _power(result["own past"]),
        _harm(result["own past"]),
        "## One flipped mantissa bit with r = 3",
        _replicas(result["replicas"]),
        "## Framing",
        "Four Byzantine workers see all rows, and which worker holds which, and want one honest worker to be named. "
        "*away*: they send the honest mean less three times the victim's deviation from it; *mirror*: less once. "
        "Steps until named, each seed; *never* within the run.",
        _framing(result["framing"]),
    ]
    return "\n\n".join(parts) + "\n"


def _threshold(result: Mapping[str, Any]) -> float:
    return math.log10(result["workers"] / result["alpha"])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _clean(tests: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "test",
        "data",
        "runs",
        "steps",
        "runs that accuse",
        "allowed",
        "highest log10 e-value",
        "two camps noticed",
    )
    return _table(
        head,
        [
            (
                t["test"],
                t["data"],
                t["runs"],
                t["steps"],
                len(t["accused"]),
                t["allowed"],
                t["highest_log10"],
                t["two_camps"],
            )
            for t in tests
        ],
    )


def _middle(steps: Sequence[int | None]) -> str:
    """The median, where a run in which nobody is named counts as the longest."""
    middle = statistics.median_low([10**9 if step is None else step for step in steps])
    return "never" if middle == 10**9 else str(middle)


def _power(cells: Sequence[Mapping[str, Any]]) -> str:
    rules = list(dict.fromkeys(cell["rule"] for cell in cells))
    counts = sorted({cell["byzantine"] for cell in cells})
    rows = []
    for attack in dict.fromkeys(cell["attack"] for cell in cells):
        for count in counts:
            of = {c["rule"]: c for c in cells if c["attack"] == attack and c["byzantine"] == count}
            rows.append([attack, count, *(_named(of[rule]) for rule in rules)])
    return _table(["attack", "attackers", *rules], rows)


def _named(cell: Mapping[str, Any]) -> str:
    first, last = _middle(cell["first"]), _middle(cell["last"])
    return first if first == last else f"{first} / {last}"


def _harm(cells: Sequence[Mapping[str, Any]]) -> str:
    runs = sum(len(cell["first"]) for cell in cells)
    honest, camps = (sum(cell[key] for cell in cells) for key in ("honest_accused", "two_camps"))
    return f"In these {runs} attacked runs an honest worker was named in {honest}, and two camps were noticed in {camps}."


def _replicas(cell: Mapping[str, Any]) -> str:
    proofs = "; ".join(f"step {step}: worker {worker}, {reason}" for step, worker, reason in cell["proofs"])
    return (
        f"Worker {cell['worker']} flips one bit at step {cell['flipped_at']}. Proof entered: {proofs or 'none'}. "
        "Without redundancy it is the attack *one mantissa bit* above."
    )


def _framing(cells: Sequence[Mapping[str, Any]]) -> str:
    def steps(values: Sequence[int | None]) -> str:
        return ", ".join("never" if value is None else str(value) for value in values)

    head = (
        "rule",
        "framers send",
        "the victim is named",
        "the first framer is named",
        "other honest workers named",
    )
    return _table(
        head,
        [(c["rule"], c["aim"], steps(c["victim"]), steps(c["framers"]), c["others_named"]) for c in cells],
    )
