"""The long form of the step benchmark: `horovod-byz bench step --full`, and then hosts with slow links.

    python tools/bench_step.py --folder results/bench/step

The hosts are network namespaces (root), one rank on each; `tc` limits each link both ways. Other options are
those of `horovod-byz bench step`. Where a machine has no `tc` or lets nobody make namespaces, it says so.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
from emulated_hosts import Cluster
from horovod_byz.bench import step, step_jobs
from horovod_byz.bench.step_jobs import Job
from horovod_byz.common.errors import ExplainedError

RATES = ("1gbit", "10gbit")
HOSTS = 4
MODELS = ("small", "large", "transformer")


def limit(cluster, rate):
    """Limits each host's link, both ways."""
    ends = [(namespace, "eth0") for namespace in cluster.namespaces[1:]]
    ends += [(cluster.switch, f"port{i}") for i in range(len(cluster.addresses))]
    for namespace, device in ends:
        shape = ["tbf", "rate", rate, "burst", "512kb", "latency", "20ms"]
        command = ["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *shape]
        subprocess.run(command, check=True, capture_output=True, text=True)


def emulated(given):
    """Measures on emulated hosts at each rate."""
    if shutil.which("tc") is None:
        print("not measured on emulated hosts: tc is not installed (apt install iproute2)")
        return
    with Cluster(HOSTS) as cluster, tempfile.TemporaryDirectory() as folder:
        env = cluster.prepare(pathlib.Path(folder), os.environ)
        prefix = [str(pathlib.Path(folder, "on")), "1"]
        for rate in RATES:
            limit(cluster, rate)
            jobs = [Job(ranks=HOSTS, model=model, network=rate, rounds=given.rounds) for model in MODELS]
            step.measure(
                jobs,
                given.folder,
                anyway=given.anyway,
                start=lambda job: step_jobs.start(job, prefix=prefix, hosts=cluster.addresses, env=env),
            )


def main():
    options = step.parser()
    options.add_argument("--hosts-only", action="store_true", help="only the emulated hosts")
    given = options.parse_args()
    try:
        if not given.hosts_only:
            step.measure(step.full(given.rounds), given.folder, anyway=given.anyway)
        emulated(given)
    except ExplainedError as error:
        return f"bench_step: {error}"
    except pytest.skip.Exception as reason:
        print(f"not measured on emulated hosts: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
