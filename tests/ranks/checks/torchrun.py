"""What is particular to torch.distributed: lengths and kinds of messages, its groups, DDP."""

import os
import pathlib
import time

import numpy as np
import torch
import torch.distributed as dist
from backend import hvd
from common import fingerprint, flat, loss, model, raised

import horovod_byz as hb
from horovod_byz.collect import bind, over_torch, torch_job
from horovod_byz.collect.transport import connect

KINDS = (np.float32, np.float64, np.uint8, np.int64)


def _anew(name):
    """Destroys the process group and makes another, through a store that no earlier group used.

    No rank begins before all have destroyed theirs: on a busy machine Gloo's new connections were otherwise
    seen to break ("connectFullMesh: connection closed by peer").
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.destroy_process_group()
    folder = pathlib.Path(os.environ["RANK_RESULTS"])
    (folder / f"{name}.destroyed.{rank}").touch()
    while not all((folder / f"{name}.destroyed.{i}").exists() for i in range(size)):
        time.sleep(0.01)  # the job's time limit ends a rank that waits in vain
    _begin(name)


def _begin(name):
    file = pathlib.Path(os.environ["RANK_RESULTS"], f"{name}.store")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)


def _optimizer(net, **options):
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return hb.DistributedOptimizer(inner, net.named_parameters(), rule=hb.Median(), **options)


def _step(net, optimizer, step=0):
    optimizer.zero_grad()
    loss(net, step).backward()
    optimizer.step()


def check_initialised_anew():
    """As after an error that says so: what was bound is not current, and the optimizer binds by itself."""
    net = model()
    before = connect("before", 30)
    _anew("first")
    optimizer = _optimizer(net)
    _step(net, optimizer)
    bound = [optimizer._session]
    _anew("second")
    current = [before.is_current, bound[0].is_current]
    _step(net, optimizer, 1)
    return {"current": current, "bound": optimizer._session is bound[0], "bits": fingerprint(flat(net))}


def check_destroyed():
    net = model()
    optimizer = _optimizer(net)
    _step(net, optimizer)
    optimizer.zero_grad()
    loss(net, 1).backward()
    dist.destroy_process_group()
    error = raised(optimizer.step)
    _begin("third")
    return error


def check_optimizers():
    """With buffers, and in each way to collect: the same model as from every worker's gradient."""
    bits = {}
    for collect in ("symmetric", "root", "sharded"):
        net = model()
        optimizer = _optimizer(net, collect=collect, buffers=net.named_buffers())
        for step in range(4):
            _step(net, optimizer, step)
        bits[collect] = fingerprint(flat(net))
        optimizer.remove_hooks()
    return bits


def _piece(kind, source, to):
    return np.arange((source + 2 * to) % 4, dtype=kind) + np.array(10 * source + to).astype(kind)


def check_pieces_of_any_length_and_kind():
    transport, size = connect("pieces", 30), hvd.size()
    wrong = []
    for kind in KINDS:
        own = [_piece(kind, transport.rank, to) for to in range(size)]
        want = [_piece(kind, source, transport.rank) for source in range(size)]
        out = np.empty(sum(len(piece) for piece in want), kind)
        transport.alltoall(
            np.concatenate(own), [len(p) for p in own], out, [len(p) for p in want], f"pieces {kind.__name__}"
        )
        if not np.array_equal(out, np.concatenate(want)):
            wrong.append(kind.__name__)
    return wrong


def check_messages_of_any_length():
    """Around the length that travels in the preamble; ranks differ, some send nothing."""
    transport, wrong = connect("messages", 30), []
    for length in (0, 1, 511, 512, 513, 5000):
        lengths = [length + 300 * rank if length else 0 for rank in range(hvd.size())]
        sent = [np.full(n, rank + 1, np.uint8) for rank, n in enumerate(lengths)]
        received = transport.exchange_any(sent[transport.rank], "messages", 8000)
        equal = transport.exchange(np.full(length, transport.rank, np.uint8), "equal messages")
        right = all(np.array_equal(a, b) for a, b in zip(received, sent, strict=True))
        if not right or equal.shape != (hvd.size(), length) or (length and equal[:, 0].tolist() != _ranks()):
            wrong.append(length)
    return wrong


def _ranks():
    return list(range(hvd.size()))


def check_allgather():
    """Pieces of unequal length, in one operation and in turns."""
    transport, results = connect("allgather", 30), {}
    pieces = [np.full(1000 * rank + 3, rank, np.float64) for rank in _ranks()]
    tiled = over_torch._TILED
    for name, most in (("tiled", tiled), ("in turns", 0)):
        over_torch._TILED = most
        out = np.empty(sum(map(len, pieces)))
        transport.allgather(pieces[transport.rank], out, f"allgather {name}")
        results[name] = bool(np.array_equal(out, np.concatenate(pieces)))
    over_torch._TILED = tiled
    return results


def check_another_operation():
    """The last rank comes to another operation: all name it, and may go on."""
    transport, odd = connect("other", 30), hvd.rank() == hvd.size() - 1
    nothing, splits = np.empty(0, np.float32), [0] * hvd.size()
    phase = "second part" if odd else "first part"
    error = raised(lambda: transport.alltoall(nothing, splits, nothing, splits, phase))
    after = transport.exchange(np.array([hvd.rank()], np.uint8), "afterwards")
    return {"error": error, "after": after.reshape(-1).tolist()}


def check_another_length():
    """Rank 0 sends more than is expected, for which Gloo would end the others' processes."""
    transport, size = connect("lengths", 30), hvd.size()
    length, expected = (9 if hvd.rank() == 0 else 3), [9 if hvd.rank() == 0 else 3, *[3] * (size - 1)]
    send, out = np.ones(length * size, np.float32), np.empty(sum(expected), np.float32)
    error = raised(lambda: transport.alltoall(send, [length] * size, out, expected, "pieces"))
    again = raised(lambda: transport.exchange(np.zeros(1, np.uint8), "afterwards"))
    _anew("lengths")
    return {"error": error, "again": again}


def check_group_beside_the_default():
    """As with NCCL, whose group moves no CPU tensors: a Gloo group is made. The backend's name is faked."""
    _anew("nccl")
    original, torch_job.cpu_backend = torch_job.cpu_backend, lambda: "nccl"
    try:
        session = bind("sharded", 1000, np.float32, 1, timeout=30)
        again = bind("root", 1000, np.float32, 1, timeout=30, name="again")
        row = np.full((1, 1000), hvd.rank(), np.float32)
        value = float(session.step(row, hb.Mean()).value[-1])
        groups = [each.transport._job.group for each in (session, again)]
    finally:
        torch_job.cpu_backend = original
    return {
        "value": value,
        "beside": all(group is not dist.group.WORLD for group in groups),
        "shared": groups[0] is groups[1],
    }


def check_ddp_is_refused():
    net = model()
    ddp = torch.nn.parallel.DistributedDataParallel(net)
    optimizer = _optimizer(net)
    error = raised(lambda: _step(net, optimizer))
    del ddp
    other = model()
    return {"inside": error, "beside": raised(lambda: _step(other, _optimizer(other)))}


def check_sampler():
    """The rank and the number of ranks are those of torch.distributed."""
    alike = hb.Redundancy(r=hvd.size()).sampler(range(40))
    different = hb.Redundancy(r=1).sampler(range(40))
    return {"alike": list(alike), "different": list(different)}
