"""Trains once for each way to collect, as `horovod-byz train` does: train_each.py OUT WAY... -- OPTIONS."""

import sys

from horovod_byz.cli.main import app

options = sys.argv.index("--")
folder, *ways = sys.argv[1:options]
for number, collect in enumerate(ways):
    place = ["--collect", collect, "--out", f"{folder}/{number}"]
    app(["train", *sys.argv[options + 1 :], *place], standalone_mode=False)
