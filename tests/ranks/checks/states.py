"""A rank's parameter or optimizer state is damaged, and the start by vote."""

import hashlib
import warnings

import horovod.torch as hvd
import torch
from common import batch, fingerprint, flat, model, raised

import horovod_byz as hb

STEPS, EVERY, AT = 12, 5, 7
ODD = 1


class _Actions:
    def __init__(self):
        self.details = []

    def entered(self, ledger, evidence): ...
    def stepped(self, ledger, result, step): ...
    def bound(self, ledger, facts): ...

    def acted(self, ledger, action):
        self.details.append([action.step, action.action, action.rank, action.detail])


def _flip(tensor, bit=20):
    bits = tensor.detach().view(torch.int32).view(-1)
    bits[3] ^= 1 << bit


def _train(damage, collect, rule, shared_batch):
    """Every rank's model after a run in which one rank's state is damaged before step `AT`."""
    net = model()
    inner = torch.optim.Adam(net.parameters(), lr=0.01)
    optimizer = hb.DistributedOptimizer(
        inner, net.named_parameters(), rule=rule, collect=collect, check_state_every=EVERY
    )
    actions = _Actions()
    optimizer.ledger.listeners.append(actions)
    for step in range(STEPS):
        if step == AT and hvd.rank() == ODD:
            damage(net, inner)
        optimizer.zero_grad()
        x, y = batch(step, 0 if shared_batch else hvd.rank())
        torch.nn.functional.cross_entropy(net(x), y).backward()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
    optimizer.remove_hooks()
    state = b"".join(
        inner.state[p][k].numpy().tobytes() for p in net.parameters() for k in sorted(inner.state[p])
    )
    return {
        "bits": fingerprint(flat(net)) + hashlib.sha256(state).hexdigest(),
        "evidence": [
            [e.step, e.kind, e.reason, e.rank, e.detail]
            for e in optimizer.ledger.evidence
            if e.reason == "state"
        ],
        "actions": actions.details,
    }


DAMAGES = {
    "nothing": lambda net, inner: None,
    "parameter": lambda net, inner: _flip(net[0].weight),
    "mantissa": lambda net, inner: _flip(net[3].weight, bit=10),
    "exp_avg": lambda net, inner: _flip(inner.state[net[0].weight]["exp_avg"]),
    "step": lambda net, inner: inner.state[net[3].bias]["step"].add_(16.0),
}


def check_repairs():
    """All ranks compute one batch and vote, so that what a damaged rank sends until then changes nothing."""
    return {
        f"{name}-{collect}": _train(damage, collect, hb.MajorityVote(), shared_batch=True)
        for name, damage in DAMAGES.items()
        for collect in ("symmetric", "root", "sharded")
    }


def check_repair_beside_other_batches():
    dedicated = hb.Root(dedicated=True)
    return {
        "median": _train(DAMAGES["parameter"], "symmetric", hb.Median(), shared_batch=False),
        "dedicated": _train(DAMAGES["parameter"], dedicated, hb.Mean(), shared_batch=False),
    }


def check_start_by_vote():
    net = model(seed=hvd.rank() == 0)
    tie = model(seed=hvd.rank())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = hb.broadcast_majority(net.state_dict())
        again = hb.broadcast_majority(net.state_dict())
        differ = raised(lambda: hb.broadcast_majority(tie.state_dict(), timeout=30))
    return {
        "odd": odd,
        "again": again,
        "bits": fingerprint(flat(net)),
        "want": fingerprint(flat(model())),
        "tie": differ,
    }
