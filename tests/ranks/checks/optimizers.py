"""hb.DistributedOptimizer beside Horovod's own, step for step."""

import copy
import pickle
import warnings

import horovod.torch as hvd
import torch
from common import batch, fingerprint, flat, gap, loss, model, raised

import horovod_byz as hb

STEPS = 8


def _wrap_horovod(optimizer, net, **options):
    return hvd.DistributedOptimizer(optimizer, named_parameters=net.named_parameters(), **options)


def _wrap_byzantine(optimizer, net, **options):
    return hb.DistributedOptimizer(
        optimizer, named_parameters=net.named_parameters(), rule=hb.Mean(), **options
    )


def _train(wrap, make, loop, **options):
    net = model()
    hvd.broadcast_parameters(net.state_dict(), root_rank=0)
    optimizer = wrap(make(net.parameters()), net, **options)
    loop(net, optimizer)
    result = flat(net)
    if hasattr(optimizer, "remove_hooks"):
        optimizer.remove_hooks()
    return result


def _compare(make, loop, **options):
    return gap(_train(_wrap_horovod, make, loop, **options), _train(_wrap_byzantine, make, loop, **options))


def _sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def _adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def _plain(net, optimizer):
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(net, step).backward()
        optimizer.step()


def check_sgd_momentum():
    return _compare(_sgd, _plain)


def check_adam_with_scheduler():
    def loop(net, optimizer):
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss(net, step).backward()
            optimizer.step()
            schedule.step()

    return _compare(_adam, loop)


def check_clipping():
    def loop(net, optimizer):
        for step in range(STEPS):
            optimizer.zero_grad()
            loss(net, step).backward()
            optimizer.synchronize()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            with optimizer.skip_synchronize():
                optimizer.step()

    return _compare(_sgd, loop)


def check_backward_passes():
    def loop(net, optimizer):
        for step in range(STEPS):
            optimizer.zero_grad()
            for part in range(2):
                loss(net, 2 * step + part).backward()
            optimizer.step()

    return _compare(_sgd, loop, backward_passes_per_step=2)


def check_missing_gradients():
    """The last layer has a gradient on odd ranks only, the first on none at odd steps."""

    def loop(net, optimizer):
        for step in range(STEPS):
            optimizer.zero_grad()
            x, y = batch(step, hvd.rank())
            hidden = net[2](net[1](net[0](x)))
            if hvd.rank() % 2:
                torch.nn.functional.cross_entropy(net[3](hidden), y).backward()
            else:
                hidden.square().mean().backward()
            optimizer.step()

    return _compare(_sgd, loop)


def check_every_way_to_collect():
    results = {}
    want = _train(_wrap_horovod, _sgd, _plain)
    for collect in ("symmetric", "root", "sharded"):
        results[collect] = gap(want, _train(_wrap_byzantine, _sgd, _plain, collect=collect))
    return results


def check_state_round_trip():
    """Half a run, then the rest from state dicts in a new process's objects; against a whole run."""
    whole = model()
    optimizer = _wrap_byzantine(_adam(whole.parameters()), whole)
    _plain(whole, optimizer)
    first, second = model(), model(seed=1)
    half = _wrap_byzantine(_adam(first.parameters()), first)
    for step in range(STEPS // 2):
        half.zero_grad()
        loss(first, step).backward()
        half.step()
    second.load_state_dict(first.state_dict())
    rest = _wrap_byzantine(_adam(second.parameters()), second)
    rest.load_state_dict(half.state_dict())
    for step in range(STEPS // 2, STEPS):
        rest.zero_grad()
        loss(second, step).backward()
        rest.step()
    plain = _adam(model().parameters())
    plain.load_state_dict(half.state_dict())
    return {**gap(flat(whole), flat(second)), "loads_plain": len(plain.state) == len(half.state)}


def check_copies():
    """A pickled and a deep-copied wrapper train on, from the same state, with their own parameters."""
    net = model()
    optimizer = _wrap_byzantine(_adam(net.parameters()), net, collect="sharded")
    _plain(net, optimizer)
    pair = {
        "deepcopy": copy.deepcopy((net, optimizer)),
        "pickle": pickle.loads(pickle.dumps((net, optimizer))),
    }
    results = {}
    for name, (other, twin) in {"original": (net, optimizer), **pair}.items():
        _plain(other, twin)
        results[name] = fingerprint(flat(other))
    return results


def check_mixed_dtypes():
    results = {}
    for dtypes in ((torch.float16, torch.bfloat16, torch.float32), (torch.float32, torch.float64)):
        torch.manual_seed(hvd.rank())
        parameters = [torch.nn.Parameter(torch.ones(5000, dtype=dtype)) for dtype in dtypes]
        optimizer = hb.DistributedOptimizer(torch.optim.SGD(parameters, lr=1.0), collect="sharded")
        for parameter in parameters:
            parameter.grad = torch.randn(5000).to(parameter.dtype)
        rows = [hvd.allgather(p.grad.double().reshape(1, -1)) for p in parameters]
        optimizer.synchronize()
        pairs = zip(parameters, rows, strict=True)
        errors = [float((p.grad.double() - row.mean(0)).abs().max()) for p, row in pairs]
        optimizer.wire = _explode
        optimizer.zero_grad(set_to_none=False)
        parameters[0].grad += 1
        optimizer.step()
        results[str(dtypes[-1])] = {
            "errors": errors,
            "largest": float(parameters[0].grad.max()),
            "finite": all(bool(p.isfinite().all()) for p in parameters),
            "row": str(optimizer.last.value.dtype),
        }
    return results


def _explode(block, offset, d, step):
    block *= 1e6


def check_growing():
    """A parameter group added, and a frozen layer thawed, while training."""
    net = model()
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(net[3].parameters(), lr=0.1), collect="root")
    before = optimizer.last
    loss(net, 0).backward()
    optimizer.step()
    sizes = [optimizer.last.value.size]
    optimizer.add_param_group({"params": list(net[0].parameters()), "lr": 0.01})
    optimizer.zero_grad()
    loss(net, 1).backward()
    optimizer.step()
    sizes.append(optimizer.last.value.size)
    for parameter in net[0].parameters():
        parameter.requires_grad_(True)
    optimizer.zero_grad()
    loss(net, 2).backward()
    optimizer.step()
    sizes.append(optimizer.last.value.size)
    return {
        "before": before is None,
        "sizes": sizes,
        "bits": fingerprint(flat(net)),
        "step": optimizer.last.step,
    }


def check_closure():
    def loop(net, optimizer):
        for step in range(STEPS):

            def closure(step=step):
                optimizer.zero_grad()
                value = loss(net, step)
                value.backward()
                return value

            optimizer.step(closure)

    return gap(_train(_wrap_byzantine, _sgd, _plain), _train(_wrap_byzantine, _sgd, loop))


def check_refusals():
    net = model()
    inner = _sgd(net.parameters())
    theirs = model()
    wrapped = _wrap_horovod(_sgd(theirs.parameters()), theirs)
    results = {"hvd": raised(lambda: hb.DistributedOptimizer(wrapped))}
    optimizer = hb.DistributedOptimizer(inner)
    results["twice"] = raised(lambda: hb.DistributedOptimizer(optimizer))
    results["parameters"] = raised(lambda: hb.DistributedOptimizer(_sgd(net.parameters())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.remove_hooks()
        hb.DistributedOptimizer(inner).remove_hooks()
    results["adasum"] = raised(lambda: hb.DistributedOptimizer(inner, op=hvd.Adasum))
    results["compression"] = raised(lambda: hb.DistributedOptimizer(inner, compression="zip"))
    results["predivide"] = raised(lambda: hb.DistributedOptimizer(inner, gradient_predivide_factor=2.0))
    results["rule"] = raised(lambda: hb.DistributedOptimizer(inner, rule=hb.Krum(f=3)))
    results["collect"] = raised(lambda: hb.DistributedOptimizer(inner, collect="ring"))
    allowed = hb.DistributedOptimizer(
        inner, op=hvd.Average, compression=hvd.Compression.none, process_set=hvd.global_process_set, groups=2
    )
    loss(net, 0).backward()
    results["passes"] = raised(lambda: loss(net, 1).backward())
    allowed.zero_grad()
    loss(net, 0).backward()
    allowed.synchronize()
    results["sealed"] = raised(lambda: loss(net, 1).backward())
    allowed.remove_hooks()
    return results


def check_horovods_compression():
    """`hvd.Compression.fp16` sends rows in float16: the mean of rows that were rounded."""
    net = model()
    rows = []
    for worker in range(hvd.size()):
        gradients = torch.autograd.grad(loss(net, 0, worker), list(net.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in gradients]).half().float())
    optimizer = hb.DistributedOptimizer(_sgd(net.parameters()), compression=hvd.Compression.fp16)
    loss(net, 0).backward()
    optimizer.synchronize()
    got = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    optimizer.remove_hooks()
    return bool(torch.equal(got, hb.Mean()(torch.stack(rows))))


def check_batch_norm():
    """One rank's statistics are wild; the aggregated ones are not, and equal everywhere."""
    net = model()
    optimizer = hb.DistributedOptimizer(
        _sgd(net.parameters()), rule=hb.Median(), buffers=net.named_buffers(), collect="sharded"
    )
    wild = hvd.rank() == hvd.size() - 1 and hvd.size() > 2
    for step in range(3):
        optimizer.zero_grad()
        x, y = batch(step, hvd.rank())
        torch.nn.functional.cross_entropy(net(1e4 * x if wild else x), y).backward()
        optimizer.step()
    norm = net[1]
    norm.running_var[0] = -1.0
    norm.num_batches_tracked += 5 if wild else 0
    hb.aggregate_buffers(net)
    return {
        "mean": float(norm.running_mean.abs().max()),
        "least": float(norm.running_var.min()),
        "tracked": int(norm.num_batches_tracked),
        "bits": fingerprint(torch.cat([norm.running_mean, norm.running_var])),
        "ledger": optimizer.ledger.report()["steps"],
    }
