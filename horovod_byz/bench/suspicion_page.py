"""The study of false alarms and power as a page: a pure function of its JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page"]

_TEXT = """# Who is suspected, measured

Made by `make false-alarms` (`python -m horovod_byz.bench.false_alarms --folder results/ledger`), from
`results.json` beside it. What the tests are and assume: [docs/ledger.md](../../docs/ledger.md).
Digits of scikit-learn, an MLP with two hidden layers of 32, {workers} workers, batches of 32, SGD with a rate
of 0.1; alpha = {alpha:g} per run.

## False alarms in clean runs

{clean}

Allowed is alpha times the runs plus three standard deviations. An honest worker would be named where its
e-value reaches workers / alpha, log10 = {threshold:.2f}. Mean, Median, MultiKrum(f=6) and GeometricMedian
take turns.

## Steps until a worker is named: "unlike the others" (shuffled data)

The attack begins at the first of {steps} steps. Median over {seeds} seeds of the step that names the first /
the last attacker; the test names nobody before step 40. *never*: not in most of the runs.

{exchangeable}

{harm}

## Steps until a worker is named: "unlike its own past" (Dirichlet(0.1), one attacker)

The attack begins at step {change} of {steps}; steps are counted from there.

{own}

{own_harm}

## One flipped mantissa bit with r = 3

{replicas}

## Framing

Four Byzantine workers see all rows, and which worker holds which, and want one honest worker to be named.
*away*: they send the honest mean less three times the victim's deviation from it; *mirror*: less once. The
step at which each is named, per seed; *never*: not within the run.

{framing}
"""


def page(result: Mapping[str, Any]) -> str:
    """The text of README.md."""
    return _TEXT.format(
        workers=result["workers"],
        alpha=result["alpha"],
        steps=result["steps"],
        seeds=result["seeds"],
        change=result["change"],
        threshold=math.log10(result["workers"] / result["alpha"]),
        clean=_clean(result["clean"]),
        exchangeable=_power(result["exchangeable"]),
        harm=_harm(result["exchangeable"]),
        own=_power(result["own past"]),
        own_harm=_harm(result["own past"]),
        replicas=_replicas(result["replicas"]),
        framing=_framing(result["framing"]),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _clean(tests: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "test",
        "data",
        "runs",
        "steps",
        "accusing",
        "allowed",
        "highest log10 e-value",
        "two camps noticed",
    )
    keys = ("test", "data", "runs", "steps", "accused", "allowed", "highest_log10", "two_camps")
    return _table(head, [[len(t[k]) if k == "accused" else t[k] for k in keys] for t in tests])


def _middle(steps: Sequence[int | None]) -> str:
    """The median, where a run in which nobody is named counts as the longest."""
    middle = statistics.median_low([math.inf if step is None else step for step in steps])
    return "never" if middle == math.inf else str(middle)


def _power(cells: Sequence[Mapping[str, Any]]) -> str:
    rules = list(dict.fromkeys(cell["rule"] for cell in cells))
    rows = []
    for attack, count in dict.fromkeys((cell["attack"], cell["byzantine"]) for cell in cells):
        of = {c["rule"]: c for c in cells if (c["attack"], c["byzantine"]) == (attack, count)}
        rows.append([attack, count, *(_named(of[rule]) for rule in rules)])
    return _table(["attack", "attackers", *rules], rows)


def _named(cell: Mapping[str, Any]) -> str:
    first, last = _middle(cell["first"]), _middle(cell["last"])
    return first if first == last else f"{first} / {last}"


def _harm(cells: Sequence[Mapping[str, Any]]) -> str:
    runs = sum(len(cell["first"]) for cell in cells)
    honest, camps = (sum(cell[key] for cell in cells) for key in ("honest_accused", "two_camps"))
    return f"Of these {runs} attacked runs, {honest} named an honest worker, and {camps} noticed two camps."


def _replicas(cell: Mapping[str, Any]) -> str:
    proofs = "; ".join(f"step {step}: worker {worker}, {reason}" for step, worker, reason in cell["proofs"])
    return (
        f"Worker {cell['worker']} flips one bit at step {cell['flipped_at']}. Proof entered: "
        f"{proofs or 'none'}.\nWithout redundancy it is the attack *one mantissa bit* above."
    )


def _framing(cells: Sequence[Mapping[str, Any]]) -> str:
    def steps(values: Sequence[int | None]) -> str:
        return ", ".join("never" if value is None else str(value) for value in values)

    head = (
        "rule",
        "framers send",
        "victim named",
        "first framer named",
        "runs that name other honest workers",
    )
    rows = [(c["rule"], c["aim"], steps(c["victim"]), steps(c["framers"]), c["others_named"]) for c in cells]
    return _table(head, rows)
