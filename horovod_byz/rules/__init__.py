"""Aggregation rules as values, one file per family."""

from __future__ import annotations

import difflib
import re
from typing import Any

from horovod_byz.rules.base import BoundedRule, Facts, Rule
from horovod_byz.rules.brsgd import BrSGD
from horovod_byz.rules.coordinatewise import MeanAroundMedian, Median, SignMajority, TrimmedMean
from horovod_byz.rules.detox import Detox, worst_case_votes
from horovod_byz.rules.draco import Draco
from horovod_byz.rules.geometric import GeometricMedian, Medoid
from horovod_byz.rules.hierarchical import Hierarchical
from horovod_byz.rules.krum import Bulyan, Krum, MultiKrum
from horovod_byz.rules.mean import Mean
from horovod_byz.rules.vote import MajorityVote

__all__ = [
    "BoundedRule",
    "BrSGD",
    "Bulyan",
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
    "by_name",
    "names",
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

# Pipelines are built from rules, so they have no name of their own with plain options.


def _kebab(kind: type[Rule]) -> str:
    if kind is BrSGD:
        return "brsgd"
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


_BY_NAME = {_kebab(kind): kind for kind in _RULES}


def names() -> list[str]:
    """The rules' names for the command line, such as "mean-around-median"."""
    return list(_BY_NAME)


def by_name(name: str, **options: Any) -> Rule:
    """Makes a rule from its command-line name.

    Args:
        name: one of `names()`.
        options: the rule's parameters, such as f=2.

    Raises:
        ValueError: if no rule has that name.
        TypeError: if the rule has no such parameter, or one is missing.
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown rule {name!r}{hint}: use one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name](**options)
