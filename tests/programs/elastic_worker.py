"""A worker of an elastic job, as Horovod's examples write it: nothing in it knows that ranks come and go.

    elastic_worker.py CHECKPOINT STOP

Rank 0 of the first start resumes from CHECKPOINT. All train until the file STOP is there; then each prints
a digest of its model and of the optimizer's state. An argument `horovod` runs Horovod's own optimizer.
"""

import hashlib
import os
import pathlib
import sys
import time

import horovod.torch as hvd
import torch

import horovod_byz as hb


def make():
    torch.manual_seed(os.getpid())  # each worker starts elsewhere, and gets the others' state
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    return net, torch.optim.Adam(net.parameters(), lr=1e-3)


def say(text):
    sys.stdout.write(f"{text}\n")  # in one piece, as ranks share the output
    sys.stdout.flush()


@hvd.elastic.run
def train(state, stop):
    say(f"rank {hvd.rank()} of {hvd.size()} in process {os.getpid()} from step {state.step}")
    net, optimizer = state.model, state.optimizer
    while not hvd.broadcast(torch.tensor(float(stop.exists())), 0, "stop"):
        x = torch.randn(16, 4)

        def closure(x=x):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        state.step += 1
        time.sleep(0.05)
        state.commit()
    bits = hashlib.sha256()
    for tensor in [*net.state_dict().values(), *(v for s in optimizer.state.values() for v in s.values())]:
        bits.update(tensor.detach().numpy().tobytes())
    steps = {int(s["step"]) for s in optimizer.state.values()}
    say(f"done: rank {hvd.rank()} of {hvd.size()}, {state.step} steps, Adam at {steps}, {bits.hexdigest()}")


def main():
    hvd.init()
    torch.set_num_threads(1)
    checkpoint, stop = map(pathlib.Path, sys.argv[1:3])
    net, optimizer = make()
    if sys.argv[3:] == ["horovod"]:
        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=net.named_parameters())
    else:
        optimizer = hb.DistributedOptimizer(
            optimizer, net.named_parameters(), rule=hb.Median(), buffers=net.named_buffers(), timeout=20
        )
    if hvd.rank() == 0:
        saved = torch.load(checkpoint)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    train(hvd.elastic.TorchState(net, optimizer, step=0), stop)


if __name__ == "__main__":
    main()
