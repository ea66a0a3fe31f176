"""Time of a step over torch.distributed: sharded Median against DDP on the same model, interleaved.

    torchrun --nproc-per-node 4 tools/step_against_ddp.py

Prints the median over rounds of the ratio, with the quartiles, and the load of the machine. Only rounds that
ran beside each other are compared, since the load changes.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

import horovod_byz as hb


def model(width: int, depth: int) -> torch.nn.Module:
    """Linear layers: depth times width^2 parameters, in 2 depth tensors."""
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (torch.nn.Linear(width, width), torch.nn.Tanh())]
    return torch.nn.Sequential(*layers)


def stepper(net: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> Callable[[], None]:
    """A training step."""

    def step() -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None]) -> float:
    """Seconds of a step, of the slowest rank."""
    dist.barrier()
    start = time.perf_counter()
    step()
    seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64, device="cpu")
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)


def main() -> None:
    """Runs the rounds and prints the ratios on rank 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=966, help="width of a layer (d = 1.12e7 for 12)")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    first = model(options.width, options.depth)
    x = torch.randn(options.batch, options.width, device="cpu")

    ddp = torch.nn.parallel.DistributedDataParallel(copy.deepcopy(first))
    steps = {"DDP": stepper(ddp, torch.optim.SGD(ddp.parameters(), lr=0.01), x)}
    for name, rule, collect in (
        ("sharded Median", hb.Median(), "sharded"),
        ("sharded Mean", hb.Mean(), "sharded"),
        ("symmetric Median", hb.Median(), "symmetric"),
    ):
        net = copy.deepcopy(first)
        wrapped = hb.DistributedOptimizer(
            torch.optim.SGD(net.parameters(), lr=0.01), net.named_parameters(), rule=rule, collect=collect
        )
        steps[name] = stepper(net, wrapped, x)
    for step in steps.values():
        step()
        step()
    seconds = [{name: timed(step) for name, step in steps.items()} for _ in range(options.rounds)]
    if dist.get_rank() == 0:
        d = sum(parameter.numel() for parameter in first.parameters())
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"d = {d}, {dist.get_world_size()} ranks, {os.cpu_count()} cores, load {load}")
        for name in steps:
            ratios = [each[name] / each["DDP"] for each in seconds]
            low, middle, high = statistics.quantiles(ratios, n=4)
            own = statistics.median(each[name] for each in seconds)
            print(f"{name:17} {1e3 * own:7.0f} ms  ratio {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
