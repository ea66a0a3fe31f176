"""Aggregation rules as values, one file per family."""

from __future__ import annotations

from horovod_byz.rules import detox
from horovod_byz.rules.base import BoundedRule, Facts, Rule, StatedRule
from horovod_byz.rules.brsgd import BrSGD
from horovod_byz.rules.centred import CenteredClipping
from horovod_byz.rules.composed import MAPS, Pipeline
from horovod_byz.rules.condition import Condition
from horovod_byz.rules.coordinatewise import MeanAroundMedian, Median, Phocas, SignMajority, TrimmedMean
from horovod_byz.rules.detox import Detox, worst_case_votes
from horovod_byz.rules.draco import Draco
from horovod_byz.rules.filters import CAF, DnC
from horovod_byz.rules.geometric import GeometricMedian, Medoid
from horovod_byz.rules.hierarchical import Hierarchical
from horovod_byz.rules.krum import Bulyan, Krum, MultiKrum
from horovod_byz.rules.mean import Mean
from horovod_byz.rules.naming import (
    PRESETS,
    RULES,
    as_rule,
    by_name,
    name_of,
    names,
    register,
    with_condition,
)
from horovod_byz.rules.norms import CGE, NormBoundedMean
from horovod_byz.rules.pivot import MoNNA
from horovod_byz.rules.preaggregation import ARC, NNM, Bucketing, Clipping, PreAggregation
from horovod_byz.rules.subsets import MDA, SMEA
from horovod_byz.rules.vote import MajorityVote
from horovod_byz.rules.without import Without, excluding, whole

__all__ = [
    "ARC",
    "CAF",
    "CGE",
    "MAPS",
    "MDA",
    "NNM",
    "PRESETS",
    "RULES",
    "SMEA",
    "BoundedRule",
    "BrSGD",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Clipping",
    "Condition",
    "Detox",
    "DnC",
    "Draco",
    "Facts",
    "GeometricMedian",
    "Hierarchical",
    "Krum",
    "MajorityVote",
    "Mean",
    "MeanAroundMedian",
    "Median",
    "Medoid",
    "MoNNA",
    "MultiKrum",
    "NormBoundedMean",
    "Phocas",
    "Pipeline",
    "PreAggregation",
    "Rule",
    "SignMajority",
    "StatedRule",
    "TrimmedMean",
    "Without",
    "as_rule",
    "by_name",
    "excluding",
    "name_of",
    "names",
    "register",
    "whole",
    "with_condition",
    "worst_case_votes",
]

for _kind in (
    *(Mean, Median, TrimmedMean, MeanAroundMedian, Phocas, GeometricMedian, Medoid, Krum, MultiKrum, Bulyan),
    *(BrSGD, SignMajority, CGE, NormBoundedMean, MDA, SMEA, MoNNA, CAF, DnC, CenteredClipping),
    *(MajorityVote, Draco, Hierarchical, Detox, Pipeline),
):
    # Names with capitals inside, such as BrSGD and DnC, are one word.
    register(_kind, _kind.__name__.lower() if _kind in (BrSGD, MoNNA, DnC) else None)
PRESETS.update((f"detox-{preset}", preset) for preset in detox.PRESETS)
