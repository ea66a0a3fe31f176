"""Simulated Byzantine behaviour: attacks rewrite rows, and schedules choose the workers and the steps.

An attack is a frozen dataclass that rewrites rows in place; a schedule names the Byzantine workers of each
step; a `Wire` joins the two.

    >>> import numpy as np
    >>> rows = np.ones((4, 2))
    >>> Omniscient(scale=10)(rows, byzantine=[3])
    >>> rows[3]
    array([-30., -30.])
"""

from horovod_byz.attacks.base import Attack
from horovod_byz.attacks.bits import BitFlip, flip_bits
from horovod_byz.attacks.counterexamples import (
    MeanCounterExample,
    SelectionCounterExample,
)
from horovod_byz.attacks.faults import Constant, Infinite, NotANumber, Zero
from horovod_byz.attacks.gambler import Gambler
from horovod_byz.attacks.hidden import Mimic, MinMax, MinSum
from horovod_byz.attacks.inner_product import InnerProduct
from horovod_byz.attacks.labels import LabelFlip
from horovod_byz.attacks.little import ALittleIsEnough
from horovod_byz.attacks.noise import Gaussian
from horovod_byz.attacks.omniscient import ModelNegation, Omniscient
from horovod_byz.attacks.optimal import OptimalALittleIsEnough, OptimalInnerProduct
from horovod_byz.attacks.registry import by_name, from_data, names, register, to_data
from horovod_byz.attacks.scaling import GradientScale, ReversedGradient, SignFlip
from horovod_byz.attacks.schedule import Fixed, FixedAtRandom, Redrawn, Schedule, draw
from horovod_byz.attacks.script import Event, Script
from horovod_byz.attacks.wire import Wire

__all__ = [
    "ALittleIsEnough",
    "Attack",
    "BitFlip",
    "Constant",
    "Event",
    "Fixed",
    "FixedAtRandom",
    "Gambler",
    "Gaussian",
    "GradientScale",
    "Infinite",
    "InnerProduct",
    "LabelFlip",
    "MeanCounterExample",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelNegation",
    "NotANumber",
    "Omniscient",
    "OptimalALittleIsEnough",
    "OptimalInnerProduct",
    "Redrawn",
    "ReversedGradient",
    "Schedule",
    "Script",
    "SelectionCounterExample",
    "SignFlip",
    "Wire",
    "Zero",
    "by_name",
    "draw",
    "flip_bits",
    "from_data",
    "names",
    "register",
    "to_data",
]
