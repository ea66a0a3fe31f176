"""Every rule gives the same bits at every instruction set and with any number of threads."""

import hashlib

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.kernels import dispatch
from horovod_byz.kernels.rows import TILE

REDUNDANCY = hb.Redundancy(r=3)
RULES = [
    hb.Mean(),
    hb.Median(),
    hb.TrimmedMean(f=7),
    hb.MeanAroundMedian(f=11),
    hb.Phocas(f=11),
    hb.GeometricMedian(),
    hb.Medoid(),
    hb.Krum(f=10),
    hb.MultiKrum(f=10),
    hb.Bulyan(f=5),
    hb.BrSGD(),
    hb.SignMajority(),
    hb.CGE(f=10),
    hb.MDA(f=10),
    hb.CAF(f=10),
    hb.DnC(f=10),
    hb.CenteredClipping(tau=5.0, iterations=2),
    hb.Detox(REDUNDANCY, inner=hb.Mean(), outer=hb.Median(), groups=5),
    hb.Detox(REDUNDANCY, inner=hb.MultiKrum(f=2), outer=hb.Mean(), groups=2),
]


def honest(dtype):
    rng = np.random.default_rng(3)
    return (rng.standard_normal(9 * TILE + 333) + 0.3 * rng.standard_normal((45, 9 * TILE + 333))).astype(
        dtype
    )


def attacked(dtype):
    rows = honest(dtype)
    rows[3] *= 1e10
    rows[8] = 1e20
    rows[20, 4000:4100] = np.nan
    rows[21, 17] = np.inf
    rows[30:33] = rows[31]
    return rows


def tiny(dtype):
    return (honest(np.float64) * np.finfo(dtype).smallest_normal / 8).astype(dtype)


def digest(result):
    everything = [
        np.asarray(result.value),
        result.weights,
        *(np.float64(v.distance) for v in result.verdicts),
    ]
    return hashlib.sha256(b"".join(part.tobytes() for part in everything)).hexdigest()


@pytest.fixture(autouse=True)
def restore():
    before = dispatch.level()
    yield
    dispatch.use(before)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize(
    ("make", "dtype"),
    [(honest, np.float32), (tiny, np.float32), (attacked, np.float32), (attacked, np.float64)],
)
def test_the_same_bits_at_every_level_with_1_2_and_7_threads(rule, make, dtype):
    rows, digests = make(dtype), {}
    for level in dispatch.levels():
        dispatch.use(level)
        for threads in (1, 2, 7):
            digests[level, threads] = digest(hb.aggregate(rows, rule, threads=threads))
    assert len(set(digests.values())) == 1, digests
