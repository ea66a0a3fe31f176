"""Runs the named groups of checks on every rank of a Horovod job, and writes what each found as JSON.

Starting a job takes seconds, so one job runs many checks; the tests then read the results.
"""

import importlib
import json
import os
import pathlib
import sys
import traceback

import horovod.torch as hvd
import torch


def main() -> None:
    torch.set_num_threads(1)
    hvd.init()
    rank, found = hvd.rank(), {}  # a check may shut Horovod down
    for group in sys.argv[1:]:
        checks = importlib.import_module(group)
        for name in [n for n in vars(checks) if n.startswith("check_")]:
            try:
                found[name] = getattr(checks, name)()
            except Exception:  # noqa: BLE001 - a rank must go on, or the others wait for it
                found[name] = {"error": traceback.format_exc()}
    path = pathlib.Path(os.environ["RANK_RESULTS"], f"{rank}.json")
    path.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
