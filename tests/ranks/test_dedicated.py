"""1 + 3 machines: a dedicated parameter server gives bitwise the model of one process."""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("dedicated")]

job = jobs((4, "gloo"), (4, "mpi"))


@pytest.fixture(scope="module")
def wanted_models(alone):
    """This process is a job of one rank: what it trains, and over which ways to collect the ranks do."""
    here = alone("dedicated")
    return {name: dict.fromkeys(here.COLLECTORS, here.model(name, "root")) for name in here.EXPERIMENTS}


def test_one_root_and_three_ranks_with_three_workers_each(checked, wanted_models):
    for rank in checked("check_dedicated"):
        assert rank["models"] == wanted_models, rank["rank"]
