"""Small models and data, the same on every rank unless the rank says otherwise."""

import hashlib

import numpy as np
import torch
from backend import hvd


def model(seed=0):
    torch.manual_seed(seed)
    # No bias before BatchNorm: its gradient is rounding noise, which Adam would scale up to a full step.
    return torch.nn.Sequential(
        torch.nn.Linear(20, 32, bias=False), torch.nn.BatchNorm1d(32), torch.nn.Tanh(), torch.nn.Linear(32, 3)
    )


def batch(step, worker, size=16):
    g = torch.Generator().manual_seed(1000 * step + worker)
    x = torch.randn(size, 20, generator=g)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loss(net, step, worker=None):
    x, y = batch(step, hvd.rank() if worker is None else worker)
    return torch.nn.functional.cross_entropy(net(x), y)


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def fingerprint(tensor):
    """Equal on two ranks only if every bit is."""
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()


def gap(a, b):
    """Largest difference relative to the largest value, and whether all bits agree."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return {"gap": float((a - b).abs().max() / a.abs().max()), "same": bool(torch.equal(a, b))}


def raised(call):
    """The error that a call raises: its class, message, and the ranks it names."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return {"kind": type(error).__name__, "text": str(error), "ranks": list(getattr(error, "ranks", ()))}
    return {"kind": "none", "text": "", "ranks": []}
