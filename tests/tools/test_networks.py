"""The table of median networks: each is proved anew, and what the C++ is made of selects the same."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.source
FOLDER = Path(__file__).resolve().parents[2] / "tools" / "networks"
#: Minima and maxima that the odd-even merge sort needs for the median, before there was a table.
BEFORE = {11: 54, 15: 84, 25: 202, 31: 274, 45: 536, 64: 828, 100: 1698, 256: 6140}
#: What the table has reached; a new search may only lower it.
REACHED = {11: 40, 15: 68, 25: 152, 31: 224, 45: 400, 64: 692, 100: 1454, 128: 2012, 256: 5336}
SEARCHED = [*range(2, 65)]
LARGE = [100, 128, 256]


@pytest.fixture(scope="module")
def tools():
    """The modules of tools/networks, as search.py and setup.py import them."""
    names = ("table", "construct", "order", "header", "prove", "search")
    kept = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@pytest.fixture(scope="module")
def networks(tools):
    return {n: network for (_, n), network in tools["table"].load().items()}


def test_the_table_has_every_number_of_rows_that_the_build_asks_for(networks):
    assert sorted(networks) == [*SEARCHED, *LARGE]


def proved(tools, networks, rows):
    for n in rows:
        assert tools["prove"].prove(networks[n]) > 0


def test_the_networks_select_the_median(tools, networks):
    proved(tools, networks, [*range(2, 33), 37, 40, 45])


@pytest.mark.many
@pytest.mark.parametrize("n", range(33, 65))
def test_the_larger_networks_select_the_median(n, tools, networks):
    proved(tools, networks, [n])


@pytest.mark.parametrize("n", LARGE)
def test_the_largest_networks_are_pruned_pairwise_sorts(n, tools, networks):
    """The proof is Parberry's; pruning leaves out what nothing reads."""
    assert networks[n] == tools["search"].of_pairwise(n, 16)


@pytest.mark.parametrize("n", [7, 8, 16, 32])
def test_pairwise_networks_sort(n, tools):
    rows = np.random.default_rng(n).integers(0, 2, (n, 4096), dtype=np.uint8)
    values = rows.copy()
    for a, b in tools["construct"].pairwise(n):
        values[a], values[b] = np.minimum(values[a], values[b]), np.maximum(values[a], values[b])
    np.testing.assert_array_equal(values, np.sort(rows, axis=0))


@pytest.mark.parametrize("n", [4, 11, 15])
def test_the_proof_sees_a_missing_comparator(n, tools, networks):
    network = networks[n]
    for i in range(network.locked, len(network.comparators)):
        fewer = network.comparators[:i] + network.comparators[i + 1 :]
        with pytest.raises(ValueError, match=f"{n} rows does not leave rank"):
            tools["prove"].prove(dataclasses.replace(network, comparators=fewer))


def test_no_network_needs_more_operations_than_before(tools, networks):
    merge, pruned = tools["construct"].merged, tools["table"].kept
    for n, network in networks.items():
        comparators, wires = merge([i] for i in range(n))
        outputs = [wires[rank] for rank in tools["table"].middle_ranks(n)]
        assert network.operations <= sum(map(sum, pruned(comparators, outputs)))
    for n, most in BEFORE.items():
        assert networks[n].operations < most
    for n, most in REACHED.items():
        assert networks[n].operations <= most


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("n", [2, 5, 11, 24, 45, 64, 100])
def test_the_code_for_c_selects_the_same(n, registers, tools, networks):
    code = tools["header"].code(networks[n], registers)
    rows = np.random.default_rng(n).standard_normal((n, 300))
    wire, out = {}, {}
    for name, *numbers in re.findall(r"HB_(ROW|MIN|MAX|BOTH|OUT)\((\d+)(?:, (\d+))?\)", code):
        a, b = (int(number or 0) for number in numbers)
        if name == "ROW":
            assert a not in wire
            wire[a] = rows[a]
        elif name == "OUT":
            out[a] = wire[b]
        else:
            low, high = np.minimum(wire[a], wire[b]), np.maximum(wire[a], wire[b])
            wire[a], wire[b] = low if name != "MAX" else None, high if name != "MIN" else None
    wanted = np.sort(rows, axis=0)[tools["table"].middle_ranks(n)]
    np.testing.assert_array_equal(np.stack([out[i] for i in range(len(out))]), wanted)
    assert code.count("HB_BOTH") * 2 + code.count("HB_MIN") + code.count("HB_MAX") == networks[n].operations


def test_fewer_values_leave_the_registers_in_the_new_order(tools, networks):
    order, network = tools["order"], networks[64]
    given = list(range(len(network.comparators)))
    for registers in (16, 32):
        pairs = order.ordered(network.comparators, network.outputs, network.n, registers)
        after = order.spills(pairs, network.outputs, given, registers)
        assert after < order.spills(network.comparators, network.outputs, given, registers) / 2


def test_the_page_has_the_counts_of_the_table(networks):
    page = (FOLDER.parents[1] / "docs" / "performance.md").read_text()
    section = page[page.index("## Operations of the median") :]
    rows = re.findall(
        r"^\| (\d+) \| \d+ \| \d+ \| (\d+) \|", section[: section.index("\n## ", 4)], flags=re.M
    )
    assert {int(n): int(count) for n, count in rows} == {int(n): networks[int(n)].operations for n, _ in rows}
    assert len(rows) > 10
