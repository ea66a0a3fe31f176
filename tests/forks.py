"""Starts Python programs as forks of a process that has imported torch, Horovod and this package already.

To import them takes 5 seconds of a core, which every rank of every job would spend anew. `Forks` keeps such
a process; its `command` is what a launcher starts in place of `python`. The launcher's own process, a small
one, waits for the fork: it ends as the fork ends, passes signals on, and when it is killed so is the fork.
The fork has the environment, the descriptors and the folder that the launcher gave.

    python -S forks.py ADDRESS PROGRAM ...         as python PROGRAM ...
    python forks.py --serve ADDRESS MODULE ...     until the standard input ends
"""

import contextlib
import json
import os
import signal
import socket
import sys

# What the checks of the ranks import, the first optimizer included, which imports torch._dynamo.
MODULES = (
    "torch._dynamo",
    "horovod.torch",
    "sklearn.datasets",
    "horovod_byz.optimizer",
    "horovod_byz.training.trainer",
    "horovod_byz.cli.report_command",
)
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGABRT", "SIGUSR1", "SIGUSR2", "SIGCONT")
_NUMBER = 8  # bytes of a number on the socket


class Forks:
    """The process that forks.

    Args:
        env: its environment; that of a fork is its launcher's.
        folder: where its socket lies.
        modules: what it imports; those that are not installed are left out.

    Attributes:
        command: starts a program like `python`, in whose place it stands.
        process: the process that forks.
    """

    def __init__(self, env, folder, modules=MODULES):
        import subprocess

        address = f"{folder}/forks"
        self.command = [sys.executable, "-S", __file__, address]
        words = [sys.executable, __file__, "--serve", address, *modules]
        self.process = subprocess.Popen(
            words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready == "1\n", f"the process that forks has {ready!r} threads, not 1"

    def close(self):
        """Ends the process, and every fork that still runs."""
        self.process.communicate(timeout=20)


def ask(address, words):
    """Has a program forked, and ends as it ends."""
    passed_on = [getattr(signal, name) for name in PASSED_ON]
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # one that comes now waits for the fork
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        wanted = {"words": words, "environ": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109 - to import pathlib takes longer
        text = json.dumps(wanted).encode()
        socket.send_fds(server, [len(text).to_bytes(_NUMBER, "big")], [0, 1, 2])
        server.sendall(text)
        process = _number(server)

        def pass_on(number, frame):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process, number)

        for each in passed_on:
            signal.signal(each, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        code = os.waitstatus_to_exitcode(_number(server))
    if code >= 0:
        sys.exit(code)
    if -code in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def _number(connection):
    return int.from_bytes(_read(connection, _NUMBER), "big")


def _read(connection, length):
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            sys.exit("forks.py: the process that forks has ended")
        data += more
    return data


class Server:
    """Forks on demand. It has one thread, or a fork could wait for ever for what another thread held."""

    def __init__(self, address):
        self.awake, self.ended = os.pipe()  # a byte for each fork that ends
        os.set_blocking(self.ended, False)
        signal.set_wakeup_fd(self.ended)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(address)
        self.socket.listen(64)
        self.asked = {}  # from a fork's number to the connection on which it was asked for

    def serve(self):
        """Returns in each fork, with what it was asked for; elsewhere when the standard input ends."""
        import select

        while True:
            ready, _, _ = select.select([0, self.awake, self.socket, *self.asked.values()], [], [])
            if 0 in ready:
                for process in self.asked:
                    os.kill(process, signal.SIGKILL)
                return None
            gone = [process for process, connection in self.asked.items() if connection in ready]
            if self.awake in ready:
                os.read(self.awake, 4096)
                self._report()
            for process in set(gone) & set(self.asked):  # who asked for it was killed
                os.kill(process, signal.SIGKILL)
                self.asked.pop(process).close()
            if self.socket in ready and (wanted := self._fork()):
                return wanted

    def _report(self):
        """Passes on how each fork ended."""
        while self.asked:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            if process in self.asked:
                with self.asked.pop(process) as connection:
                    connection.sendall(status.to_bytes(_NUMBER, "big"))

    def _fork(self):
        connection, _ = self.socket.accept()
        length, descriptors, _, _ = socket.recv_fds(connection, _NUMBER, 3)
        wanted = json.loads(_read(connection, int.from_bytes(length, "big")))
        process = os.fork()
        if process == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            own = (self.socket, connection, *self.asked.values())
            for descriptor in (self.awake, self.ended, *descriptors, *(each.detach() for each in own)):
                os.close(descriptor)
            return wanted
        for descriptor in descriptors:
            os.close(descriptor)
        self.asked[process] = connection
        connection.sendall(process.to_bytes(_NUMBER, "big"))
        return None


def run(words, environ, folder):
    """Runs a program in this process as the interpreter does."""
    import pathlib
    import random
    import runpy
    import tempfile

    import numpy as np

    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    tempfile.tempdir = None  # the folder of the launcher's TMPDIR, whatever an import asked for
    random.seed()
    np.random.seed()  # noqa: NPY002 - else all forks would draw the same numbers
    if "PYTHONUNBUFFERED" in environ:
        sys.stdout.reconfigure(write_through=True)
    path = [str(pathlib.Path(words[0]).parent), *environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:] = dict.fromkeys([*filter(None, path), *sys.path[1:]])
    sys.argv[:] = words
    runpy.run_path(words[0], run_name="__main__")


def main(arguments):
    if arguments[0] != "--serve":
        ask(arguments[0], arguments[1:])
    import gc
    import importlib
    import importlib.util
    import pathlib

    gc.disable()  # which takes a fifth of the time to import
    for name in arguments[2:]:
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    gc.freeze()
    gc.enable()
    server = Server(arguments[1])
    print(len(list(pathlib.Path("/proc/self/task").iterdir())), flush=True)
    wanted = server.serve()
    if wanted:
        run(**wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
