"""hvd.join() beside robust collection, on Gloo and on MPI. The checks run in the order written."""

import horovod.torch as hvd
import numpy as np
import torch
from common import fingerprint, flat, loss, model, raised
from horovod.torch import join  # as scripts do, before anything of ours is bound

import horovod_byz as hb
from horovod_byz.collect import bind, joining

ROW = np.full((1, 1000), 1.0, np.float32)


def _bound(collect="symmetric", **options):
    return bind(collect, 1000, np.float32, **{"timeout": 30, **options})


def _optimizer(net, collect):
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    options = {"rule": hb.Median(), "collect": collect, "buffers": net.named_buffers(), "timeout": 30}
    return hb.DistributedOptimizer(inner, net.named_parameters(), **options)


def check_equal_steps_then_join():
    """Every rank joins after each of two epochs of equal length, as Horovod's users do."""
    results = {}
    for collect in ("symmetric", "sharded", "root"):
        net = model()
        optimizer = _optimizer(net, collect)
        last = []
        for epoch in range(2):
            for step in range(3):
                optimizer.zero_grad()
                loss(net, 3 * epoch + step).backward()
                optimizer.step()
            last.append(hvd.join())
        results[collect] = {"last": last, "parameters": fingerprint(flat(net))}
        optimizer.remove_hooks()
    return results


def check_uneven_steps():
    """Some ranks join after two steps; the others go on. All may go on together afterwards."""
    results = {}
    for name, early in {"one": [1], "root": [0], "all but one": [0, 1, 3]}.items():
        for collect in ("symmetric", "sharded", "root"):
            session = _bound(collect)

            def epoch(session=session, early=early):
                for _ in range(2 if hvd.rank() in early else 4):
                    session.step(ROW, hb.Mean())
                hvd.join()

            result = raised(epoch)
            result["steps"] = session.next_step
            session.step(ROW, hb.Mean(), step=10)
            results[f"{name} {collect}"] = {**result, "early": early}
    return results


def check_the_name_imported_before():
    session = _bound()
    session.step(ROW, hb.Mean())
    return raised(join if hvd.rank() == 2 else lambda: session.step(ROW, hb.Mean()))


def check_other_sessions():
    """The others are in another session, or bind a new one, when a rank joins."""
    first, second = _bound(name="first"), _bound(name="second")
    first.step(ROW, hb.Mean())
    stepping = raised(hvd.join if hvd.rank() == 2 else lambda: second.step(ROW, hb.Mean()))
    binding = raised(hvd.join if hvd.rank() == 2 else lambda: _bound("root", name="third"))
    return {"stepping": stepping, "binding": binding}


class Unbound:
    """What binds at its first step, which does not come where a rank has no data."""


def check_a_rank_without_any_step():
    owner = Unbound()
    joining.watch(owner)
    result = raised(hvd.join if hvd.rank() == 2 else lambda: _bound().step(ROW, hb.Mean()))
    del owner
    return result


def check_without_sessions():
    """Nothing of ours is left: Horovod's join lets ranks stop early, and stands in with zeros."""
    total = 1.0
    if hvd.rank() == 0:  # the others join at once
        total = float(hvd.allreduce(torch.ones(1), op=hvd.Sum, name="joined"))
    hvd.join()
    session = _bound()
    return {"total": total, "after": float(session.step(ROW, hb.Mean()).value[0])}
