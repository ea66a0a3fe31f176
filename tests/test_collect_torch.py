"""The parts of the transport over torch.distributed that need no ranks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch.distributed as dist

from horovod_byz.collect import preamble, termination, torch_job, torch_store
from horovod_byz.collect.channels import own_key
from horovod_byz.collect.errors import HeaderMismatchError
from horovod_byz.collect.inquiry import Inquiry
from horovod_byz.collect.notice import Notice, State
from horovod_byz.collect.torch_store import Bounded, TorchStore


def records(*operations):
    """What a rank receives when the ranks are at these operations."""
    return np.concatenate([preamble.pack(name, [rank]) for rank, name in enumerate(operations)])


class TestPreamble:
    def test_counts_and_messages_arrive(self):
        message = np.arange(200, dtype=np.uint8)
        sent = preamble.pack("gather (gradient)", [5, 0, 2**40], message).reshape(3, preamble.SIZE)
        for rank, count in enumerate([5, 0, 2**40]):
            received = preamble.unpack(sent[rank])
            assert received.counts == [count]
            assert received.payloads[0, :200].tolist() == message.tolist()

    @pytest.mark.parametrize(
        ("operations", "odd"),
        [
            (("a", "a", "b"), [2]),
            (("a", "b", "b"), [0]),
            (("a", "b"), []),  # without a majority nobody
            (("a", "b", "c"), []),
            (("a", "a", "b", "c"), []),
        ],
    )
    def test_the_ranks_at_another_operation_are_named(self, operations, odd):
        said = "came to another operation" if odd else "no majority says to which"
        with pytest.raises(HeaderMismatchError, match=said) as error:
            preamble.unpack(records(*operations))
        assert error.value.ranks == tuple(odd)

    def test_bytes_of_another_library_are_named(self):
        data = records("a", "a", "a")
        data[preamble.SIZE : 2 * preamble.SIZE] = 7
        with pytest.raises(HeaderMismatchError, match="rank 1: something that is not of this library"):
            preamble.unpack(data)

    def test_long_names_are_cut_alike(self):
        assert preamble.unpack(records("x" * 500, "x" * 500)).counts == [0, 1]


class TestStore:
    @pytest.fixture
    def channels(self, tmp_path):
        """The channels of ranks 0 and 1 over one store, where 0 knows the key of 1."""
        pair = [TorchStore(rank, 2, dist.FileStore(str(tmp_path / "store"), 2)) for rank in range(2)]
        pair[0].meet({1: own_key()})
        return pair

    def test_a_notice_arrives(self, channels):
        own = Notice(1, State.WAITING, 3, 7, "gradient", "header exchange")
        assert channels[0].read([1]) == {}
        channels[1].publish(own)
        assert channels[0].read([1]) == {1: own}

    def test_an_entry_with_another_key_is_ignored(self, channels):
        channels[0].meet({1: b"another key 1234"})
        channels[1].publish(Notice(1, State.WAITING, 3))
        assert channels[0].read([1]) == {}

    def test_an_entry_of_the_last_attempt_is_not_read(self, tmp_path, monkeypatch):
        """torchrun's agent keeps its store when it starts the ranks again."""
        store = dist.FileStore(str(tmp_path / "store"), 2)
        TorchStore(1, 2, store).publish(Notice(1, State.LEFT, 3))
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert TorchStore(0, 2, store).read([1]) == {}

    def test_a_store_that_never_answers_delays_nobody_for_long(self, monkeypatch):
        """A TCPStore has no time-out: where its host is stopped, a call never returns."""
        monkeypatch.setattr(torch_store, "_SECONDS", 0.05)
        bounded, answers = Bounded(), threading.Event()
        with pytest.raises(ConnectionError, match="does not answer"):
            bounded(answers.wait)
        with pytest.raises(ConnectionError, match="does not answer"):
            bounded(lambda: 1)
        answers.set()
        monkeypatch.setattr(torch_store, "_SECONDS", 10.0)
        while bounded._unanswered.empty():
            threading.Event().wait(0.01)
        assert bounded(lambda: 2) == 2

    def test_an_error_of_the_store_is_a_lost_connection(self):
        with pytest.raises(ConnectionError, match=r"does not answer: .*by zero"):
            Bounded()(lambda: 1 // 0)


class TestEndedBySigterm:
    """A rank that was ended announced that; a rank that died did not."""

    own = Notice(0, State.RAISED, 9, 4)

    def finding(self, *others):
        inquiry = Inquiry(self.own, 1 + len(others), signs_of_life=True)
        for _ in range(2):
            inquiry.look({notice.rank: notice for notice in others if notice is not None})
        return inquiry.finding()

    def ended(self, rank):
        return Notice(rank, State.ALIVE, 5, 4, reason=termination.REASON)

    def test_a_rank_that_was_ended_alone_is_named(self):
        finding = self.finding(self.ended(1), Notice(2, State.RAISED, 5, 4))
        assert finding.late == finding.doubtful == (1,)  # for elastic training; nobody is accused
        assert finding.certain == ()
        assert "rank 1 left (it was ended by SIGTERM)" in finding.text

    def test_of_several_the_first_is_not_known(self):
        finding = self.finding(self.ended(1), self.ended(2))
        assert finding.late == ()
        assert "rank 2: it was ended by SIGTERM" in finding.text

    def test_a_dead_rank_is_named_without_those_that_the_launcher_ended(self):
        finding = self.finding(self.ended(1), Notice(2, State.MOVING, 5, 3), Notice(3, State.RAISED, 5, 4))
        assert finding.late == finding.certain == (2,)


def test_a_handler_of_the_script_stays(monkeypatch):
    monkeypatch.setattr(termination._Process, "owner", 0)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        own = signal.getsignal(signal.SIGTERM)
        termination.watch()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


WATCHED = """
import multiprocessing, os, signal, sys, time
from horovod_byz.collect import termination
termination._STUCK = 0.5
termination.watch()
"""
SCRIPTS = {
    "a child that is terminated": (
        """
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
child.terminate()
child.join()
print(child.exitcode)
""",
        "-15",
    ),
    "a pool that is left early": (
        """
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map_async(time.sleep, [60, 60])
    time.sleep(0.3)
print("left")
""",
        "left",
    ),
    "a handler that the script sets later": (
        """
signal.signal(signal.SIGTERM, lambda *_: print("noted"))
os.kill(os.getpid(), signal.SIGTERM)
""",
        "noted",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_process_lives_on_after(name):
    """Its own watcher took a child's signal for its own, and ended it five seconds later."""
    script, said = SCRIPTS[name]
    script = f"{WATCHED}{script}\ntime.sleep(1.5)\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.returncode) == ([said, "alive"], 0), done.stderr


def test_a_process_in_which_nothing_else_handles_the_signal_ends_by_it():
    script = f"{WATCHED}\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGTERM, done.stderr


@pytest.mark.parametrize(
    ("config", "backend"),
    [
        ("cpu:gloo,cuda:nccl", "gloo"),
        ("cpu:gloo", "gloo"),
        ("cuda:nccl", ""),
        ("cpu:mpi,cuda:mpi", "mpi"),
        ("cpu:nccl,cuda:nccl", "nccl"),
    ],
)
def test_the_backend_for_cpu_tensors(monkeypatch, config, backend):
    monkeypatch.setattr(dist, "get_backend_config", lambda: config)
    assert torch_job.cpu_backend() == backend
