"""Runs the named groups of checks on every rank of a Horovod job, and writes what each saw as JSON.

Starting a job takes seconds, so one job runs many checks; the tests then read the results. They are written
after each check, so that the tests can name the one in which a job ended.
"""

import faulthandler
import importlib
import sys
import traceback

import outcomes
import torch
from backend import hvd

LIMIT = 240.0  # seconds for a check; then the rank ends with its stacks, and the launcher ends the others


def main() -> None:
    torch.set_num_threads(1)
    hvd.init()
    outcomes.begin(hvd.rank())  # a check may shut Horovod down
    for group in sys.argv[1:]:
        checks = importlib.import_module(group)
        for name in [n for n in vars(checks) if n.startswith("check_")]:
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            try:
                outcomes.record(name, getattr(checks, name)())
            except Exception:  # noqa: BLE001 - a rank must go on, or the others wait for it
                outcomes.record(name, {"error": traceback.format_exc()})
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
