"""What the ledger promises an operator, from the fault to the first line of `horovod-byz report`."""

import contextlib
import io
import os
import pathlib
import runpy
import sys
from unittest import mock

import horovod.torch as hvd
import torch

import horovod_byz as hb
from horovod_byz.cli.report_command import report
from horovod_byz.faults.faults import VARIABLE

EXAMPLE = pathlib.Path(__file__).parents[3] / "launch" / "examples" / "mnist.py"
STEPS, AT = 250, 117  # more steps say the same: test_conclusion has a thousand, without ranks
REPAIRED, EVERY = 30, 10  # steps of the run whose parameter is flipped, and between comparisons of the state


def _reported(folder):
    """The first line of the report, and its exit code; on rank 0, whose file it is."""
    if hvd.rank() > 0:
        return None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = report(folder, as_json=False, page=None, live=False)
    return [printed.getvalue().partition("\n")[0], code]


def _train(net, optimizer, steps):
    """All ranks, a group of three replicas, have one batch."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 3, generator=generator)).square().mean().backward()
        optimizer.step()
    return [p.detach().view(torch.int32).tolist() for p in net.parameters()]


def _made():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    return net, torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)


def _run(faults, steps):
    """What the report says of a run, whether its model is a clean run's bit for bit, and its steps."""
    net, inner = _made()
    rule = hb.Detox(hb.Redundancy(r=3), inner=hb.Mean(), outer=hb.Mean())
    folder = pathlib.Path(os.environ["RANK_RESULTS"], f"bits{steps}")
    optimizer = hb.DistributedOptimizer(
        inner, net.named_parameters(), rule=rule, ledger=folder, check_state_every=EVERY
    )
    optimizer = faults.around(optimizer)
    model = _train(net, optimizer, steps)
    optimizer.remove_hooks()
    # Three equal gradients elect the gradient that a process alone computes.
    return {"report": _reported(folder), "same": model == _train(*_made(), steps), "steps": steps, "at": AT}


def check_a_bit_of_a_gradient():
    return _run(hb.Faults().bitflip(worker=1, bit=9, coordinate=0, at=AT), STEPS)


def check_a_bit_of_a_parameter():
    return _run(hb.Faults().flip_parameter(rank=1, bit=9, tensor=0, at=5), REPAIRED)


def check_example():
    """launch/examples/mnist.py as it stands, on the digits, with a faulty rank every third step."""
    folder = pathlib.Path(os.environ["RANK_RESULTS"], "mnist")
    words = ["--dataset", "digits", "--epochs", "2", "--log-interval", "1", "--ledger", str(folder)]
    screen = io.StringIO()
    with (
        mock.patch.dict(os.environ, {VARIABLE: "nan(worker=1, every=3)"}),
        mock.patch.object(sys, "argv", [str(EXAMPLE), *words]),
        contextlib.redirect_stdout(screen),
        contextlib.redirect_stderr(screen),
    ):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return {"screen": screen.getvalue(), "report": _reported(folder)}
