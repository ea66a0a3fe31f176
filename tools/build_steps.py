"""The commands of a build: each logged, followed, ended with its children, in a folder of one build."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from build_progress import Progress


class BuildError(RuntimeError):
    """A step failed; the message says which, and what to do."""


def run(
    step: str, command: list[str], log: Path, env: dict[str, str] | None = None, tree: Path | None = None
) -> None:
    """Runs one command in the log's folder; the end of the log is shown when it fails.

    Args:
        tree: the folder of a build, whose progress is shown meanwhile.
    """
    with log.open("a") as out:
        print(f"\n== {step}: {' '.join(command)}", file=out, flush=True)
        job = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=log.parent,
            env=env,
            start_new_session=True,
            close_fds=False,  # the lock of `alone`: compilers that outlive a killed build go on holding it
        )
        try:
            code = _follow(job, Progress(tree, log)) if tree is not None else job.wait()
        except BaseException:
            _stop(job)
            raise
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise BuildError(
            f"{tail}\n{step} failed (exit code {code}); the whole log: {log}\n"
            f"the next attempt goes on in that folder; remove it to begin anew"
        )


def _follow(job: subprocess.Popen[bytes], progress: Progress) -> int:
    while True:
        try:
            code = job.wait(timeout=2)
        except subprocess.TimeoutExpired:
            progress.tell()
        else:
            progress.tell(last=True)
            return code


def _stop(job: subprocess.Popen[bytes]) -> None:
    """Ends a command and its children, so that no compiler writes into the folder of the next attempt."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(job.pid, number)
        with suppress(subprocess.TimeoutExpired):
            job.wait(timeout=10)


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Makes the folder of a build and holds it, until this process and all that it started have ended."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        with (work / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process builds Horovod in {work}: waiting for it", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            os.set_inheritable(lock.fileno(), True)
            if os.fstat(lock.fileno()).st_nlink:  # else the other one was done, and removed the folder
                yield
                return


def free(work: Path) -> bool:
    """Whether no build holds a folder."""
    try:
        with (work / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True
