"""Training whose model lives on a GPU: rules, the optimizer in one process, and simulated runs.

Skipped where torch finds no GPU. HOROVOD_BYZ_TEST_DEVICE=cpu runs the same checks on the CPU.
"""

from __future__ import annotations

import copy
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from cases import every_rule
from horovod_byz.optimizer.leaves import leaves_of
from horovod_byz.optimizer.repair import StateCheck
from horovod_byz.optimizer.state import digest
from horovod_byz.training import config as configs
from horovod_byz.training.data import Dataset
from horovod_byz.training.gradients import Gradients
from horovod_byz.training.progress import Silent
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import RunFolder
from horovod_byz.training.train import Launch, Stopped, train
from horovod_byz.training.trainer import Trainer
from thread_ranks import on_ranks
from training import contents

DEVICE = os.environ.get("HOROVOD_BYZ_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch finds no GPU here"
)
RULES = [
    *every_rule(f=3),
    hb.Detox(hb.Redundancy(r=3), inner=hb.Mean(), outer=hb.Median(), groups=5),
]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    return nn.Sequential(*layers).to(DEVICE)


def batch(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(6, 3, 8, 8, generator=generator, device="cpu").to(DEVICE)


def parameters(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_rule_gives_a_tensor_on_the_gpu_the_bits_that_it_gives_on_the_cpu(rule, dtype):
    rows = torch.randn(15, 1003, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows[3] *= 100
    rows[4, 5] = torch.nan
    there = rows.to(DEVICE)
    result, want = hb.aggregate(there, rule), hb.aggregate(rows, rule)
    assert result.value.device == there.device
    assert result.value.dtype == dtype
    assert torch.equal(result.value.cpu(), want.value)
    assert repr(result.verdicts) == repr(want.verdicts)  # the text, since NaN differs from itself
    assert torch.equal(rule(there).cpu(), want.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.01, capturable=DEVICE != "cpu"),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
    ],
    ids=["sgd", "adam-fused", "adamw-foreach", "adam-capturable", "adagrad", "rmsprop"],
)
@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded"])
def test_alone_the_wrapper_is_as_good_as_absent(make, collect):
    plain, wrapped = network(), network()
    inner, optimizer = (
        make(plain.parameters()),
        hb.DistributedOptimizer(
            make(wrapped.parameters()), named_parameters=wrapped.named_parameters(), collect=collect
        ),
    )
    for step in range(4):
        for net, stepping in ((plain, inner), (wrapped, optimizer)):
            stepping.zero_grad()
            net(batch(step)).square().mean().backward()
            stepping.step()
    assert torch.equal(parameters(plain), parameters(wrapped))
    assert all(p.device == batch(0).device for p in wrapped.parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_mixed_precision_with_a_grad_scaler_steps_as_without_the_wrapper(fused):
    """Autocast, loss scaling, and an overflow on the way: that step is left out and the scale halved."""
    nets = network(), network()
    make = lambda net: torch.optim.Adam(net.parameters(), lr=0.01, fused=fused)  # noqa: E731
    optimizers = make(nets[0]), hb.DistributedOptimizer(make(nets[1]), rule=hb.Median())
    scalers = [torch.amp.GradScaler(DEVICE, init_scale=2.0**10) for _ in nets]
    for step in range(6):
        for net, optimizer, scaler in zip(nets, optimizers, scalers, strict=True):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, torch.float16 if DEVICE == "cuda" else torch.bfloat16):
                loss = net(batch(step)).float().square().mean()
            if step == 3:
                loss = loss * torch.inf
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale() == 2.0**9
    torch.testing.assert_close(parameters(nets[1]), parameters(nets[0]), rtol=1e-6, atol=1e-7)
    assert parameters(nets[1]).isfinite().all()


def test_clipping_accumulation_and_buffers():
    plain, wrapped = network(), network()
    inner = torch.optim.SGD(plain.parameters(), lr=0.1)
    optimizer = hb.DistributedOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=0.1),
        backward_passes_per_step=2,
        buffers=wrapped.named_buffers(),
    )
    for step in range(3):
        inner.zero_grad(), optimizer.zero_grad()
        for part in range(2):
            plain(batch(2 * step + part)).square().mean().backward()
            wrapped(batch(2 * step + part)).square().mean().backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        inner.step()
        optimizer.synchronize()
        nn.utils.clip_grad_norm_(wrapped.parameters(), 0.1)
        with optimizer.skip_synchronize():
            optimizer.step()
    assert torch.equal(parameters(plain), parameters(wrapped))
    for ours, theirs in zip(wrapped.buffers(), plain.buffers(), strict=True):
        assert ours.device == theirs.device
        assert torch.equal(ours, theirs)


def test_half_and_double_parameters_and_one_gradient_missing():
    net = nn.ModuleList([nn.Linear(4, 3).half(), nn.Linear(4, 3).double(), nn.Linear(4, 3)]).to(DEVICE)
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.5))
    before = copy.deepcopy(net)
    (net[0](torch.ones(2, 4, device=DEVICE).half()).float().sum()
     + net[1](torch.ones(2, 4, device=DEVICE).double()).sum()).backward()  # fmt: skip
    optimizer.step()
    for layer, was in zip(net[:2], before[:2], strict=True):
        torch.testing.assert_close(layer.weight, was.weight - 1.0, rtol=1e-3, atol=1e-3)
    assert torch.equal(net[2].weight, before[2].weight)


def test_lbfgs_and_sparse_adam():
    torch.manual_seed(1)
    x, y = torch.randn(16, 3, device=DEVICE), torch.randn(16, 1, device=DEVICE)
    nets = [nn.Linear(3, 1, device=DEVICE) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    make = lambda net: torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")  # noqa: E731
    for net, optimizer in zip(nets, (make(nets[0]), hb.DistributedOptimizer(make(nets[1]))), strict=True):

        def closure(net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (net(x) - y).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    torch.testing.assert_close(parameters(nets[1]), parameters(nets[0]), rtol=1e-4, atol=1e-5)
    tables = [nn.Embedding(10, 3, sparse=True, device=DEVICE) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    sparse = lambda table: torch.optim.SparseAdam(table.parameters(), lr=0.1)  # noqa: E731
    for table, optimizer in zip(
        tables, (sparse(tables[0]), hb.DistributedOptimizer(sparse(tables[1]))), strict=True
    ):
        table(torch.tensor([1, 3, 3], device=DEVICE)).sum().backward()
        optimizer.step()
    assert torch.equal(tables[0].weight, tables[1].weight)


def test_a_default_device_on_the_gpu_changes_nothing():
    torch.set_default_device(DEVICE)
    try:
        net = network()
        optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), rule=hb.Median())
        net(batch(0)).sum().backward()
        optimizer.step()
        assert hb.Median()(np.eye(5)).tolist() == [0.0] * 5
    finally:
        torch.set_default_device(None)


def dataset() -> Dataset:
    """Twelve dozen noisy images of three kinds, learnable in a few steps."""
    make = np.random.default_rng(0)
    labels = make.integers(0, 3, 288)
    images = (make.standard_normal((288, 3, 16, 16)) * 0.3 + labels[:, None, None, None]).astype(np.float32)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    return Dataset(x[:192], y[:192], x[192:], y[192:], 3, (3, 16, 16), "cifar-10", "made here").to(DEVICE)


SETTINGS = {
    "steps": 8, "workers": 9, "byzantine": 2, "attack": "alie", "rule": "median", "schedule": "fixed",
    "data": {"name": "cifar-10", "batch": 8, "augment": True}, "optimizer": {"lr": 0.05, "momentum": 0.9},
    "evaluate_every": 3,
}  # fmt: skip
RUNS = {
    "mlp": {"model": "mlp:width=8", "data": {"name": "cifar-10", "batch": 8}},
    "dropout": {"model": "cnn-empires:width=4,hidden=8"},
    "batch-norm": {"model": "resnet18:width=4", "rule": "multi-krum"},
    "detox": {
        "model": "resnet18:width=4",
        "rule": "detox-median",
        "redundancy": {"r": 3, "compute": "every"},
        "byzantine": 1,
        "attack": "reversed-gradient:c=100.0",
    },
    "signs": {"model": "cnn-empires:width=4,hidden=8", "rule": "sign-majority", "compression": "sign"},
}


class InterruptAt(Silent):
    """Interrupts the run when a step is reached."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, step, values):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_the_gpu_repeats_and_resumes_bit_for_bit(tmp_path, name):
    config, data = configs.make(SETTINGS | RUNS[name]), dataset()
    for folder in ("first", "second"):
        train(config, Launch(tmp_path / folder, device=DEVICE), dataset=data)
    with pytest.raises(Stopped):
        train(config, Launch(tmp_path / "resumed", device=DEVICE), dataset=data, reporter=InterruptAt(5))
    train(config, Launch(tmp_path / "resumed", device=DEVICE, resume=True), dataset=data)
    want = contents(tmp_path / "first")
    assert contents(tmp_path / "second") == want
    assert contents(tmp_path / "resumed") == want
    losses = [record["loss"] for record in RunFolder(tmp_path / "first").metrics]
    assert len(set(losses)) == len(losses) == 4


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("name", ["dropout", "batch-norm"])
def test_replayed_passes_give_the_gradients_of_plain_ones(name, monkeypatch):
    """To rounding: cuDNN may choose another algorithm in a capture. Dropout draws the same masks."""
    rows = []
    for way in ("_plain", "_replayed"):
        monkeypatch.setattr(Gradients, "_replayed", getattr(Gradients, way))
        trainer = Trainer(configs.make(SETTINGS | RUNS[name]), dataset(), Ranks(), "cuda:0")
        trainer.compute()
        rows.append((trainer.gradients.rows.cpu(), trainer.gradients.losses.cpu()))
        monkeypatch.undo()
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-3, atol=1e-4)


def test_replicas_on_the_gpu_agree_bit_for_bit(tmp_path):
    """Every worker of a redundancy group computes its gradient anew: no honest one is outvoted."""
    honest = SETTINGS | RUNS["detox"] | {"byzantine": 0}
    del honest["attack"]
    config = configs.make(honest)
    train(config, Launch(tmp_path / "run", device=DEVICE), dataset=dataset())
    workers = RunFolder(tmp_path / "run").verdicts["workers"]
    assert [worker["outvoted_steps"] for worker in workers] == [0] * 9


def test_a_run_on_the_gpu_is_close_to_the_same_on_the_cpu(tmp_path):
    config = configs.make(SETTINGS | RUNS["dropout"] | {"model": "lenet", "steps": 3, "evaluate_every": 1})
    losses = []
    for device in ("cpu", DEVICE):
        folder = tmp_path / f"{len(losses)}"
        train(config, Launch(folder, device=device), dataset=dataset().to(device))
        losses.append([record["loss"] for record in RunFolder(folder).metrics])
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


@pytest.mark.parametrize("kind", ["parameter", "moment"])
def test_a_damaged_tensor_on_the_gpu_is_repaired_in_place(kind):
    """It keeps its memory, which a captured graph and the optimizer refer to."""

    def adam(rank):
        weight = nn.Parameter(torch.linspace(0, 1, 5000, device=DEVICE))
        optimizer = torch.optim.Adam([weight], lr=0.1)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        if rank == 1:
            struck = weight if kind == "parameter" else optimizer.state[weight]["exp_avg_sq"]
            struck.detach().view(torch.int32)[4321] ^= 1 << 12
        return weight, optimizer

    def work(transport):
        weight, optimizer = adam(transport.rank)
        before = weight.data_ptr()
        repaired = StateCheck(lambda: leaves_of(optimizer)).agree(transport, 0)
        return repaired, weight.data_ptr() == before, digest(optimizer)

    results = on_ranks(3, work)
    assert [result[:2] for result in results] == [((1,), True)] * 3
    assert {result[2] for result in results} == {digest(adam(0)[1])}
