"""What scripts do with an optimizer where ranks see different things: overflows, losses, sparse batches."""

import horovod.torch as hvd
import torch
from common import batch, fingerprint, flat, loss, model, raised

import horovod_byz as hb

STEPS = 6


def _plain(scaler, optimizer, net):
    scaler.step(optimizer)


def _clipped(scaler, optimizer, net):
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    scaler.step(optimizer)


def _horovods(scaler, optimizer, net):
    optimizer.synchronize()
    scaler.unscale_(optimizer)
    with optimizer.skip_synchronize():
        scaler.step(optimizer)


def _scaled(recipe, fused, overflows):
    """Six steps; at step 2 the loss of rank 1, at step 4 that of every rank is infinite."""
    net = model()
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=fused)
    optimizer = hb.DistributedOptimizer(inner, net.named_parameters(), rule=hb.Mean())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    moved = []
    for step in range(STEPS):
        optimizer.zero_grad()
        before = flat(net)
        value = loss(net, step)
        if overflows and (step == 4 or (step == 2 and hvd.rank() == 1)):
            value = value * float("inf")
        scaler.scale(value).backward()
        recipe(scaler, optimizer, net)
        scaler.update()
        moved.append(not torch.equal(before, flat(net)))
    optimizer.remove_hooks()
    return {"bits": fingerprint(flat(net)), "scale": scaler.get_scale(), "moved": moved}


def check_loss_scaling():
    recipes = {"plain": _plain, "clipped": _clipped, "horovods": _horovods}
    return {
        f"{name}-{'fused' if fused else 'plain'}-{'overflows' if overflows else 'clean'}": _scaled(
            recipe, fused, overflows
        )
        for name, recipe in recipes.items()
        for fused in (False, True)
        for overflows in (False, True)
    }


def check_a_rank_with_another_scale():
    """A rank's loss scale is its own affair: what it sends is the gradient of its loss."""
    net = model()
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), rule=hb.Mean())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (4 + hvd.rank()))
    twin = model()
    plain = hb.DistributedOptimizer(torch.optim.SGD(twin.parameters(), lr=0.1), rule=hb.Mean())
    for step in range(3):
        optimizer.zero_grad()
        scaler.scale(loss(net, step)).backward()
        scaler.step(optimizer)
        scaler.update()
        plain.zero_grad()
        loss(twin, step).backward()
        plain.step()
    return {"same": bool(torch.equal(flat(net), flat(twin)))}


def _by_closure(make):
    net = model()
    optimizer = hb.DistributedOptimizer(make(net.parameters()), net.named_parameters(), rule=hb.Median())
    losses, calls = [], 0
    for _ in range(4):

        def closure():
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            value = loss(net, step=0)
            value.backward()
            return value

        losses.append(float(optimizer.step(closure)))
    optimizer.remove_hooks()
    return {"bits": fingerprint(flat(net)), "losses": losses, "calls": calls}


class Backtracking(torch.optim.SGD):
    """Halves its learning rate until the loss is lower."""

    def step(self, closure):
        first = float(closure())
        super().step()
        while float(closure()) > 0.999 * first and self.param_groups[0]["lr"] > 1e-3:
            self.param_groups[0]["lr"] /= 2
            super().step()
        return first


def check_optimizers_that_decide_by_the_loss():
    return {
        "wolfe": _by_closure(lambda p: torch.optim.LBFGS(p, max_iter=8, line_search_fn="strong_wolfe")),
        "tolerance": _by_closure(lambda p: torch.optim.LBFGS(p, lr=0.1, tolerance_change=1e-2)),
        "backtracking": _by_closure(lambda p: Backtracking(p, lr=1.0)),
    }


def check_sparse_batches():
    """Odd steps: rank 0's batch does not touch the table. Compared with a dense table where all touch it."""
    results = {}
    for name, make in {
        "SparseAdam": lambda p: torch.optim.SparseAdam(p, lr=0.1),
        "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
        "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    }.items():
        torch.manual_seed(0)
        table = torch.nn.Embedding(20, 3, sparse=True)
        optimizer = hb.DistributedOptimizer(make(table.parameters()))
        for step in range(4):
            optimizer.zero_grad()
            if step % 2 or hvd.rank():
                seed = torch.Generator().manual_seed(10 * step + hvd.rank())
                table(torch.randint(0, 20, (4,), generator=seed)).pow(2).sum().backward()
            optimizer.step()
        results[name] = {"bits": fingerprint(flat(table)), "finite": bool(flat(table).isfinite().all())}
        optimizer.remove_hooks()
    return results


def _differing(change, **options):
    """Three steps, then `change` on the last rank only, then until an error comes or six more steps."""
    net = model()
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer = hb.DistributedOptimizer(
        inner, net.named_parameters(), check_state_every=3, on_state_mismatch="stop", **options
    )

    def run():
        for step in range(8):
            if step == 1 and hvd.rank() == hvd.size() - 1:
                change(net, optimizer)
            optimizer.zero_grad()
            loss(net, step).backward()
            optimizer.step()

    result = raised(run)
    optimizer.remove_hooks()
    return {**result, "steps": optimizer.ledger.steps}


def _flip(tensor):
    bits = tensor.detach().view(torch.int32).view(-1)
    bits[0] ^= 1 << 20  # a low bit could be rounded away by the next step


def check_states_that_differ():
    changes = {
        "nothing": lambda net, optimizer: None,
        "weight": lambda net, optimizer: _flip(net[0].weight),
        "bias": lambda net, optimizer: _flip(net[3].bias),
        "momentum": lambda net, optimizer: _flip(optimizer.state[net[0].weight]["momentum_buffer"]),
        "lr": lambda net, optimizer: optimizer.param_groups[0].update(lr=0.2),
    }
    return {
        f"{name}-{collect}": _differing(change, collect=collect)
        for name, change in changes.items()
        for collect in ("symmetric", "root", "sharded")
    }


def check_models_that_were_not_broadcast():
    net = model(seed=hvd.rank() == 0)
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), on_state_mismatch="stop")
    loss(net, 0).backward()
    result = raised(optimizer.step)
    optimizer.remove_hooks()
    unchecked = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), check_state_every=0)
    unchecked.zero_grad()
    loss(net, 0).backward()
    return {**result, "unchecked": raised(unchecked.step)["kind"]}


def check_another_default_device():
    net = model()
    torch.set_default_device("meta")
    try:
        kinds = {}
        for collect in ("symmetric", "root", "sharded"):
            optimizer = hb.DistributedOptimizer(
                torch.optim.SGD(net.parameters(), lr=0.1), collect=collect, buffers=net.named_buffers()
            )
            for p in net.parameters():
                p.grad = torch.full_like(p, float(hvd.rank()))
            kinds[collect] = raised(optimizer.step)
            optimizer.remove_hooks()
    finally:
        torch.set_default_device(None)
    return {"kinds": {name: kind["text"] for name, kind in kinds.items()}, "bits": fingerprint(flat(net))}


def check_a_model_converted_on_all_ranks():
    net = model()
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), collect="sharded")
    for step in range(4):
        if step == 2:
            net.double()
        optimizer.zero_grad()
        x, y = batch(step, hvd.rank())
        torch.nn.functional.cross_entropy(net(x.to(next(net.parameters()).dtype)), y).backward()
        optimizer.step()
    return {
        "bits": fingerprint(flat(net)),
        "row": str(optimizer.last.value.dtype),
        "step": optimizer.last.step,
    }
