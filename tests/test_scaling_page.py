"""docs/scaling.md: its tables are what `horovod-byz plan` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from horovod_byz.cli.plan_command import Asked, _bytes, _seconds
from horovod_byz.plan.constants import measured
from horovod_byz.plan.estimate import MEAN, estimates, own_mean

pytestmark = pytest.mark.source

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
WORKERS = (45, 128, 1000, 10000)
WAYS = ("symmetric", "root", "sharded", "sharded:replicas=3", MEAN)
RULES = (
    "median",
    "brsgd",
    "multi-krum:f=5",
    "hierarchical:inner=multi-krum:f=2,outer=median,groups={groups}",
    "detox:inner=mean,outer=median,groups={groups}",
)


def planned(rule, workers):
    """The estimates of the page's command by way."""
    asked = Asked(str(workers), "11.2M", rule, "10Gbit", "8", compute="0.4s", memory="32GiB")
    cluster, constants = asked.cluster(), measured()
    made = [*estimates(asked.made(workers), cluster, constants), own_mean(cluster, constants)]
    return {estimate.name: estimate for estimate in made}


def cell(estimate):
    room = " (no room)" if estimate.fits is False else ""
    return f"{_seconds(estimate.step)}, {_bytes(estimate.sent)}, {_bytes(estimate.memory)}{room}"


def rows(heading, names, cells):
    """A table with a column for each number of workers."""
    yield f"| {heading} | " + " | ".join(f"{workers:,}" for workers in WORKERS) + " |"
    yield "| --- |" + " --- |" * len(WORKERS)
    for name in names:
        yield f"| `{name}` | " + " | ".join(cells(name, workers) for workers in WORKERS) + " |"


def by_way():
    return list(rows("median", WAYS, lambda way, workers: cell(planned("median", workers)[way])))


def by_rule():
    def of(rule, workers):
        return cell(planned(rule.format(groups=workers // 15), workers)["sharded"])

    return [line.replace("{groups}", "n/15") for line in rows("sharded", RULES, of)]


@pytest.mark.parametrize("table", [by_way, by_rule])
def test_the_tables_are_what_the_command_says(table):
    made = "\n".join(table())
    assert made in PAGE.read_text(), f"docs/scaling.md should hold:\n{made}"


def test_the_page_states_the_error():
    assert (
        f"within {100 * measured().fit.worst:.0f} % of {measured().fit.steps} measured steps"
        in PAGE.read_text()
    )
