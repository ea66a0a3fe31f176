"""The theorems of the papers as calculators: constants, bounds and preconditions to judge experiments by.

| module | from | answers |
| --- | --- | --- |
| `resilience` | Xie et al. 2018 | eta, resilience angle, Lemmas 3 to 5 |
| `robustness` | Allouah et al. 2023 | kappa: how far f rows can move a rule, whatever they hold |
| `bias` | order statistics | bias of the median under a one-sided attack, its variance |
| `empires` | Xie et al. 2019 | when inner product manipulation breaks the median and Krum |
| `detox` | Rajput et al. 2019 | Byzantine votes that survive redundancy, Theorem 3, variances |
| `brsgd` | Li et al. 2021 | safe deviation bound, contraction, rates |
| `gambling` | Xie et al. 2018 | which rules the gambler attack crashes |
| `little` | Baruch et al. 2019 | z_max |
| `requirements`, `advice` | all | preconditions, counts, costs; which rule to take |
| `examples` | Xie et al. 2018, 2019 | rows on which the claims can be read off |
"""

from horovod_byz.theory import (
    bias,
    brsgd,
    detox,
    empires,
    examples,
    gambling,
    little,
    requirements,
    resilience,
    robustness,
)
from horovod_byz.theory.advice import Option, Recommendation, recommend
from horovod_byz.theory.detox import byzantine_votes_pmf, expected_byzantine_votes
from horovod_byz.theory.gambling import Gamble
from horovod_byz.theory.little import z_max
from horovod_byz.theory.requirements import (
    REQUIREMENTS,
    bulyan_counts,
    operations,
    requirement,
)
from horovod_byz.theory.resilience import etas, resilience_angle

__all__ = [
    "REQUIREMENTS",
    "Gamble",
    "Option",
    "Recommendation",
    "bias",
    "brsgd",
    "bulyan_counts",
    "byzantine_votes_pmf",
    "detox",
    "empires",
    "etas",
    "examples",
    "expected_byzantine_votes",
    "gambling",
    "little",
    "operations",
    "recommend",
    "requirement",
    "requirements",
    "resilience",
    "resilience_angle",
    "robustness",
    "z_max",
]
