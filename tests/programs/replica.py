"""Replicas of a training run, one after another; each computes its gradients and writes them to a file.

Run as `replica.py WORKER THREADS LOADERS RESUME OUT ...`, five arguments for each. Parameters move by the
same amounts on all replicas, as they do where the aggregate is applied, so that what differs is each step's
gradient alone.
"""

from __future__ import annotations

import random
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import horovod_byz as hb
from horovod_byz.redundancy.replicas import fingerprint

WORKERS, BATCH, STEPS = 6, 24, 9  # two epochs of 3 batches of 24 and one of 18, and a bit


class Images(Dataset):
    """Random images, augmented by all three global generators."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(180, 3, 16, 16, generator=generator)
        self.y = torch.randint(10, (180,), generator=generator)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        x = self.x[index]
        if random.random() < 0.5:
            x = x.flip(2)
        at = int(np.random.randint(9))  # noqa: NPY002 - transforms use it
        x = nn.functional.pad(x, (4, 4, 4, 4))[:, at : at + 16, at : at + 16]
        return x + 0.1 * torch.randn_like(x), self.y[index]


def network():
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(64, 10),
    )


def gradients(worker, loaders, resume):
    net, redundancy, images = network(), hb.Redundancy(3, seed=1), Images()
    sampler = redundancy.sampler(images, seed=3, worker=worker, workers=WORKERS)
    sampler.load_state_dict(sampler.position(resume, BATCH))
    loader = DataLoader(redundancy.seeded(images), batch_size=BATCH, sampler=sampler, num_workers=loaders)
    for step in range(resume):
        move(net, step)
    rows, step = [], resume
    while step < STEPS:
        for x, y in loader:
            redundancy.seed_step(worker, WORKERS, step)
            net.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            rows.append(torch.cat([p.grad.reshape(-1) for p in net.parameters()]).numpy())
            move(net, step)
            step += 1
            if step == STEPS:
                break
    return np.stack(rows)


@torch.no_grad()
def move(net, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in net.parameters():
        parameter += 0.01 * torch.randn(parameter.shape, generator=generator)


if __name__ == "__main__":
    for at in range(1, len(sys.argv), 5):
        worker, threads, loaders, resume = map(int, sys.argv[at : at + 4])
        torch.set_num_threads(threads)
        computed = gradients(worker, loaders, resume)
        np.savez(sys.argv[at + 4], gradients=computed, fingerprint=fingerprint())
