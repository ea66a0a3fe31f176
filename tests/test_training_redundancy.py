"""Redundancy groups in the training loop: named pipelines, shared batches, one computation per group."""

from __future__ import annotations

import pytest
import torch

import horovod_byz as hb
import training
from horovod_byz.training import config as configs

COMMON = {"workers": 9, "redundancy": 3, "steps": 4, "data": {"name": "digits", "batch": 12}}


def trained(**options):
    return training.trained(**{**COMMON, **options})


@pytest.mark.parametrize(
    "rule", ["detox-median", "detox-multi-krum", "hierarchical:inner=mean,outer=median,groups=3"]
)
def test_pipelines_have_names(rule):
    config = configs.make({"workers": 45, "byzantine": 5, "redundancy": {"r": 3}, "rule": rule})
    assert config.make_rule().max_byzantine(45) >= 1
    assert configs.make(config.to_data()) == config


def test_the_presets_take_the_worst_case_after_the_vote():
    config = configs.make({"workers": 45, "byzantine": 5, "redundancy": 3, "rule": "detox-multi-krum"})
    assert config.make_rule() == hb.Detox.preset("multi-krum", hb.Redundancy(r=3), 45, 5)


def test_stages_are_given_by_name():
    rule = {"name": "detox", "inner": "multi-krum:f=1", "outer": "mean", "groups": 2, "tolerance": 1e-6}
    made = configs.make({"workers": 45, "redundancy": 3, "rule": rule}).make_rule()
    assert made == hb.Detox(
        hb.Redundancy(3), hb.MultiKrum(f=1), hb.Mean(), groups=2, vote=hb.MajorityVote(tolerance=1e-6)
    )


@pytest.mark.parametrize(
    "rule", ["detox-medain", "detox:inner=meen,outer=mean", "detox:inner=mean", "detox:x=1"]
)
def test_mistakes_are_named(rule):
    with pytest.raises(configs.ConfigError, match=r"did you mean|missing|choose one of"):
        configs.make({"workers": 45, "redundancy": 3, "rule": rule})


def test_replicas_agree_and_computing_once_changes_no_bit():
    once = trained(rule="detox-median")
    every = trained(rule="detox-median", redundancy={"r": 3, "compute": "every"})
    assert len(once.gradients.rows) == 3
    assert len(every.gradients.rows) == 9
    assert torch.equal(once.theta, every.theta)
    for group in hb.Redundancy(3).groups_of(9):
        assert all(torch.equal(every.gradients.rows[i], every.gradients.rows[group[0]]) for i in group)


def test_one_byzantine_worker_changes_no_bit():
    clean = trained(rule="detox-median")
    attacked = trained(rule="detox-median", byzantine=1, attack="omniscient")
    assert torch.equal(clean.theta, attacked.theta)


def test_poisoned_replicas_compute_for_themselves():
    trainer = trained(rule="detox-median", byzantine=2, attack="label-flip", schedule="first")
    assert len(trainer.gradients.rows) == 9
