"""Byzantine-resilient training on Horovod and PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from horovod_byz.aggregation.arena import empty_rows
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.collect import HalfCompression, Root, Sharded, SignCompression, Symmetric
from horovod_byz.faults import Faults
from horovod_byz.host.include import get_include
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.ledger.policy import Policy, PolicyStopError
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import (
    ARC,
    CAF,
    CGE,
    MDA,
    NNM,
    SMEA,
    BrSGD,
    Bucketing,
    Bulyan,
    CenteredClipping,
    Clipping,
    Detox,
    DnC,
    Draco,
    GeometricMedian,
    Hierarchical,
    Krum,
    MajorityVote,
    Mean,
    MeanAroundMedian,
    Median,
    Medoid,
    MoNNA,
    MultiKrum,
    NormBoundedMean,
    Phocas,
    Pipeline,
    Rule,
    SignMajority,
    TrimmedMean,
)
from horovod_byz.rules.aggregate import Aggregate, aggregate

if TYPE_CHECKING:
    from horovod_byz import attacks, theory
    from horovod_byz.optimizer.buffers import aggregate_buffers
    from horovod_byz.optimizer.checkpoints import load_checkpoint, save_checkpoint
    from horovod_byz.optimizer.distributed import DistributedOptimizer
    from horovod_byz.optimizer.start import broadcast_majority

__all__ = [
    "ARC",
    "CAF",
    "CGE",
    "MDA",
    "NNM",
    "SMEA",
    "Aggregate",
    "BrSGD",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Clipping",
    "Detox",
    "DistributedOptimizer",
    "DnC",
    "Draco",
    "Evidence",
    "Faults",
    "GeometricMedian",
    "HalfCompression",
    "Hierarchical",
    "Krum",
    "Ledger",
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
    "Policy",
    "PolicyStopError",
    "Redundancy",
    "Root",
    "Rule",
    "Sharded",
    "SignCompression",
    "SignMajority",
    "Symmetric",
    "TrimmedMean",
    "Verdict",
    "aggregate",
    "aggregate_buffers",
    "attacks",
    "broadcast_majority",
    "empty_rows",
    "get_include",
    "load_checkpoint",
    "save_checkpoint",
    "theory",
]

__version__ = "0.2.0"

# What needs torch or scipy, which take long to import: found when it is first used.
_LATER = {
    "DistributedOptimizer": "horovod_byz.optimizer.distributed",
    "aggregate_buffers": "horovod_byz.optimizer.buffers",
    "broadcast_majority": "horovod_byz.optimizer.start",
    "load_checkpoint": "horovod_byz.optimizer.checkpoints",
    "save_checkpoint": "horovod_byz.optimizer.checkpoints",
}
_MODULES = ("attacks", "theory")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"horovod_byz.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'horovod_byz' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
