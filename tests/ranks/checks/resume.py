"""`hvd.broadcast_optimizer_state` for every optimizer of torch, with Horovod's wrapper and with ours."""

import horovod.torch as hvd
import torch
from common import fingerprint, raised

import horovod_byz as hb
from horovod_byz.optimizer.state import digest

OPTIONS = {
    "SGD": [{}, {"momentum": 0.9, "weight_decay": 0.1}],
    "Adam": [{}, {"amsgrad": True, "weight_decay": 0.1}, {"fused": True}],
    "RMSprop": [{"centered": True, "momentum": 0.9}],
}


def _cases():
    kinds = torch.optim.Optimizer.__subclasses__()
    names = sorted(kind.__name__ for kind in kinds if kind.__module__.startswith("torch.optim."))
    return [(name, options) for name in names for options in OPTIONS.get(name, [{}])]


def _module(name, seed=0):
    torch.manual_seed(seed)
    if name == "SparseAdam":
        return torch.nn.Embedding(6, 3, sparse=True)
    return torch.nn.Linear(5, 3, bias=False)


def _train(name, module, optimizer, steps, first=0):
    for step in range(first, first + steps):
        x = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))

        def closure(x=x, step=step):
            optimizer.zero_grad()
            indices = torch.tensor([step % 6, 4])
            loss = module(indices if name == "SparseAdam" else x).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure) if name == "LBFGS" else (closure(), optimizer.step())


def _horovods(inner, module):
    return hvd.DistributedOptimizer(inner, named_parameters=module.named_parameters())


def _ours(inner, module):
    return hb.DistributedOptimizer(inner, module.named_parameters(), rule=hb.Mean())


def _make(name, options, wrap, resumed):
    """A model and optimizer; rank 0's is three steps old where it is to be resumed."""
    module = _module(name)
    # Horovod broadcasts no options of an optimizer without state, such as SGD without momentum.
    own = 0.05 if hvd.rank() == 0 or (name, options) == ("SGD", {}) else 0.1
    inner = getattr(torch.optim, name)(module.parameters(), lr=own, **options)
    saved = None
    if resumed and hvd.rank() == 0:
        older = _module(name)
        plain = getattr(torch.optim, name)(older.parameters(), lr=0.05, **options)
        _train(name, older, plain, 3)
        saved = older.state_dict(), plain.state_dict()
    optimizer = wrap(inner, module)
    if saved is not None:
        module.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
    hvd.broadcast_parameters(module.state_dict(), root_rank=0)
    return module, optimizer


def _broadcast(name, options, wrap, resumed):
    """What a rank has after the broadcast, and after three steps more."""
    module, optimizer = _make(name, options, wrap, resumed)
    before = module.weight.detach().clone()
    error = raised(lambda: hvd.broadcast_optimizer_state(optimizer, root_rank=0))
    result = {
        "error": error["text"],
        "moved": not torch.equal(before, module.weight),
        "lr": optimizer.param_groups[0]["lr"],
        "phantom": getattr(getattr(optimizer, "ledger", None), "steps", None),
    }
    if not error["text"]:
        result["state"] = digest(optimizer).hex()
        _train(name, module, optimizer, 3, first=3)
        result["end"] = fingerprint(module.weight.detach())
    return result


def check_broadcasts():
    """Each optimizer, fresh and resumed on rank 0, with either wrapper; a fresh one also without."""
    results = {}
    for name, options in _cases():
        label = f"{name} {options}"
        results[label] = {
            f"{kind}-{'resumed' if resumed else 'fresh'}": _broadcast(name, options, wrap, resumed)
            for kind, wrap in {"horovod": _horovods, "ours": _ours}.items()
            for resumed in (False, True)
        }
        module = _module(name)
        hvd.broadcast_parameters(module.state_dict(), root_rank=0)
        inner = getattr(torch.optim, name)(module.parameters(), lr=0.05, **options)
        optimizer = _ours(inner, module)
        _train(name, module, optimizer, 3, first=3)
        results[label]["never"] = {"end": fingerprint(module.weight.detach())}
    return results
