"""Steps with a ledger until one rank fails in its script, or is killed; the launcher then ends the others.

ends_early.py FOLDER RANK raise|kill
"""

import os
import signal
import sys
import time

import horovod.torch as hvd
import torch

import horovod_byz as hb

folder, rank, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
hvd.init()
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
optimizer = hb.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), 0.1), model.named_parameters(), rule=hb.Median(), ledger=folder
)
for step in range(50):
    if step == 5 and hvd.rank() == rank:
        if how == "raise":
            raise ValueError("the data is gone")
        os.kill(os.getpid(), signal.SIGKILL)
    if step == 5 and hvd.rank() == 2:
        time.sleep(30)  # computes while the others wait
    optimizer.zero_grad()
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
