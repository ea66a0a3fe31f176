"""`horovod-byz plan`: units, the rules' passes, times against the committed measurements, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import horovod_byz as hb
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.bench import calibrate
from horovod_byz.cli.main import app
from horovod_byz.plan import units
from horovod_byz.plan.constants import Constants, Fit, measured
from horovod_byz.plan.estimate import PARTS, Cluster, estimates, own_mean
from horovod_byz.plan.passes import passes

RESULTS = Path(__file__).parents[1] / "results" / "bench"
ASKED = {
    "--workers": "45",
    "--parameters": "11.2M",
    "--rule": "multi-krum:f=5",
    "--bandwidth": "10Gbit",
    "--cores": "8",
}


def plan(*more, **changed):
    given = {**ASKED, **{f"--{name.replace('_', '-')}": value for name, value in changed.items()}}
    words = [word for pair in given.items() for word in pair]
    return CliRunner().invoke(app, ["plan", *words, *more])


def planned(**changed):
    done = plan("--json", **changed)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    return content, {way["way"]: way for way in content["ways"]}


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("45", 45), ("11.2M", 11_200_000), ("1e7", 10_000_000), ("1.5k", 1500), ("7B", 7 * 10**9)],
    )
    def test_counts(self, text, value):
        assert units.number(text, "--parameters") == value

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("10Gbit", 1.25e9),
            ("10Gbit/s", 1.25e9),
            ("10Gbps", 1.25e9),
            ("1.25GB/s", 1.25e9),
            ("100 Mbit", 1.25e7),
        ],
    )
    def test_rates(self, text, value):
        assert units.bandwidth(text) == value

    def test_seconds_and_sizes(self):
        assert [units.seconds(text) for text in ("0.4", "0.4s", "400ms", "2min")] == [0.4, 0.4, 0.4, 120]
        assert [units.size(text) for text in ("1GiB", "1GB")] == [2**30, 10**9]


class TestPasses:
    RULES = (
        hb.Mean(),
        hb.Median(),
        hb.MultiKrum(f=2),
        hb.Bulyan(f=2),
        hb.GeometricMedian(),
        hb.BrSGD(),
        hb.MeanAroundMedian(f=3),
        hb.Phocas(f=3),
        hb.MajorityVote(),
        hb.Draco(f=1),  # its groups' statistics follow no polynomial
    )

    @pytest.mark.parametrize("rule", RULES, ids=repr)
    def test_three_small_runs_say_what_a_large_one_does(self, rule, monkeypatch):
        short = passes(rule, 120)
        monkeypatch.setattr("horovod_byz.plan.passes._FEW", 120)
        assert passes(rule, 120) == short

    def test_a_rule_of_ones_own_can_be_asked(self):
        class Nearest(hb.Rule):
            facts = hb.Mean.facts

            def max_byzantine(self, n):
                return 0

            def decide(self, statistics):
                return Weighted.uniform(statistics.n, [int(statistics.distances.sum(axis=1).argmin())])

        measured_, combined = passes(Nearest(), 7)
        assert (measured_.kernels, measured_.rows, measured_.entries) == (("squared distances",), 7, 49)
        assert (combined.kernels, combined.entries) == (("mean", "read floor"), 16)

    def test_a_pipelines_groups_keep_its_statistics_small(self):
        whole = sum(each.entries for each in passes(hb.MultiKrum(f=1), 300))
        parts = sum(
            each.entries for each in passes(hb.Hierarchical(hb.MultiKrum(f=1), hb.Median(), groups=30), 300)
        )
        assert parts < whole / 15


def straight():
    """Constants with round numbers: 1 ns per value, 1 s per operation, nothing else."""
    kernels = {name: {10: 1e-9, 100: 10e-9} for name in measured().kernels}
    return Constants(kernels, Fit(1, 0.0, 0.0, ()), operation=1.0, rules=1.0)


class TestTimes:
    def test_a_kernels_time_is_read_off_between_and_beyond_what_was_measured(self):
        constants = straight()
        assert constants.of_value("median", 3) == 1e-9
        assert constants.of_value("median", 10**1.5) == pytest.approx(5.5e-9)
        assert constants.of_value("median", 1000) == pytest.approx(100e-9)

    def test_the_link_and_the_operations_add_up(self):
        cluster = Cluster(workers=10, d=10**6, cores=1, bandwidth=1e6)
        ways = {e.name: e for e in estimates(hb.Median(), cluster, straight())}
        # header, rows, digests; 9 of 10 rows of 4 MB over 1 MB/s
        assert ways["symmetric"].seconds["collect"] == pytest.approx(3 + 36, rel=1e-3)
        # a tenth of the coordinates of nine other rows each way, and the result likewise
        assert ways["sharded"].seconds["collect"] == pytest.approx(2 + 3.6, rel=5e-2)
        # digests, pieces, gathering and its check; nine tenths of the result each time
        assert ways["root"].seconds["return"] == pytest.approx(4 + 7.2, rel=1e-2)
        # 10 rows of 10^6 values, two kernels; a tenth of that where sharded, and one exchange
        assert ways["symmetric"].seconds["aggregate"] == pytest.approx(0.02)
        assert ways["sharded"].seconds["aggregate"] == pytest.approx(1.002, rel=1e-1)
        assert own_mean(cluster, straight()).seconds["return"] == pytest.approx(1 + 7.2, rel=1e-3)

    def test_more_cores_a_wider_link_and_fewer_ranks_on_a_machine_never_cost_time(self):
        slow = Cluster(workers=16, d=10**7, cores=2, bandwidth=1e9, ranks_per_host=8)
        for better in ({"cores": 8}, {"bandwidth": 1e10}, {"ranks_per_host": 2}):
            fast = Cluster(**{**vars(slow), **better})
            pairs = zip(
                *(estimates(hb.MultiKrum(f=2), each, measured()) for each in (slow, fast)), strict=True
            )
            assert all(after.step <= before.step for before, after in pairs), better

    def test_more_workers_never_cost_less(self):
        for rule in (hb.Median(), hb.MultiKrum(f=1), hb.BrSGD()):
            for way in range(5):
                steps = [
                    estimates(rule, Cluster(workers=n, d=10**7, cores=8, bandwidth=1e9), measured())[way].step
                    for n in (8, 45, 128, 1000)
                ]
                assert steps == sorted(steps), (rule, way)


def jobs():
    """The committed jobs, without what an earlier version of the code measured."""
    return (calibrate.todays(job, measured()) for job in calibrate.quiet(RESULTS))


@pytest.mark.source
class TestCalibration:
    def test_the_constants_are_those_of_the_committed_measurements(self):
        """Fails after `make bench` and `make bench-step` until `make calibrate` makes the constants again."""
        again = calibrate.calibrated(RESULTS)
        file = json.loads((Path(calibrate.__file__).parents[1] / "plan" / "constants.json").read_text())
        assert set(again) == set(file)
        for name, value in again.items():
            if name == "kernels":
                assert {k: {str(n): s for n, s in by.items()} for k, by in value.items()} == file[name]
            elif name == "fit":
                assert (value["steps"], value["machines"]) == (file[name]["steps"], file[name]["machines"])
                assert value["worst"] == pytest.approx(file[name]["worst"], rel=0.05)
            else:
                assert value == pytest.approx(file[name], rel=0.01), name

    def test_the_error_that_it_states_is_that_of_its_estimates(self):
        worst = 0.0
        for job in jobs():
            estimated = calibrate.predictions(job, measured(), calibrate.compute_of(job))
            for variant, estimate in zip(job["variants"], estimated, strict=True):
                worst = max(worst, abs(estimate.step / (variant["ms"]["step"]["mid"] / 1e3) - 1))
        assert worst == pytest.approx(measured().fit.worst, abs=0.002)
        assert measured().fit.steps >= 9

    def test_bytes_and_memory_are_those_that_were_measured(self):
        """/proc counts more than our messages: Horovod's negotiation, and the libraries' own memory."""
        for job in jobs():
            for variant, estimate in zip(
                job["variants"], calibrate.predictions(job, measured(), 0.0), strict=True
            ):
                if variant["sent_bytes"] is not None:
                    assert max(variant["sent_bytes"]) == pytest.approx(estimate.sent, rel=0.002), variant[
                        "name"
                    ]
                assert max(variant["extra_bytes"]) == pytest.approx(estimate.memory, rel=0.12), variant[
                    "name"
                ]

    def test_a_fit_finds_the_constants_that_made_its_data(self, tmp_path):
        """Steps as the model itself gives them for known constants: those come out, with an error of 0."""
        job = next(jobs())
        known = {"operation": 0.01, "direct": 2e-10, "relayed": 3e-10, "ring": 4e-10}
        known |= {"around": 5e-9, "apply": 6e-10, "rules": 2.0}
        made = list(calibrate.predictions(job, calibrate._with(measured(), known), 0.05))
        for variant, estimate in zip(job["variants"], made, strict=True):
            for part in ("step", *PARTS):
                seconds = estimate.step if part == "step" else estimate.seconds[part]
                variant["ms"][part] = dict.fromkeys(("low", "mid", "high"), 1e3 * seconds)
        folder = tmp_path / "step" / "machine"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"jobs": [job]}))
        (tmp_path / "results.json").write_text((RESULTS / "results.json").read_text())
        again = calibrate.calibrated(tmp_path)
        assert {name: again[name] for name in known} == pytest.approx(known, rel=1e-3)
        assert again["fit"]["worst"] < 0.01

    def test_what_another_version_measured_is_left_out_and_that_is_little(self):
        """The root sent its whole result to each rank when it was measured last."""
        for job in calibrate.quiet(RESULTS):
            kept = calibrate.todays(job, measured())["variants"]
            assert [v["name"] for v in job["variants"] if v not in kept and "root" not in v["name"]] == []

    def test_disturbed_jobs_and_limited_links_are_left_out(self, tmp_path):
        (tmp_path / "step" / "machine").mkdir(parents=True)
        jobs = [{"loaded": True, "network": "loopback"}, {"loaded": False, "network": "1gbit"}]
        (tmp_path / "step" / "machine" / "results.json").write_text(json.dumps({"jobs": jobs}))
        assert list(calibrate.quiet(tmp_path)) == []


class TestCommand:
    def test_every_way_stands_in_the_table_with_the_fastest_and_the_error(self):
        done = plan("--compute", "0.4s")
        assert done.exit_code == 0, done.output
        text = " ".join(done.stdout.split())
        for word in (
            "symmetric",
            "root",
            "root:dedicated=true",
            "sharded",
            "sharded:replicas=3",
            "Horovod's own mean",
        ):
            assert word in text
        assert text.count("fastest") == 1
        assert f"within {100 * measured().fit.worst:.0f} % of {measured().fit.steps} measured steps" in text
        assert "Without --compute" not in text
        assert "Without --compute" in plan().stdout

    def test_the_numbers_of_the_json(self):
        content, ways = planned(compute="0.4s")
        assert (content["rule"], content["workers"]) == ("MultiKrum(f=5, m=None)", 45)
        sharded = ways["sharded"]
        assert sharded["seconds"]["step"] == pytest.approx(sum(sharded["seconds"][part] for part in PARTS))
        assert sharded["seconds"]["compute"] == 0.4
        assert sharded["fastest"] == (
            sharded["seconds"]["step"] == min(w["seconds"]["step"] for w in ways.values())
        )
        assert ways["symmetric"]["memory_bytes"] > 45 * 4 * 11_200_000
        assert content["own_mean"]["sent_bytes"] == 2 * 44 * 4 * 11_200_000 // 45

    def test_a_way_that_does_not_fit_the_memory_is_never_the_fastest(self):
        _, ways = planned(memory="1GiB", rule="median")
        assert {name for name, way in ways.items() if not way["fits"]} == {
            "symmetric",
            "root",
            "root:dedicated=true",
        }
        assert ways["sharded"]["fastest"]
        done = plan(memory="1MiB")
        assert "No way fits the memory" in done.stdout
        assert "fastest" not in done.stdout

    def test_torch_sends_an_announcement_before_each_operation(self):
        _, over_horovod = planned(rule="median")
        content, over_torch = planned(rule="median", transport="torch")
        assert content["transport"] == "torch"
        for name, way in over_torch.items():
            assert way["sent_bytes"] > over_horovod[name]["sent_bytes"]
        assert "DDP's own mean" in plan(transport="torch").stdout

    def test_pipelines_are_planned_by_name(self):
        content, _ = planned(rule="detox:inner=mean,outer=median,groups=5")
        assert content["rule"].startswith("Detox(redundancy=Redundancy(r=3")
        assert planned(rule="hierarchical:inner=median,outer=mean,groups=9")[1]["sharded"]["fastest"]

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"workers": "0"}, "--workers must be a whole number of at least 1, got '0'"),
            ({"workers": "4.5"}, "--workers must be a whole number"),
            ({"workers": "-3"}, "--workers='-3' cannot be read"),
            ({"workers": "1M"}, "--workers may be 20,000 at most, got '1M'"),
            ({"parameters": "1e15"}, "--parameters may be 10,000,000,000,000 at most"),
            ({"parameters": "11.2Q"}, "--parameters='11.2Q' cannot be read: give it such as"),
            ({"parameters": "many"}, "--parameters='many' cannot be read"),
            ({"parameters": "1e400"}, "--parameters='1e400' is too large"),
            ({"bandwidth": "10"}, "--bandwidth='10' cannot be read: give it with its unit, such as 10Gbit"),
            ({"bandwidth": "0Gbit"}, "--bandwidth must be over 0"),
            ({"cores": "0"}, "--cores must be"),
            ({"compute": "soon"}, "--compute='soon' cannot be read: give it such as 0.4s"),
            ({"memory": "64"}, "--memory='64' cannot be read: give it with its unit, such as 64GiB"),
            (
                {"workers": "9"},
                "MultiKrum(f=5, m=None) needs n > 2f + 2 = 12 rows, got n = 9: use f <= 3 or at least 13",
            ),
            ({"rule": "multi-krm:f=5"}, "did you mean 'multi-krum'?"),
            ({"rule": "multi-krum:g=5"}, "unknown option of rule 'multi-krum' 'g'"),
            ({"rule": "krum"}, "rule 'krum' is missing its option f: write for example 'krum:f=1'"),
            ({"rule": "krum:f=x"}, "f must be a whole number >= 0, got 'x'"),
            ({"rule": "krum:f=-1"}, "f must be >= 0, got -1"),
            ({"transport": "nccl"}, "unknown transport 'nccl'"),
            ({"replicas": "1"}, "--replicas must be at least 2, got 1"),
            ({"ranks_per_host": "0"}, "--ranks-per-host must be"),
        ],
        ids=str,
    )
    def test_what_cannot_be_planned_is_explained_in_a_sentence(self, changed, message):
        done = plan(**changed)
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
        assert len(done.stderr.strip().splitlines()) == 1

    def test_one_worker_sends_nothing(self):
        content, ways = planned(workers="1", rule="mean")
        assert set(ways) == {"symmetric", "root", "root:dedicated=true", "sharded"}
        assert ways["symmetric"]["sent_bytes"] == content["own_mean"]["sent_bytes"] == 0


def test_the_workspace_of_a_large_exchange_is_counted():
    cluster = Cluster(workers=1000, d=10**6, cores=8)
    krum, median = (
        next(e for e in estimates(rule, cluster, measured()) if e.name == "sharded")
        for rule in (hb.MultiKrum(f=1), hb.Median())
    )
    assert krum.memory > 1000 * 1000**2 * 8 > 10 * median.memory
    assert np.isfinite(krum.step)
