"""Claims are judged by their bounds alone; tables and figures show what the series hold."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from pydantic import ValidationError

from horovod_byz.reproduction import bars, calculations, evidence, figures, tables
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.calculations import timing
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


def shifted(*ends, middle=70):
    """Five repeats or more, which end so."""
    return [(10, middle, end) for end in ends]


FOUND = (
    series("Mean", *shifted(90, 92, 91, 93, 89, middle=81)),
    series("Krum", *shifted(85, 15, 85, 15, 85, middle=60)),
    series("Median", *shifted(88, 90, 89, 91, 87.5)),
    series("Zeros", *shifted(10, 10, 10, 10, 10)),
)


NUMBERS = {"k": 2.0, "noisy": 1.0, "noisy, standard error": 0.3, "noisy, trials": 60}


def judged(**claim):
    return judge(Claim(claim="It holds", **claim), FOUND, NUMBERS, "accuracy")


@pytest.mark.parametrize(
    ("claim", "measured", "status"),
    [
        ({"of": {"rule": "Mean"}, "least": 89}, "91.0 ± 0.7", "PASS"),
        ({"of": {"rule": "Mean"}, "least": 91}, "91.0 ± 0.7", "NOT DECIDED"),
        ({"of": {"rule": "Mean"}, "above": 93}, "91.0 ± 0.7", "FAIL"),
        (
            {"of": {"rule": "Median"}, "minus": [{"where": {"rule": "Mean"}}], "most": -1},
            "-1.9 ± 0.1",
            "PASS",
        ),
        (
            {"of": {"rule": "Median"}, "minus": [{"where": {"rule": "Mean"}}], "least": -1},
            "-1.9 ± 0.1",
            "FAIL",
        ),
        ({"of": {"rule": "Krum"}, "below": 50}, "57.0", "NOT DECIDED"),
        ({"of": {"rule": ["Mean", "Median"]}, "least": 90}, "89.1 ± 0.6 to 91.0", "NOT DECIDED"),
        ({"of": {"rule": ["Mean", "Median"]}, "least": 80}, "89.1 ± 0.6 to 91.0", "PASS"),
        ({"of": {"rule": ["Mean", "Zeros"]}, "least": 80}, "10.0 ± 0.0 to 91.0", "FAIL"),
        ({"of": {"rule": ["Krum", "Median"]}, "over": "max", "least": 80}, "89.1", "PASS"),
        ({"of": {"rule": "Mean"}, "statistic": "at", "at": 60, "least": 81, "most": 81}, "81.0", "PASS"),
        ({"of": {"rule": "Zeros"}, "statistic": "drop", "least": 20}, "60.0", "PASS"),
        ({"of": {"rule": "Krum"}, "statistic": "crashed", "most": 90}, "40.0", "PASS"),
        ({"of": {"rule": "Krum"}, "statistic": "crashed", "most": 50}, "40.0", "NOT DECIDED"),
        ({"of": {"rule": "Krum"}, "statistic": "crashed", "most": 0}, "40.0", "FAIL"),
        ({"of": {"rule": "Zeros"}, "statistic": "crashed", "least": 100}, "100.0", "PASS"),
        ({"of": {"rule": "Median"}, "statistic": "reaches", "level": 70, "most": 50}, "50.0", "PASS"),
        ({"of": {"rule": "Krum"}, "statistic": "reaches", "level": 70, "most": 99}, "inf", "NOT DECIDED"),
        ({"value": "k", "least": 2, "most": 2}, "2", "PASS"),
        ({"value": "noisy", "above": 0}, "1 ± 0.3", "PASS"),
        ({"value": "noisy", "above": 1.2}, "1 ± 0.3", "NOT DECIDED"),
        ({"value": "noisy", "above": 2}, "1 ± 0.3", "FAIL"),
        ({"of": {"rule": "Krum"}, "least": 60, "outside": "too many"}, "57.0", "OUTSIDE THE ASSUMPTION"),
        ({"of": {"rule": "Krum"}, "only_if": {"crash": 0.9}, "most": 0}, "no run", "OUTSIDE THE ASSUMPTION"),
    ],
)
def test_a_claim_is_measured_against_its_bounds(claim, measured, status):
    verdict = judged(**claim)
    assert (verdict.measured.startswith(measured), verdict.status) == (True, status), verdict


def few(rule, ends, seeds=(0,), middle=70):
    labels = {"rule": rule}
    return Series(
        labels, tuple(run(labels, (10, middle, end), seed) for seed, end in zip(seeds, ends, strict=True))
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "claim", "status"),
    [
        ((80,), (60,), {"least": 10}, "NOT DECIDED"),
        ((80,) * 4, (60,) * 4, {"least": 10}, "NOT DECIDED"),
        ((80,) * 5, (60,) * 5, {"least": 10}, "PASS"),
        ((80,), (10,), {"least": 10}, "PASS"),  # training beside guessing, in every repeat
        ((80, 80), (10, 14), {"least": 10}, "NOT DECIDED"),
        ((29,), (10,), {"least": 10}, "NOT DECIDED"),
        ((10,), (80,), {"least": -5}, "FAIL"),
    ],
)
def test_few_seeds_decide_no_difference_but_that_between_training_and_guessing(ours, theirs, claim, status):
    series = [few("A", ours, range(len(ours))), few("B", theirs, range(len(theirs)))]
    made = Claim(claim="A", of={"rule": "A"}, minus=[{"where": {"rule": "B"}}], **claim)
    assert judge(made, series, {}, "accuracy").status == status


def test_one_run_shows_a_collapse_and_nothing_less():
    drop = {"claim": "It falls", "of": {"rule": "A"}, "statistic": "drop", "least": 20}
    for ends, status in (((10,), "PASS"), ((30,), "NOT DECIDED")):
        assert judge(Claim(**drop), [few("A", ends)], {}, "accuracy").status == status
    assert judge(Claim(**drop), [few("A", (10,), middle=25)], {}, "accuracy").status == "NOT DECIDED"


def test_seeds_are_paired():
    noisy = (50, 70, 60, 80, 90)
    ours, theirs = few("A", [end + 2 for end in noisy], range(5)), few("B", noisy, range(5))
    claim = Claim(claim="A", of={"rule": "A"}, minus=[{"where": {"rule": "B"}}], above=1)
    assert judge(claim, [ours, theirs], {}, "accuracy").status == "PASS"
    assert judge(claim, [ours, few("B", noisy, (2, 3, 4, 5, 6))], {}, "accuracy").seeds == "3"
    apart = judge(claim, [ours, few("B", noisy, range(7, 12))], {}, "accuracy")
    assert (apart.status, apart.measured) == ("NOT DECIDED", "no seed in common")


def test_the_worst_of_many_series_fails_only_beyond_a_wider_interval():
    ends = (-6, -2, -3, -1, -4)
    names = [f"R{number}" for number in range(20)]
    claim = {"claim": "each", "least": 0}
    shown = [few(name, [50 + end for end in ends], range(5)) for name in names]
    base = few("B", (50,) * 5, range(5))
    minus = [{"where": {"rule": "B"}}]
    single = Claim(of={"rule": "R0"}, minus=minus, **claim)
    many = Claim(of={"rule": names}, minus=minus, **claim)
    assert judge(single, [*shown, base], {}, "accuracy").status == "FAIL"
    assert judge(many, [*shown, base], {}, "accuracy").status == "NOT DECIDED"


def voted(seeds, **labels):
    """DETOX with 5 of 45 Byzantine workers: seeds 3 and 4 lose a vote, 0 to 2 none."""
    labels = {"rule": "D-Median", **labels}
    settings = {"workers": 45, "byzantine": 5, "redundancy": 3, "rule": "detox-median", "attack": "alie"}
    settings |= {"steps": 100, "schedule": labels.pop("schedule", "fixed")}
    runs = []
    for seed in seeds:
        plain = run(labels, (10, 50, 80), seed)
        runs.append(Run(labels, make({**settings, "seed": seed}), plain.metrics, plain.record))
    return Series(labels, tuple(runs))


def test_votes_that_are_lost_stand_in_the_table_and_without_any_nothing_is_decided():
    unlucky, lucky = voted(range(5)), voted((0, 1, 2, 6, 8))
    assert (unlucky.votes, lucky.votes) == ("0, 0, 0, 1, 1", "0, 0, 0, 0, 0")
    claim = Claim(claim="It trains", of={"rule": "D-Median"}, least=50)
    assert judge(claim, [unlucky], {}, "accuracy").status == "PASS"
    spared = judge(claim, [lucky], {}, "accuracy")
    assert (spared.status, "lost no vote" in spared.note) == ("NOT DECIDED", True)
    assert judge(claim, [voted((0, 1, 2, 6, 8), votes="0")], {}, "accuracy").status == "PASS"
    assert float(voted(range(2), schedule="redrawn").votes.removesuffix(" per step")) == pytest.approx(
        0.43, abs=0.1
    )
    lines = tables.accuracies(artefact(), [unlucky], {})
    assert lines[2] == "| D-Median | 80.0 ± 0.0 | 0, 0, 0, 1, 1 | 0 of 5 |"
    parts = "0 lost: 80.0 ± 0.0 (3 seeds); 1 lost: 80.0 ± 0.0 (2 seeds)"
    assert tables.by_votes(artefact(), [unlucky, lucky])[3:] == [f"* D-Median: {parts}."]


@pytest.mark.parametrize(("freedom", "value"), [(4, 2.776), (7, 2.365), (9, 2.262), (19, 2.093)])
def test_students_quantile_is_that_of_the_tables(freedom, value):
    assert evidence.student(0.975, freedom) == pytest.approx(value, rel=5e-3)


def test_the_exact_interval_of_a_share():
    assert evidence.proportion(3, 10, 0.05) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert evidence.proportion(0, 10, 0.05) == pytest.approx((0.0, 0.3085), abs=1e-4)


def test_a_crash_is_relative_to_the_number_of_classes():
    labels = {"rule": "A"}
    plain = run(labels, (1, 5, 9))
    hundred = make({"data": {"name": "cifar-100"}})
    assert plain.crashed
    assert not Run(labels, hundred, plain.metrics, plain.record).crashed
    assert Run(labels, hundred, run(labels, (1, 5, 1.5)).metrics, plain.record).crashed


def test_only_runs_that_meet_the_condition_count():
    labels = {"rule": "Krum"}
    runs = (run(labels, (10, 10, 90), 0, crash=0.5), run(labels, (10, 10, 12), 1, crash=0.999))
    claim = Claim(claim="It crashes", of=labels, only_if={"crash": 0.99}, below=20)
    verdict = judge(claim, [Series(labels, runs)], {}, "accuracy")
    assert (verdict.measured, verdict.status, verdict.seeds) == ("12.0", "PASS", "1")
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
        judged(of={"rule": "Zeros"}, least=60, explanation="All repeats crashed.").note
        == "All repeats crashed."
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
    assert lines[2] == "| Mean, no attack | 91.0 ± 0.7 | 0 of 5 | 50 |  |"
    assert lines[3] == "| Krum | 57.0 ± 17.1 | 2 of 5 | 100 (3 of 5) | 77.5 |"


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


def test_a_noisy_quantity_stands_in_one_line_with_its_error():
    assert tables.calculated(NUMBERS)[2:] == ["| k | 2 |", "| noisy | 1 ± 0.3 (60 trials) |"]


def test_a_step_is_a_gradient_and_an_aggregation():
    values = {"compute: x, 32 images (vanilla), s": 1.0, "compute: x, 96 images (DETOX), s": 3.0}
    for name, vanilla in (("Median", 5.0), ("Multi-Krum", 1.0), ("Bulyan", 1.0)):
        values |= {f"aggregation: {name}, s": vanilla, f"aggregation: D-{name}, s": 1.0}
    made = timing.iterations(values)
    assert made["compute: DETOX over vanilla"] == 3
    assert (
        made["step without network: Median over D-Median"]
        == made["step without network: largest ratio"]
        == 1.5
    )
