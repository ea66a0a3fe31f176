"""One process that shuts Horovod down and steps once more."""

import horovod.torch as hvd
import torch

import horovod_byz as hb

hvd.init()
layer = torch.nn.Linear(2, 1)
optimizer = hb.DistributedOptimizer(torch.optim.SGD(layer.parameters(), lr=0.1))


def step():
    optimizer.zero_grad()
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()


step()
hvd.shutdown()
try:
    step()
except hb.collect.TransportError as error:
    print(type(error).__name__, error)
hvd.init()
optimizer.rebind()
step()
print("went on")
