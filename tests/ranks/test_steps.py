"""The step benchmark measures what it says, on ranks; nothing here depends on a clock."""

from __future__ import annotations

import pytest

from horovod_byz.bench.step_page import page
from horovod_byz.bench.step_variants import PARTS, variants
from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("steps")]

job = jobs((2, "gloo"), (2, "torch"))


@pytest.fixture
def measured(checked):
    """What rank 0 measured; the ranks tell one another every number but the load."""
    own = ("seconds", "others_cores")
    first, second = (
        {key: value for key, value in each.items() if key not in own}
        for each in checked("check_step_benchmark")
    )
    assert first == second
    return first


def test_every_variant_is_measured_beside_the_own_optimizer(measured, job):
    own = "DDP" if job[1] == "torch" else "Horovod"
    assert measured["baseline"] == own
    assert [entry["name"] for entry in measured["variants"]] == [own, *(v.name for v in variants(2))]
    assert measured["variants"][0]["ratio"] == {"low": 1, "mid": 1, "high": 1}


def test_the_parts_add_up_to_the_step(measured):
    for entry in measured["variants"]:
        parts = [entry["ms"][part]["mid"] for part in PARTS]
        assert sum(parts[1:]) == pytest.approx(parts[0], rel=1e-3, abs=1e-3), entry["name"]


def test_communication_alone_is_measured_where_it_can_be(measured, job):
    alone = [entry["communication_ratio"] is not None for entry in measured["variants"]]
    assert alone == [job[1] != "torch"] * len(alone)


def test_a_symmetric_step_sends_its_row_and_a_root_receives(measured):
    """d = 612: a row has 2448 bytes, and messages of fixed size come on top."""
    sent = {entry["name"]: entry["sent_bytes"] for entry in measured["variants"]}
    assert min(sent["Median, symmetric"]) > 2448
    assert sent["Median, root"][1] > 2448


def test_the_page_shows_it(measured):
    machine = {"cpu": "a", "cores": 2, "level": "avx2", "packages": {"torch": "2"}, "commit": None}
    load = {"before": {"average": [0.0, 0.0, 0.0], "cores": 0.0}, "after": [1.0, 0.0, 0.0]}
    job = {**measured, "others_cores": 0.0, "loaded": False, "machine": machine, "load": load}
    text = page([job])
    assert all(f"\n| {entry['name']} |" in text for entry in measured["variants"])
