"""Claims are judged by their bounds alone; tables and figures show what the series hold."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from pydantic import ValidationError

from horovod_byz.reproduction import bars, calculations, figures, tables
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.claims import Claim, judge
from horovod_byz.reproduction.series import Run, Series, statistic
from horovod_byz.training.config import ConfigError, make
from horovod_byz.training.runs import RunError

STEPS = (0, 50, 100)


def run(labels, accuracies, seed=0, diverged_at=None, train_loss=1.0, **notes):
    metrics = [
        {"step": step, "accuracy": value / 100, "top3": value / 100, "loss": None, "train_loss": train_loss}
        for step, value in zip(STEPS, accuracies, strict=True)
    ]
    config = make({"seed": seed, "steps": 100, "attack_start": 50})
    return Run(labels, config, metrics, {"summary": {"diverged_at": diverged_at}, "notes": notes})


def series(rule, *repeats, **more):
    labels = {"rule": rule, **more}
    return Series(labels, tuple(run(labels, values, seed) for seed, values in enumerate(repeats)))


FOUND = (
    series("Mean", (10, 80, 90), (10, 82, 92)),
    series("Krum", (10, 60, 85), (10, 60, 15)),
    series("Median", (10, 70, 88), (10, 70, 90)),
)


def judged(**claim):
    return judge(Claim(claim="It holds", **claim), FOUND, {"k": 2.0}, "accuracy")


@pytest.mark.parametrize(
    ("claim", "measured", "status"),
    [
        ({"of": {"rule": "Mean"}, "least": 91}, "91.0", "PASS"),
        ({"of": {"rule": "Mean"}, "above": 91}, "91.0", "FAIL"),
        ({"of": {"rule": "Krum"}, "below": 50}, "50.0", "FAIL"),
        ({"of": {"rule": "Krum"}, "minus": [{"where": {"rule": "Mean"}}], "most": -41}, "-41.0", "PASS"),
        ({"of": {"rule": ["Krum", "Median"]}, "least": 60}, "50.0 to 89.0 (2 series)", "FAIL"),
        ({"of": {"rule": ["Krum", "Median"]}, "over": "max", "least": 60}, "89.0", "PASS"),
        ({"of": {"rule": "Mean"}, "statistic": "at", "at": 60, "least": 81, "most": 81}, "81.0", "PASS"),
        ({"of": {"rule": "Krum"}, "statistic": "drop", "most": 10}, "10.0", "PASS"),
        ({"of": {"rule": "Krum"}, "statistic": "crashed", "least": 50, "most": 50}, "50.0", "PASS"),
        ({"of": {"rule": "Median"}, "statistic": "reaches", "level": 70, "most": 50}, "50.0", "PASS"),
        ({"of": {"rule": "Krum"}, "statistic": "reaches", "level": 70, "most": 99}, "inf", "FAIL"),
        ({"value": "k", "least": 2, "most": 2}, "2", "PASS"),
        ({"of": {"rule": "Krum"}, "least": 60, "outside": "too many"}, "50.0", "OUTSIDE THE ASSUMPTION"),
        ({"of": {"rule": "Krum"}, "only_if": {"crash": 0.9}, "most": 0}, "no run", "OUTSIDE THE ASSUMPTION"),
    ],
)
def test_a_claim_is_measured_against_its_bounds(claim, measured, status):
    verdict = judged(**claim)
    assert (verdict.measured.startswith(measured), verdict.status) == (True, status)


def test_only_runs_that_meet_the_condition_count():
    labels = {"rule": "Krum"}
    runs = (run(labels, (10, 10, 90), 0, crash=0.5), run(labels, (10, 10, 12), 1, crash=0.999))
    claim = Claim(claim="It crashes", of=labels, only_if={"crash": 0.99}, below=20)
    verdict = judge(claim, [Series(labels, runs)], {}, "accuracy")
    assert (verdict.measured, verdict.status) == ("12.0", "PASS")
    assert "crash > 0.99 (1 runs)" in verdict.note


def test_equal_metrics_are_equal_but_for_the_training_loss():
    first, second = {"rule": "D", "f": "0"}, {"rule": "D", "f": "1"}
    curves = [
        Series(first, (run(first, (10, 20, 30)),)),
        Series(second, (run(second, (10, 20, 30), train_loss=2.0),)),
    ]
    claim = Claim(claim="Equal", of=second, same_metrics_as=first)
    assert judge(claim, curves, {}, "accuracy").status == "PASS"
    curves[1] = Series(second, (run(second, (10, 20, 30.01)),))
    assert judge(claim, curves, {}, "accuracy").measured == "0 of 1 runs equal"


def test_a_failed_claim_is_explained_and_a_passed_one_is_not():
    assert (
        judged(of={"rule": "Krum"}, least=60, explanation="One repeat crashed.").note == "One repeat crashed."
    )
    assert judged(of={"rule": "Mean"}, least=60, explanation="One repeat crashed.").note == ""


def test_mistakes_in_claims_are_named():
    with pytest.raises(RunError, match=r"speaks of \{'rule': 'Krun'\}"):
        judged(of={"rule": "Krun"}, least=0)
    with pytest.raises(RunError, match="speaks of 'z', which was not calculated"):
        judged(value="z", least=0)
    with pytest.raises(RunError, match="compares with 2 series: say over which"):
        judged(of={"rule": "Mean"}, minus=[{"where": {"rule": ["Krum", "Median"]}}], least=0)
    with pytest.raises(ValidationError, match="has no bound"):
        Claim(claim="x", of={"rule": "Mean"})
    with pytest.raises(ValidationError, match="did you mean 'final'"):
        Claim(claim="x", of={"rule": "Mean"}, least=0, statistic="finel")
    with pytest.raises(ConfigError, match="unknown statistic"):
        statistic("finel", FOUND[0], "accuracy", {})


def artefact(**changes):
    common = {"name": "x", "title": "T", "paper": "all", "shows": "S", "reduced": "less"}
    return Artefact.model_validate(common | changes)


def test_tables_show_means_ranges_crashes_and_the_papers_numbers():
    made = artefact(published=[{"where": {"rule": "Krum"}, "value": 77.5}], table={"levels": [80]})
    lines = tables.accuracies(made, FOUND[1:], {"Mean, no attack": FOUND[0]})
    assert lines[0] == "| rule | test accuracy (%) | crashed | steps to 80 % | paper |"
    assert lines[2] == "| Mean, no attack | 91.0 (90.0 to 92.0) | 0 of 2 | 50 |  |"
    assert lines[3] == "| Krum | 50.0 (15.0 to 85.0) | 1 of 2 | never | 77.5 |"


def test_a_table_of_two_axes_has_one_cell_per_combination():
    shown = [series(rule, (0, 0, 10 * f), f=str(f)) for rule in ("A", "B") for f in (2, 5)]
    lines = tables.accuracies(artefact(table={"rows": ["rule"], "columns": ["f"]}), shown[:3], {})
    assert lines[0] == "| rule | f = 2 | f = 5 |"
    assert lines[2:] == ["| A | 20.0 | 50.0 |", "| B | 20.0 |  |"]


@pytest.mark.parametrize(
    "figure",
    [
        {"kind": "curves", "metrics": ["accuracy", "loss"]},
        {"kind": "curves", "panels": ["f"]},
        {"kind": "sweep", "x": "f", "x_label": "assumed f"},
        {"kind": "pairs", "x": "f", "pairs": [["A", "B"]]},
    ],
)
def test_the_same_series_give_the_same_picture(figure, tmp_path):
    shown = [
        series(rule, (10, 20, 10 * f), (12, 30, 11 * f), f=str(f))
        for rule in ("A", "B")
        for f in (2, 5)
        if (rule, f) != ("B", 5)
    ]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        figures.draw(artefact(figure=figure), shown, {"Mean": FOUND[0]}, tmp_path / name / "figure.png")
    pictures = [tmp_path / name / "figure.png" for name in ("one", "two")]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert np.ptp(matplotlib.image.imread(pictures[0])) > 0


def test_a_sweep_may_begin_above_zero_and_hides_no_value(tmp_path):
    shown = [series("A", (10, 20, value), (12, 30, value + 5), f=str(value)) for value in (72, 80)]

    def picture(lowest):
        figure = {"kind": "sweep", "x": "f", "lowest": lowest}
        figures.draw(artefact(figure=figure), shown, {}, tmp_path / "figure.png")
        return (tmp_path / "figure.png").read_bytes()

    assert picture(70) != picture(0)
    assert picture(73) == picture(0)


def test_bars_are_made_of_calculated_parts(tmp_path):
    parts = [{"name": "A", "parts": {"one": "x", "two": "y"}}, {"name": "B", "parts": {"two": "y"}}]
    shown = artefact(figure={"kind": "bars", "x_label": "s", "bars": parts})
    for name in ("one.png", "two.png"):
        bars.draw(shown, {"x": 1.0, "y": 0.5}, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    bars.draw(shown, {"x": 1.0, "y": 0.9}, tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()
    with pytest.raises(ConfigError, match="the figure's 'y' is none of x"):
        bars.draw(shown, {"x": 1.0}, tmp_path / "none.png")


@pytest.mark.parametrize("name", ["toys", "resilience"])
def test_calculations_give_plain_finite_numbers(name):
    numbers = calculations.by_name(name)()
    assert numbers
    assert all(isinstance(value, int | float) and np.isfinite(value) for value in numbers.values())
    with pytest.raises(ConfigError, match="unknown calculation"):
        calculations.by_name("toy")
