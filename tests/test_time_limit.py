"""No test takes longer than its limit: it fails with all stacks, what it started ends, and the others go on.

0.1.0: a full run stood still at 99 % until it was killed, and no test was named. Causes: waits without a
bound; and a worker of xdist that ended in a test, after which xdist 3.8.0 waits for ever with loadgroup.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import leftovers

CONFTEST = """
import time_limit
time_limit.AGAIN, time_limit.GRACE, time_limit.EXIT = 2.0, 6.0, 1.5
def pytest_configure(config):
    config.pluginmanager.register(time_limit)
"""
TESTS = """
import signal, subprocess, threading, time
from concurrent.futures import ThreadPoolExecutor
import pytest

def test_before():
    pass

def test_waits_for_a_program():
    subprocess.run(["sleep", "991"])

def test_reads_what_a_program_in_another_session_keeps_open():
    job = subprocess.Popen(["bash", "-c", "setsid sleep 992 & exit"], stdout=subprocess.PIPE)
    job.communicate()

def waits_in_a_thread():
    threading.Event().wait(9)

def test_joins_threads():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(waits_in_a_thread).result()

@pytest.fixture
def slow():
    yield
    subprocess.run(["sleep", "993"])

def test_fails_before_a_slow_tear_down(slow):
    assert 0, "the failure itself"

def test_cannot_be_interrupted():
    subprocess.Popen(["sleep", "994"], start_new_session=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(990)

def test_after():
    pass
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What pytest with two workers printed; every test of it has two seconds."""
    folder = tmp_path_factory.mktemp("limits")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_limits.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 2\ntimeout_method = signal\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_test_is_run_once_and_those_without_a_fault_pass(printed):
    assert "5 failed, 2 passed, 1 error" in printed
    assert printed.count("replacing crashed worker") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_waits_for_a_program", r"in test_waits_for_a_program[\s\S]*It had started:\n.* sleep 991"),
        ("test_reads_what_a_program_in_another_session_keeps_open", r"in communicate[\s\S]*\n.* sleep 992"),
        ("test_joins_threads", r"in waits_in_a_thread"),
        ("test_fails_before_a_slow_tear_down", r"the failure itself"),
        ("ERROR at teardown of test_fails_before_a_slow_tear_down", r"in slow\n[\s\S]*\n.* sleep 993"),
    ],
)
def test_the_failure_holds_the_stacks_and_what_was_started(printed, name, words):
    (section,) = re.findall(rf"\n_+ {name} _+\n([\s\S]*?)(?=\n_____|\n=====)", printed)
    assert re.search(words, section), section
    assert ("took longer than 2 s" in section) == (words != "the failure itself")


def test_a_test_that_cannot_be_interrupted_ends_its_process_with_the_stacks(printed):
    assert re.search(r"Timeout \(0:00:08.*\)!\n[\s\S]*in test_cannot_be_interrupted", printed)
    assert "crashed while running 'test_limits.py::test_cannot_be_interrupted'" in printed


def test_no_process_is_left_behind(printed):
    commands = [leftovers.command(pid) for pid in leftovers.started()]
    assert not [words for words in commands if re.match(r"sleep 99\d", words)]
    assert not leftovers.orphans()


def test_a_stopped_process_and_a_forked_one_end_too():
    job = subprocess.Popen(["bash", "-c", "kill -STOP $$"], start_new_session=True)
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.pause()
    assert {job.pid, child} <= set(leftovers.started())
    leftovers.end([job.pid, child])
    job.wait(timeout=10)
    os.waitpid(child, 0)
    assert not leftovers.identity(job.pid)
