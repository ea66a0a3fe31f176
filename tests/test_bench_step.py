"""The step benchmark without ranks: what it compares, how it summarises, what it writes."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz import bench
from horovod_byz.bench import step, step_jobs, step_page, step_rank
from horovod_byz.bench.step_jobs import Job
from horovod_byz.bench.step_models import MODELS
from horovod_byz.bench.step_variants import PARTS, Training, Variant, baseline, variants
from horovod_byz.common.errors import ExplainedError

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "bench" / "step"
MACHINE = {"cpu": "A (B) 3", "cores": 2, "level": "avx2", "packages": {"torch": "2.13"}, "commit": "c" * 40}


def entry(name, ratio, sent=(8.0e6, 4.0e6)):
    spread = {"low": ratio - 0.1, "mid": ratio, "high": ratio + 0.1}
    ms = {part: {"low": 1.0, "mid": 100.0 + i, "high": 200.0} for i, part in enumerate(PARTS)}
    return {
        "name": name,
        "rule": None,
        "ms": ms,
        "ratio": spread,
        "communication_ms": spread,
        "communication_ratio": spread,
        "sent_bytes": list(sent),
        "extra_bytes": [4_000_000, None],
    }


def job(**changed):
    given = {"backend": "gloo", "ranks": 4, "model": "large", "network": "loopback", "rounds": 7}
    about = {"title": "layers", "d": 1_000_000, "tensors": 24, "threads": 1, "baseline": "Horovod"}
    load = {"before": {"average": [0.1, 0.2, 0.3], "cores": 0.0}, "after": [3.9, 1.0, 0.5]}
    state = {"load": load, "machine": MACHINE, "loaded": False, "seconds": 9.0, "others_cores": 0.02}
    entries = {"variants": [entry("Horovod", 1.0), entry("Median, sharded", 0.81)]}
    return {**given, **about, **state, **entries, **changed}


@pytest.mark.parametrize(("name", "d", "tensors"), [("large", 1.12e7, 24), ("transformer", 1.12e7, 200)])
def test_models_have_the_stated_size(name, d, tensors):
    sizes = [parameter.numel() for parameter in MODELS[name].build().parameters()]
    assert len(sizes) == tensors
    assert sum(sizes) == pytest.approx(d, rel=0.01)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_every_rule_holds_for_the_number_of_ranks(size):
    for every in (False, True):
        made = variants(size, every)
        for variant in made:
            variant.rule.check(size)
            assert {variant.batch_of(rank, size) for rank in range(size)} <= set(range(size))
        assert len({variant.name for variant in made}) == len(made)


def test_replicas_compute_one_batch_and_others_their_own():
    vote = Variant("vote", hb.Detox(hb.Redundancy(r=2), hb.Mean(), hb.Median()))
    groups = vote.rule.redundancy.groups_of(4)
    assert [[vote.batch_of(rank, 4) for rank in group] for group in groups] == [[0, 0], [1, 1]]
    assert [Variant("median", hb.Median()).batch_of(rank, 4) for rank in range(4)] == [0, 1, 2, 3]
    assert {Variant("vote", hb.MajorityVote()).batch_of(rank, 4) for rank in range(4)} == {0}


def test_a_training_alone_steps_and_says_its_parts():
    model = MODELS["tiny"]
    training = Training(Variant("Median, symmetric", hb.Median(), "symmetric"), model, model.batch(0))
    parts = dict(zip(PARTS, training.step(), strict=True))
    assert parts["step"] == pytest.approx(sum(parts.values()) - parts["step"])
    assert all(value > 0 for name, value in parts.items() if name != "return")


def test_ratios_compare_steps_of_one_round_and_the_slowest_rank():
    """Slowest ranks (1, 10, 100) and (2, 40, 300) s: ratios 2, 4, 3; of the medians it would be 4."""

    def steps(whole):
        values = np.zeros((3, 2, len(PARTS) + 1))
        values[:, 0, 0], values[:, 1, 0] = np.array(whole) / 2, whole
        values[:, 1, 1], values[:, :, -1] = 0.25, [[10, 20], [30, 20], [50, 20]]
        return {"steps": values, "alone": np.array([[1.0, np.nan]] * 3)}

    told = step_rank.summary({"own": steps([1, 10, 100]), "other": steps([2, 40, 300])}, "own", True)
    assert told["other"]["ratio"] == {"low": 2.5, "mid": 3.0, "high": 3.5}
    assert told["other"]["ms"]["compute"]["mid"] == 250.0
    assert told["other"]["sent_bytes"] == [30, 20]
    assert told["other"]["communication_ratio"] is None
    assert step_rank.summary({"own": steps([1, 1, 1])}, "own", False)["own"]["sent_bytes"] is None


def test_variants_share_the_memory_in_turns():
    given = variants(4, every=True)
    cut = list(step_rank.batches(given, 10**6, 4, room=500e6))
    assert len(cut) > 1
    assert list(itertools.chain(*cut)) == given
    assert list(step_rank.batches(given, 10**6, 4, room=1e12)) == [given]
    assert list(step_rank.batches(given[:2], 10**6, 4, room=1.0)) == [[given[0]], [given[1]]]


def test_the_page_states_ratio_circumstances_and_load():
    text = step_page.page([job()])
    assert "**0.81** times (0.71 to 0.91)" in text
    assert "| Median, sharded | 0.81 | 0.71 to 0.91 | 0.81 | 0.71 to 0.91 | 100 | 101 |" in text
    assert "| 2.0 d |  |" in text  # memory is not known of every rank
    assert "load average 0.1 before, 3.9 after; other processes used 0.02 cores" in text
    assert "no results" not in text
    assert "no results" in step_page.page([job(loaded=True)])
    assert step_page.headline([job(ranks=2)]) == ""
    assert step_page.headline([job(loaded=True)]) == ""


def test_a_job_replaces_its_predecessor_and_no_other(tmp_path):
    step.write([job(), job(ranks=2)], tmp_path)
    step.write([job(rounds=9)], tmp_path)
    step.write([job(machine={**MACHINE, "level": "avx512"})], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-b-3-2-cores-avx2", "a-b-3-2-cores-avx512"]
    place = tmp_path / "a-b-3-2-cores-avx2"
    jobs = json.loads((place / "results.json").read_text())["jobs"]
    assert [(each["ranks"], each["rounds"]) for each in jobs] == [(4, 9), (2, 7)]
    assert (place / "README.md").read_text() == step_page.page(jobs)
    assert (place / "step.png").stat().st_size > 0


@pytest.mark.source
def test_committed_pages_are_made_from_their_results():
    for file in RESULTS.glob("*/results.json"):
        jobs = json.loads(file.read_text())["jobs"]
        assert (file.parent / "README.md").read_text() == step_page.page(jobs)
        assert {step.folder_of(each["machine"]) for each in jobs} == {file.parent.name}
        assert not any(each["loaded"] for each in jobs)


def test_a_loaded_machine_is_refused_or_said(monkeypatch, capsys):
    monkeypatch.setattr(step_jobs, "load", lambda: {"average": [3.0, 2.0, 1.0], "cores": 1.5})
    started = []
    with pytest.raises(ExplainedError, match=r"use 1\.50 cores .* --anyway"):
        step.measure([Job()], None, start=started.append)
    assert started == []
    loads = iter([1.5, 0.0])
    monkeypatch.setattr(step_jobs, "load", lambda: {"average": [3.0] * 3, "cores": next(loads)})
    assert not step.measure([Job()], None, start=lambda planned: job())[0]["loaded"]
    monkeypatch.setattr(step_jobs, "load", lambda: {"average": [3.0, 2.0, 1.0], "cores": 1.5})
    (result,) = step.measure([Job()], None, anyway=True, start=lambda planned: job())
    assert result["loaded"]
    assert "no results" in capsys.readouterr().out


def test_a_job_that_others_disturbed_says_so(monkeypatch):
    monkeypatch.setattr(step_jobs, "load", lambda: {"average": [0.0] * 3, "cores": 0.0})
    quiet, disturbed = (job(others_cores=cores) for cores in (0.1, 0.5))
    assert [step.measure([Job()], None, start=lambda _, r=r: r)[0]["loaded"] for r in (quiet, disturbed)] == [
        False,
        True,
    ]


def test_a_job_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(step_jobs, "load", dict)
    monkeypatch.setattr(Job, "command", lambda job, file, hosts: ["sh", "-c", "echo the reason; exit 3"])
    with pytest.raises(RuntimeError, match=r"exit code 3.*\n.*the reason"):
        step_jobs.start(Job())
    monkeypatch.setattr(Job, "command", lambda job, file, hosts: ["sleep", "60"])
    with pytest.raises(RuntimeError, match=r"did not end in 0\.1 s"):
        step_jobs.start(Job(), limit=0.1)


def test_the_long_form_covers_the_stated_grid():
    jobs = step.full(rounds=5)
    assert len({(each.backend, each.ranks, each.model) for each in jobs}) == len(jobs) == 27
    assert [each.every for each in jobs].count(True) == 1
    assert baseline("torch").name == "DDP"


def test_the_command_takes_step_as_a_word(capsys):
    with pytest.raises(SystemExit):
        bench.main(["step", "--ranks", "1"])
    assert "--ranks at least 2" in capsys.readouterr().err
