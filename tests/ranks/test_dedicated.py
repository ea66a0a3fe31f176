"""1 + 3 machines: a dedicated parameter server gives bitwise the model of one process."""

import importlib.util
import pathlib

import pytest

pytestmark = [pytest.mark.horovod, pytest.mark.slow]


def checks():
    path = pathlib.Path(__file__).parent / "checks" / "dedicated.py"
    spec = importlib.util.spec_from_file_location("dedicated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("backend", ["gloo", "mpi"])
def test_one_root_and_three_ranks_with_three_workers_each(results, backend):
    found = results("check_dedicated", 4, backend, "dedicated")
    here = checks()  # this process is a job of one rank
    for name in here.EXPERIMENTS:
        want = here.model(name, "root")
        for rank in found:
            assert rank["models"][name] == dict.fromkeys(here.COLLECTORS, want), (name, rank["rank"])
