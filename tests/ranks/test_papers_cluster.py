"""The papers' 1 + 45 machines, as 46 ranks on this one: DETOX gives the numbers of one process."""

from __future__ import annotations

import sys

import pytest

from rank_jobs import finish

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.many, pytest.mark.timeout(2400)]

DETOX = """\
seed = 0
steps = 6
workers = 45
byzantine = 5
schedule = "fixed"
evaluate_every = 3
model = "mlp"
redundancy = 3

[attack]
name = "a-little-is-enough"
z = 1.0

[rule]
name = "detox-multi-krum"

[data]
name = "digits"
batch = 24
"""


@pytest.mark.parametrize("collect", ["root:dedicated=true", "sharded"])
def test_46_ranks_give_the_numbers_of_one_process(ranks, collect, tmp_path):
    config = tmp_path / "detox.toml"
    config.write_text(DETOX)
    train = [sys.executable, "-m", "horovod_byz.cli", "train", str(config)]
    dedicated = collect != "sharded"
    job = ["--ranks", "46" if dedicated else "45", "--collect", collect, "--out", str(tmp_path / "many")]
    done = finish([*train, *job], ranks, limit=900)
    assert done.returncode == 0, done.stdout[-4000:]
    here = ["--collect", "root" if dedicated else collect, "--out", str(tmp_path / "one")]
    alone = finish([*train, *here], ranks, limit=900)
    assert alone.returncode == 0, alone.stdout
    many, single = (tmp_path / folder / "metrics.jsonl" for folder in ("many", "one"))
    assert many.read_bytes() == single.read_bytes()
