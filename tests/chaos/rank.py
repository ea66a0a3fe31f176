"""A rank of a chaos scenario: trains, and writes what came of it as a line of JSON for each scenario.

The lines go to RANK_RESULTS/RANK.jsonl at once: the launcher may end this process at any moment.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import pathlib
import socket
import sys
import time
from typing import Any

import horovod.torch as hvd
import torch

import horovod_byz as hb
from chaos.scenarios import AT, BY_NAME, CHECKED_EVERY, COLLECTS, RULES, STEPS, Scenario
from horovod_byz.collect import departure
from horovod_byz.faults.faults import VARIABLE

FOLDER = pathlib.Path(os.environ["RANK_RESULTS"])
LIMIT = 150.0  # seconds for a scenario; then the rank ends with its stacks
PATIENCE = 90.0  # seconds that ranks wait for each other between two scenarios

# Under MPI the ranks that raised wait so long for a stopped one before they end without it.
departure.EXIT_SECONDS = 2.0


def model() -> torch.nn.Module:
    """About 50,000 parameters: several tiles for each of six ranks to aggregate."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.Tanh(), torch.nn.Linear(512, 32))


def batch(scenario: Scenario, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's batch; replicas of a redundancy group have the same."""
    redundancy = getattr(RULES[scenario.rule], "redundancy", None)
    which = hvd.rank() if redundancy is None else 100 + redundancy.group_of(hvd.rank(), hvd.size())
    generator = torch.Generator().manual_seed(1000 * step + which)
    x = torch.randn(16, 64, generator=generator)
    return x, (x.sum(dim=1) > 0).long()


def optimizer_of(scenario: Scenario, net: torch.nn.Module) -> Any:
    stops = scenario.expects_state == "stop"
    optimizer = hb.DistributedOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9),
        net.named_parameters(),
        rule=RULES[scenario.rule],
        collect=COLLECTS[scenario.collect],
        timeout=scenario.timeout,
        check_state_every=CHECKED_EVERY,
        on_state_mismatch="stop" if stops else "repair",
        ledger=FOLDER / scenario.folder,
    )
    if VARIABLE in os.environ:  # then they are injected without a change to the script
        return optimizer
    return scenario.faults.around(optimizer)


def train(scenario: Scenario, optimizer: Any, net: torch.nn.Module) -> None:
    odd = hvd.rank() == 2
    for step in range(STEPS):
        if scenario.script == "vanishes" and odd and step == AT:
            os._exit(0)
        optimizer.zero_grad()
        x, y = batch(scenario, step)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        if scenario.script == "skips" and odd and step == AT:
            continue
        if scenario.script == "stops" and odd and step >= AT:
            time.sleep(600 if step == STEPS - 1 else 0.1)
            continue
        optimizer.step()
        if scenario.script == "repeats" and odd and step == AT:
            optimizer.step()


def outcome(scenario: Scenario) -> Exception | None:
    """Trains, and writes what came of it: its end, who is named, and the model. Returns the run's error."""
    net = model()
    optimizer = optimizer_of(scenario, net)
    begun, error = time.monotonic(), None
    try:
        train(scenario, optimizer, net)
    except Exception as caught:  # noqa: BLE001 - whatever it is, the judge looks at it
        error = caught
    flat = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    written = {
        "ends": "survives" if error is None else type(error).__name__,
        "text": "" if error is None else str(error),
        "ranks": list(getattr(error, "ranks", ())),
        "seconds": round(time.monotonic() - begun, 2),
        "steps": optimizer.ledger.steps,
        "evidence": [vars(evidence) for evidence in optimizer.ledger.evidence],
        "places": {place.rank: place.host for place in optimizer.ledger.places},
        "digest": hashlib.sha256(flat.numpy().tobytes()).hexdigest()[:16],
        "finite": bool(flat.isfinite().all()),
    }
    write(scenario, written)
    optimizer.remove_hooks()
    return error


def write(scenario: Scenario, written: dict[str, Any]) -> None:
    line = {"scenario": scenario.name, "rank": hvd_rank, "host": socket.gethostname(), **written}
    with (FOLDER / f"{hvd_rank}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()


def meet(place: str) -> None:
    """Waits until all ranks are here, without Horovod; not for ever."""
    (FOLDER / f"{place}.{hvd_rank}").touch()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and len(list(FOLDER.glob(f"{place}.*"))) < hvd_size:
        time.sleep(0.02)


def main(names: list[str]) -> None:
    for number, name in enumerate(names):
        scenario = BY_NAME[name]
        meet(f"scenario{number}")
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        error = outcome(scenario)
        faulthandler.cancel_dump_traceback_later()
        if error is not None and scenario.fatal:
            raise error  # ends this process, as it ends a script
        if error is not None:
            print(f"rank {hvd_rank}: {name}: {error}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    hvd.init()
    hvd_rank, hvd_size = hvd.rank(), hvd.size()
    main(json.loads(sys.argv[1]))
