"""Jobs of ranks end with all that they started, and one test at a time starts them."""

from __future__ import annotations

import os
import signal
import sys
import textwrap

import pytest

import leftovers
import rank_jobs
from rank_jobs import Job, finish, one_at_a_time

ENVIRONMENT = {**os.environ, "PYTHONFAULTHANDLER": "1"}
LEAVES_A_RANK = "setsid sleep 881 & echo printed; exit 3"
STUCK = """
    import subprocess, threading
    subprocess.Popen(["sleep", "882"], start_new_session=True)
    def waits_for_ever():
        print("begun", flush=True)
        threading.Event().wait()
    waits_for_ever()
"""


def running(words):
    return [pid for pid in leftovers.started() if words in leftovers.command(pid)]


def test_a_launcher_that_leaves_a_rank_behind_is_not_waited_for():
    """0.1.0: communicate() read on until the last process of the job had closed the pipe."""
    done = finish(["bash", "-c", LEAVES_A_RANK], ENVIRONMENT, limit=100)
    assert (done.returncode, done.stdout) == (3, "printed\n")
    assert not running("sleep 881")


@pytest.mark.parametrize("how", ["wait", "lines"])
def test_at_its_limit_a_job_ends_with_its_stacks(how):
    with Job([sys.executable, "-c", textwrap.dedent(STUCK)], ENVIRONMENT, limit=2) as job:
        lines = list(job.lines()) if how == "lines" else job.wait()
        assert lines in (None, ["begun\n"])
        assert "in waits_for_ever" in job.printed
    assert job.process.returncode == -signal.SIGABRT
    assert not running("sleep 882")


def test_an_error_in_the_test_ends_its_job():
    with pytest.raises(ZeroDivisionError), Job(["sleep", "883"], ENVIRONMENT):
        raise ZeroDivisionError
    assert not running("sleep 883")


def test_lines_are_handed_out_whole_while_the_job_runs(tmp_path):
    script = f"printf 'a\\nb'; until [ -e {tmp_path}/go ]; do sleep 0.01; done; printf 'c\\nd'"
    seen = []
    with Job(["bash", "-c", script], ENVIRONMENT, limit=30) as job:
        for line in job.lines():
            seen.append(line)
            (tmp_path / "go").touch()
    assert seen == ["a\n", "bc\n", "d"]
    assert job.process.returncode == 0


def test_who_waits_too_long_for_the_ranks_of_another_test_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr(rank_jobs.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(rank_jobs, "PATIENCE", 0.1)
    with (
        one_at_a_time(),
        pytest.raises(pytest.fail.Exception, match=f"process {os.getpid()}, tests/test_rank_jobs"),
        one_at_a_time(),
    ):
        pass


def test_a_forked_process_does_not_keep_the_lock(monkeypatch, tmp_path):
    monkeypatch.setattr(rank_jobs.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(rank_jobs, "PATIENCE", 0.1)
    with one_at_a_time():
        child = os.fork()
        if child == 0:
            signal.pause()
    with one_at_a_time():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_tests_that_start_ranks_share_a_process(request):
    """pytest 9.2.0 with xdist 3.8.0: groups had no effect, and a worker waited while the other's job ran."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run by pytest -n 2 --dist loadgroup")
    starting = [item for item in request.session.items if item.get_closest_marker("horovod")]
    assert all(item.nodeid.endswith("@ranks") for item in starting)
