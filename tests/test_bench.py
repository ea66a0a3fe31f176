"""The benchmark: what it times, and how it summarises; nothing here depends on a clock."""

from __future__ import annotations

import json

import pytest

from horovod_byz import bench, rules
from horovod_byz.bench import clock, scaling, targets, ways
from horovod_byz.bench.clock import Seconds


def test_a_rule_is_timed_with_the_largest_f_it_tolerates():
    assert ways.largest_f(rules.MultiKrum, 20) == rules.MultiKrum(f=8)
    assert ways.largest_f(rules.Bulyan, 20) == rules.Bulyan(f=4)
    assert ways.largest_f(rules.Bulyan, 2) is None
    assert ways.largest_f(rules.BrSGD, 2) == rules.BrSGD()


def test_every_way_runs():
    rows = ways.matrix(15, 300, "float32")
    for way in {**ways.kernels(rows, 1), **ways.expressions(rows)}.values():
        way()


def test_replicas_repeat_the_first_of_each_group():
    rows = ways.matrix(6, 10, "float64")
    copies = ways.replicas(rows, 3)
    assert [[(copy == row).all() for row in rows].index(True) for copy in copies] == [0, 0, 0, 3, 3, 3]


def test_ratios_are_taken_within_a_round(monkeypatch):
    """Rounds of (1, 2), (10, 40), (100, 300) s: the median ratio is 3, the ratio of medians would be 4."""
    durations = iter([7.0] * 3 + [1.0, 1.0, 2.0, 10.0, 20.0, 40.0, 100.0, 50.0, 300.0])
    monkeypatch.setattr(clock, "seconds", lambda way: Seconds(cpu := next(durations), 2 * cpu))
    read, mean, other = bench.measure({bench.READ: int, bench.MEAN: int, "other": int}, rounds=3)
    assert (read.cpu_ms, read.wall_ms, read.over_floor.mid) == (10_000.0, 20_000.0, 1.0)
    assert (other.cpu_ms, other.over_floor.mid, other.wall_over_floor.mid) == (40_000.0, 3.0, 3.0)
    assert other.over_floor == bench.Spread(2.5, 3.0, 3.5)
    assert other.over_mean.mid == 2.0
    assert mean.over_floor.mid == 1.0


def test_slow_ways_are_timed_in_two_rounds_only(monkeypatch):
    calls = []
    timings = bench.measure(
        {bench.READ: int, bench.MEAN: int, "slow": lambda: calls.append(1)},
        rounds=5,
        rare=frozenset({"slow"}),
    )
    assert len(calls) == 2
    assert [timing.name for timing in timings] == [bench.READ, bench.MEAN, "slow"]


def test_a_way_in_another_process_brings_its_own_time():
    assert clock.seconds(lambda: Seconds(3.0, 4.0)) == Seconds(3.0, 4.0)


def cells(exponent_n, exponent_d):
    return [
        {
            "n": n,
            "d": d,
            "timings": [
                {
                    "name": "Multi-Krum",
                    "cpu_ms": n**exponent_n * d**exponent_d,
                    "over_floor": {"mid": 2.0},
                    "over_mean": {"mid": 1.0 if d < 1e7 else 1.3},
                }
            ],
        }
        for n in (15, 45)
        for d in (100_000, 1_000_000, 11_200_000)
    ]


def test_exponents_of_a_power_law_are_found():
    (fit,) = scaling.exponents(cells(2, 1.1))
    assert (fit["in_n"], fit["in_d"]) == (pytest.approx(2), pytest.approx(1.1))
    assert fit["at_d"] == 1_000_000
    assert scaling.slope({10: 1.0}) is None


def test_the_verdict_is_on_the_worst_of_the_large_sizes():
    verdicts = {
        line["n"]: line["verdict"] for line in targets.verdicts(cells(2, 1)) if line["way"] == "Multi-Krum"
    }
    assert verdicts == {15: "reached", 45: "within a quarter"}


def test_json_holds_the_setting_and_every_timing(capsys, tmp_path):
    assert bench.main(["-n", "7", "-d", "64", "--rounds", "1", "--json", "--folder", str(tmp_path)]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out == json.loads((tmp_path / "results.json").read_text())
    assert out["machine"]["level"]
    assert out["machine"]["packages"]["torch"]
    names = [timing["name"] for timing in out["cells"][0]["timings"]]
    assert names[:2] == [bench.READ, bench.MEAN]
    assert "median" in names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coordinates.png", "results.json", "rows.png"]


def test_the_table_names_the_setting(capsys):
    assert bench.main(["-n", "7", "-d", "64", "--rounds", "1", "--alone"]) == 0
    out = capsys.readouterr().out
    assert "n = 7, d = 64, float32" in out
    assert "x floor" in out
    assert "np.median" not in out


def test_missing_peers_are_reported_and_left_out(capsys, tmp_path):
    assert bench.main(["-n", "7", "-d", "64", "--rounds", "1", "--peers", str(tmp_path / "python")]) == 0
    assert "make bench-peers" in capsys.readouterr().err


def test_impossible_sizes_are_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["-n", "0"])
    assert "n has to be at least 1, got 0" in capsys.readouterr().err
