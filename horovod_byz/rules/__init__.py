"""Aggregation rules as values, one file per family."""

from __future__ import annotations

from horovod_byz.rules.base import BoundedRule, Facts, Rule
from horovod_byz.rules.brsgd import BrSGD
from horovod_byz.rules.condition import Condition
from horovod_byz.rules.coordinatewise import MeanAroundMedian, Median, SignMajority, TrimmedMean
from horovod_byz.rules.detox import Detox, worst_case_votes
from horovod_byz.rules.draco import Draco
from horovod_byz.rules.geometric import GeometricMedian, Medoid
from horovod_byz.rules.hierarchical import Hierarchical
from horovod_byz.rules.krum import Bulyan, Krum, MultiKrum
from horovod_byz.rules.mean import Mean
from horovod_byz.rules.naming import as_rule, by_name, name_of, names, register
from horovod_byz.rules.vote import MajorityVote

__all__ = [
    "BoundedRule",
    "BrSGD",
    "Bulyan",
    "Condition",
    "Detox",
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
    "MultiKrum",
    "Rule",
    "SignMajority",
    "TrimmedMean",
    "as_rule",
    "by_name",
    "name_of",
    "names",
    "register",
    "worst_case_votes",
]

_RULES: tuple[type[Rule], ...] = (
    Mean,
    Median,
    TrimmedMean,
    MeanAroundMedian,
    GeometricMedian,
    Medoid,
    Krum,
    MultiKrum,
    Bulyan,
    BrSGD,
    SignMajority,
    MajorityVote,
    Draco,
)

register(*_RULES, Hierarchical)  # Detox needs a redundancy, which no word can hold
