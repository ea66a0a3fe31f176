"""Replicas in processes of their own compute for real: when their bits agree, and what helps when not."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import horovod_byz as hb
from horovod_byz.host import doctor
from horovod_byz.redundancy import replicas
from horovod_byz.redundancy.sampler import Drawn
from thread_ranks import on_ranks

PROGRAM = pathlib.Path(__file__).parent / "programs" / "replica.py"
REDUNDANCY = hb.Redundancy(3, seed=1)
FIRST, SECOND = REDUNDANCY.groups_of(6)

# One dict for each process, name: worker, torch threads, loader processes, first step.
# Runs that are compared are in different processes.
PROCESSES = [
    {"plain": (FIRST[0], 1, 0, 0), "other group": (SECOND[0], 1, 0, 0)},
    {"two loaders": (FIRST[1], 1, 2, 0), "two threads": (FIRST[1], 2, 0, 0)},
    {"resumed": (FIRST[2], 1, 1, 5), "three threads": (FIRST[2], 3, 1, 0)},
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each run's gradients, (steps, d), and its fingerprint."""
    folder = tmp_path_factory.mktemp("replicas")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    env.pop("OMP_NUM_THREADS", None)
    jobs = []
    for each in PROCESSES:
        command = [sys.executable, str(PROGRAM)]
        for name, arguments in each.items():
            command += [*map(str, arguments), str(folder / f"{name}.npz")]
        jobs.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for each, job in zip(PROCESSES, jobs, strict=True):
        _, printed = job.communicate(timeout=600)
        assert job.returncode == 0, (list(each), printed)
    files = {name: np.load(folder / f"{name}.npz") for each in PROCESSES for name in each}
    return {name: (file["gradients"], str(file["fingerprint"])) for name, file in files.items()}


def bits(rows):
    return rows.view(np.uint32)


def test_loader_processes_and_a_restart_change_no_bit(runs):
    """Augmentation, dropout and batch normalisation in three processes; three epochs."""
    plain = bits(runs["plain"][0])
    assert len(plain) == 9
    np.testing.assert_array_equal(bits(runs["two loaders"][0]), plain)
    np.testing.assert_array_equal(bits(runs["resumed"][0]), plain[5:])


def test_other_groups_and_other_steps_compute_something_else(runs):
    everything = np.concatenate([bits(runs["plain"][0]), bits(runs["other group"][0])])
    assert len(np.unique(everything, axis=0)) == 18


def test_equal_fingerprints_have_equal_bits(runs):
    """Threads may change bits (they do in convolutions); then the fingerprint says so."""
    plain, usual = runs["plain"]
    for name in ("two loaders", "two threads", "three threads"):
        gradients, fingerprint = runs[name]
        if fingerprint == usual:
            np.testing.assert_array_equal(bits(gradients), bits(plain), err_msg=name)
    assert runs["two loaders"][1] == usual
    assert len({runs[name][1] for name in ("plain", "two threads", "three threads")}) == 3


def test_replicas_with_other_threads_agree_within_rounding_and_a_liar_does_not(runs):
    vote = hb.MajorityVote(tolerance=1e-4)
    for rows in zip(*(runs[name][0] for name in ("plain", "two threads", "three threads")), strict=True):
        honest = np.stack(rows)
        lengths = np.linalg.norm(honest.astype(np.float64), axis=1)
        assert np.linalg.norm(honest[1:] - honest[0], axis=1).max() < 1e-5 * lengths.max()
        assert not [v for v in hb.aggregate(honest, vote).verdicts if v.suspect]
        lied = honest.copy()
        lied[1] *= 1.001
        result = hb.aggregate(lied, vote)
        assert [v.worker for v in result.verdicts if v.suspect] == [1]
        assert any(np.array_equal(result.value, honest[i]) for i in (0, 2))


def test_seeded_samples_leave_the_global_generators_alone():
    data = REDUNDANCY.seeded([0, 1, 2])
    torch.manual_seed(5)
    want = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    assert data[Drawn.at(1, 3)] == 1
    assert torch.equal(torch.cat([first, torch.rand(1)]), want)


def test_seeded_samples_differ_by_epoch():
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return torch.rand(())

    sampler = hb.Redundancy(1).sampler(Noise(), worker=0, workers=1, shuffle=False)
    loader = DataLoader(REDUNDANCY.seeded(Noise()), batch_size=4, sampler=sampler)
    epochs = [torch.cat(list(loader)) for _ in range(3)]
    assert len(torch.unique(torch.cat(epochs))) == 18


@pytest.mark.parametrize(("drop_last", "per_epoch"), [(False, 4), (True, 3)])
def test_position_counts_batches(drop_last, per_epoch):
    sampler = hb.Redundancy(1).sampler(range(10), worker=0, workers=1)
    assert sampler.position(per_epoch + 2, 3, drop_last) == {"epoch": 1, "drawn": 6}
    with pytest.raises(ValueError, match="no batch of 11"):
        sampler.position(1, 11, drop_last=True)


DETOX = hb.Detox(hb.Redundancy(3), hb.Mean(), hb.Median())


class TestComparison:
    def warnings_on_ranks(self, monkeypatch, rule, odd):
        """What three ranks are warned of."""
        lines, warned = ["torch A; 1 thread"] * 3, []
        if odd is not None:
            lines[odd] = "torch A; 8 threads"
        monkeypatch.setattr(replicas.warnings, "warn", lambda text, stacklevel: warned.append(text))

        def work(transport):
            transport.exchange = self.saying(transport, lines[transport.rank])
            replicas.compare(transport, rule)

        assert on_ranks(3, work) == [None] * 3
        return warned

    @staticmethod
    def saying(transport, line):
        exchange = transport.exchange

        def send(message, phase):
            own = np.zeros_like(message)
            own[: len(line)] = np.frombuffer(line.encode(), np.uint8)
            return exchange(own, phase)

        return send

    def test_the_odd_rank_is_named(self, monkeypatch):
        messages = self.warnings_on_ranks(monkeypatch, DETOX, 1)
        assert len(messages) == 3
        assert all("rank 1 (torch A; 8 threads)" in message for message in messages)
        assert all("OMP_NUM_THREADS" in message and "tolerance" in message for message in messages)

    def test_equal_ranks_get_no_warning(self, monkeypatch):
        assert self.warnings_on_ranks(monkeypatch, DETOX, None) == []

    @pytest.mark.parametrize(
        ("rule", "needed"),
        [
            (DETOX, True),
            (hb.Draco(f=1), True),
            (hb.Median(), False),
            (hb.Detox(hb.Redundancy(1), hb.Mean(), hb.Median()), False),
            (hb.Detox(hb.Redundancy(3), hb.Mean(), hb.Median(), vote=hb.MajorityVote(1e-4)), False),
        ],
        ids=repr,
    )
    def test_only_rules_that_compare_bits_ask(self, rule, needed):
        assert replicas.needs_equal_bits(rule) == needed


def test_doctor_shows_the_fingerprint():
    check = doctor.replicas()
    assert check.status == "ok"
    assert replicas.fingerprint() in check.detail
    for part in (torch.__version__, "thread", torch.backends.cpu.get_cpu_capability(), "deterministic"):
        assert part in check.detail
