"""The benchmark: which rules it times, and how it summarises; nothing here depends on a clock."""

from __future__ import annotations

import json

import pytest

from horovod_byz import bench, rules


def test_every_rule_is_timed_with_the_largest_f_it_tolerates():
    made = bench.rules_for(20)
    assert len(made) == len(rules.names())
    for rule in made:
        rule.check(20)
    assert rules.by_name("krum", f=8) in made
    assert rules.by_name("bulyan", f=4) in made


def test_rules_that_do_not_hold_for_n_rows_are_left_out():
    assert not any(rule.__class__.__name__ == "Bulyan" for rule in bench.rules_for(2))


def test_ratios_are_taken_within_a_round(monkeypatch):
    """Rounds of (1, 2), (10, 40), (100, 300) s: the median ratio is 3, the ratio of medians would be 4."""
    durations = iter([7.0, 7.0, 1.0, 2.0, 10.0, 40.0, 100.0, 300.0])
    monkeypatch.setattr(bench, "seconds", lambda way: next(durations))
    read, other = bench.measure({bench.READ: int, "other": int}, rounds=3)
    assert (read.milliseconds, read.over_read) == (10_000.0, 1.0)
    assert (other.milliseconds, other.over_read) == (40_000.0, 3.0)


def test_json_holds_the_setting_and_every_timing(capsys):
    assert bench.main(["-n", "7", "-d", "64", "--rounds", "1", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["n"], out["d"], out["dtype"], out["threads"]) == (7, 64, "float32", 1)
    names = [timing["name"] for timing in out["timings"]]
    assert names[:2] == [bench.READ, bench.TORCH_MEAN]
    assert "Median()" in names


def test_the_table_names_the_setting(capsys):
    assert bench.main(["-n", "7", "-d", "64", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "n = 7, d = 64, float32" in out
    assert "x reading once" in out


def test_impossible_sizes_are_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["-n", "0"])
    assert "n has to be at least 1, got 0" in capsys.readouterr().err
