"""When redundancy pays in time: what is compared, and the arithmetic; nothing here depends on a clock."""

from __future__ import annotations

import json

import numpy as np
import pytest

from horovod_byz.reproduction import crossover


def test_replicas_are_equal_and_lie_apart():
    rows = crossover.replicated(3, 50)
    groups = crossover.hb.Redundancy(3).groups_of(crossover.N)
    assert all(np.array_equal(rows[i], rows[group[0]]) for group in groups for i in group)
    assert len(np.unique(rows, axis=0)) == 15


@pytest.mark.parametrize("r", [3, 5])
def test_the_saving_is_shared_by_the_additional_gradients(r):
    """The rule takes 9 s and vote and rules 3 s: 6 s saved pay for r - 1 more gradients."""
    turns = iter([9.0, 3.0] * 24)

    def clock(call):
        assert call().shape == (8,)
        return next(turns)

    crossings = crossover.measure(r, 8, 3, clock)
    names = ["Median", "Multi-Krum", "Bulyan"]
    assert [crossing.name for crossing in crossings] == names + [f"{name}, lazy vote" for name in names]
    for crossing in crossings:
        assert (crossing.vanilla, crossing.detox, crossing.speedup) == (9.0, 3.0, 3.0)
        assert crossing.pays_below == pytest.approx(6 / (r - 1))


def test_the_table_says_never():
    crossing = crossover.Crossing("Median", 10, 0.001, 0.003, 0.33, -0.001)
    assert "| Median | 1e+01 | 1 | 3 | 0.33 | never |" in crossover.table([crossing], 3)


def test_results_hold_their_setting(tmp_path, capsys):
    assert crossover.main(["-d", "64", "--rounds", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "crossover.json").read_text())
    assert (record["n"], record["f"], record["r"], record["rounds"]) == (45, 5, 3, 1)
    assert len(record["pairs"]) == 6
    assert record["environment"]["packages"]["torch"]
    assert (tmp_path / "crossover.md").read_text() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        crossover.main(["-r", "1"])
