"""A pytest plugin: no test, tear-down or exit takes longer than its limit, and nothing it started stays.

`timeout` in pyproject.toml, or `@pytest.mark.timeout(seconds)`, says how long a test may take. At its limit

1. the stacks of all threads become the test's failure, and what the test started is ended, so that a test
   that waits for it wakes up;
2. `GRACE` seconds later (a thread waits for another for ever, or C code does) the stacks are written to the
   terminal and the process ends. Under xdist the others go on, and a new worker takes its place.

pytest-timeout reads the limits. Its own methods do one of the two each, write the stacks where xdist shows
nothing of a worker, and set no limit for the tear-down of a test that failed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import resource
import signal
import tempfile
import threading

import pytest
import pytest_timeout

import leftovers

AGAIN = 5.0  # seconds from one attempt to stop a test to the next
GRACE = 30.0  # seconds from a test's limit to the end of the process
EXIT = 60.0  # seconds for the interpreter to end after the last test

_MACHINERY = re.compile(r'  File "(<string>|[^"]*/(pluggy|_pytest|xdist|execnet)/)')
_limited = pytest.StashKey[bool]()
_terminal = pytest.StashKey()
# Whether pytest would take an exception for the test's own; while it reports, one would end the worker.
_in_test = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_terminal] = os.fdopen(os.dup(2), "w")  # before pytest captures descriptor 2
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    leftovers.end(leftovers.orphans())  # of a worker of xdist that ended at its limit
    os.environ[leftovers.MARK] = leftovers.identity(os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    leftovers.end(leftovers.orphans())
    if not hasattr(config, "workerinput"):  # a worker of xdist waits until the others are done
        # The interpreter joins threads, and processes of multiprocessing.
        _end_process_after(EXIT, config)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool | None:
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None

    def at_limit(number: int, frame: object) -> None:
        __tracebackhide__ = True
        if item.stash.get(_in_test, False) and not pytest_timeout.is_debugging():
            pytest.fail(f"the test took longer than {settings.timeout:g} s.\n{_stacks()}{_end_started()}")

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        item.stash[_limited] = False

    item.stash[_limited] = True
    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, at_limit)
    # Again and again, since the way out of a test may wait as well: a pool of threads joins them.
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    if not pytest_timeout.is_debugging():
        _end_process_after(settings.timeout + GRACE, item.config)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item):
    failed = item.session.testsfailed
    ended = yield
    if item.session.testsfailed > failed or item.get_closest_marker("horovod"):
        _end_started()
    return ended


@contextlib.contextmanager
def _interruptible(item: pytest.Item):
    item.stash[_in_test] = True
    try:
        yield
    finally:
        item.stash[_in_test] = False


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item):
    with _interruptible(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item):
    with _interruptible(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item):
    """Sets the limit again after a failure, when pytest-timeout takes it away."""
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout and not item.stash.get(_limited, False):
        item.ihook.pytest_timeout_set_timer(item=item, settings=settings)
    with _interruptible(item):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, sched: object) -> None:
    """Corrects xdist's queue after a test ended its worker.

    xdist 3.8.0 with `--dist loadgroup` runs that test again, and loses every worker to it; or it hands the
    new worker a group that is complete, hears nothing from it, and stands still for ever.
    """
    queue = getattr(sched, "workqueue", {})
    for group, tests in list(queue.items()):
        if crashitem in tests:
            tests[crashitem] = True
        if all(tests.values()):
            del queue[group]


def _end_process_after(seconds: float, config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=config.stash[_terminal])


def _stacks() -> str:
    """The stacks of all threads, without the frames of pytest itself."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return "".join(line for line in file if not _MACHINERY.match(line))


def _end_started() -> str:
    """Ends what the tests of this process started; says what that was."""
    started = {pid: leftovers.command(pid) for pid in leftovers.started()}
    leftovers.end(started)
    return "\n".join(["It had started:", *(f"  {pid} {words}" for pid, words in started.items())])
