"""What ranks announce, and the launcher's store, into which anybody on the network may write."""

from __future__ import annotations

import hashlib
import hmac
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from horovod_byz.collect import LateRanksError, notice
from horovod_byz.collect.channels import Rendezvous, Silent, own_key
from horovod_byz.collect.notice import Notice, State
from horovod_byz.collect.watchdog import Watchdog

WAITING, MOVING, RAISED = State.WAITING, State.MOVING, State.RAISED
LEFT = State.LEFT


class TestNotice:
    BASE = Notice(2, RAISED, 7, 5, "gradient", "gather to the root", "why", (0, 3))

    def test_round_trip(self):
        data = self.BASE.pack()
        assert len(data) == notice.SIZE
        assert notice.unpack(data, 2, 4) == self.BASE

    def test_texts_are_cut_and_stay_printable(self):
        received = notice.unpack(Notice(0, LEFT, reason="\u00b2\n" + 500 * "x").pack(), 0, 1)
        assert received is not None
        assert received.reason.startswith("??xxx")

    @pytest.mark.parametrize(
        "changes",
        [
            {"rank": 1},
            {"beat": -1},
            {"step": -2},
            {"blamed": (4,)},
            {"blamed": (-1,)},
            {"blamed": (1, 1)},
        ],
        ids=str,
    )
    def test_an_impossible_notice_gives_none(self, changes):
        assert notice.unpack(replace(self.BASE, **changes).pack(), 2, 4) is None

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"3145730",  # an entry of version 0.1
            b"9" * 5000,  # int() refuses so many digits
            "\u00b2\u00b3".encode(),  # digits for str.isdigit, not for int()
            b"-1",
            BASE.pack()[:-1],
            BASE.pack() + b"0",
            bytes(notice.SIZE),
            b"\xff" * notice.SIZE,
        ],
        ids=range(9),
    )
    def test_malformed_bytes_give_none(self, data):
        assert notice.unpack(data, 2, 4) is None

    def test_random_damage_never_raises(self):
        rng, whole = np.random.default_rng(0), np.frombuffer(self.BASE.pack(), np.uint8)
        for _ in range(500):
            damaged = whole.copy()
            damaged[rng.integers(len(whole), size=rng.integers(1, 30))] = rng.integers(256)
            received = notice.unpack(damaged.tobytes(), 2, 4)
            assert received is None or received.pack() == damaged.tobytes()


class Entries(BaseHTTPRequestHandler):
    """Answers as Horovod's launcher does: anybody may read and write."""

    def do_PUT(self):
        self.server.entries[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        if self.server.answer is not None:
            self.wfile.write(self.server.answer)
            return
        data = self.server.entries.get(self.path)
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_): ...


class Store:
    """The launcher's store, with what it holds and, for tests, one answer that it gives to everybody."""

    def __enter__(self):
        self.server = HTTPServer(("127.0.0.1", 0), Entries)
        self.entries = self.server.entries = {}
        self.server.answer = None
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def channel(self, rank, size=3):
        return Rendezvous(rank, size, f"127.0.0.1:{self.server.server_port}")


@pytest.fixture
def store():
    with Store() as running:
        yield running


class TestRendezvous:
    WAITS = Notice(1, WAITING, 5, 3, "gradient", "gather")

    def acquainted(self, store):
        """The channels of ranks 0 and 1, where 0 knows the key of 1."""
        reader, writer = store.channel(0), store.channel(1)
        reader.keys = {rank: own_key() for rank in range(3)}
        return reader, writer

    def test_reads_what_a_rank_announced(self, store):
        reader, writer = self.acquainted(store)
        writer.publish(self.WAITS)
        assert reader.read([1, 2]) == {1: self.WAITS}

    @pytest.mark.parametrize(
        "entry",
        [b"", b"9" * 5000, b"-5", "\u00b2".encode(), bytes(notice.SIZE + 32), b"x" * 10**6],
        ids=["empty", "long", "negative", "other digits", "zeros", "huge"],
    )
    @pytest.mark.parametrize("know_keys", [True, False])
    def test_an_invalid_entry_is_ignored(self, store, entry, know_keys):
        """Version 0.1: such an entry raised a ValueError, from which Elastic does not recover, or cleared
        the late rank. Cause: the entry was a number that was read by `int` where `isdigit` held."""
        reader, _ = self.acquainted(store)
        if not know_keys:
            reader.keys = {}
        for path in ("/horovod_byz.3/1", "/horovod_byz.3/2"):
            store.entries[path] = entry
        assert reader.read([1, 2]) == {}

    @pytest.mark.parametrize("known", [True, False], ids=["another key", "no key"])
    def test_a_rank_that_is_met_anew_counts_from_0(self, store, known):
        """What was read of the process before it, or of a stranger before its key was known, had a higher
        number, so that nothing that the new one announced was believed."""
        reader, writer = self.acquainted(store)
        if known:
            writer.publish(replace(self.WAITS, beat=10**9))
        else:
            reader.keys = {}
            store.entries["/horovod_byz.3/1"] = replace(self.WAITS, beat=2**62).pack()
        assert reader.read([1])[1].beat >= 10**9
        if known:
            reader.meet({0: own_key(), 1: b"1" * 16, 2: own_key()})
        reader.meet({rank: own_key() for rank in range(3)})
        writer.publish(self.WAITS)
        assert reader.read([1]) == {1: self.WAITS}

    def test_an_entry_with_another_key_is_ignored(self, store):
        reader, writer = self.acquainted(store)
        writer.publish(self.WAITS)
        forged = replace(self.WAITS, beat=10**6, state=LEFT, reason="spoofed").pack()
        mac = hmac.new(b"0" * 16, b"horovod_byz.3" + forged, hashlib.sha256).digest()
        for signature in (mac, b"", bytes(32), mac + b"0"):
            store.entries["/horovod_byz.3/1"] = forged + signature
            assert reader.read([1]) == {}

    def test_an_entry_of_another_rank_or_job_size_is_ignored(self, store):
        reader, writer = self.acquainted(store)
        writer.publish(self.WAITS)
        store.entries["/horovod_byz.3/2"] = store.entries["/horovod_byz.3/1"]
        store.channel(1, size=4).publish(self.WAITS)
        store.entries["/horovod_byz.3/1"] = store.entries["/horovod_byz.4/1"]
        assert reader.read([1, 2]) == {}

    def test_an_entry_that_was_there_before_says_nothing_new(self, store):
        reader, writer = self.acquainted(store)
        writer.publish(self.WAITS)
        old = store.entries["/horovod_byz.3/1"]
        writer.publish(later := replace(self.WAITS, beat=6, state=MOVING))
        assert reader.read([1]) == {1: later}
        store.entries["/horovod_byz.3/1"] = old
        assert reader.read([1]) == {1: later}

    @pytest.mark.parametrize(
        "answer",
        [b"", b"nonsense", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"],
        ids=["nothing", "nonsense", "no status", "cut"],
    )
    def test_a_store_that_answers_nonsense_never_raises(self, store, answer):
        reader, _ = self.acquainted(store)
        store.server.answer = answer
        assert not reader.read([1])
        with pytest.raises(LateRanksError):
            Watchdog(0, 2, reader, 0.05).wait(lambda: False, "gather")

    def test_a_store_that_is_gone_gives_no_answer(self):
        with Store() as store:
            reader = store.channel(0)
        reader.publish(replace(self.WAITS, rank=0))
        assert reader.read([1]) is None

    @pytest.mark.parametrize("port", ["", "0", "-1", "\u00b2", "65536", "9" * 5000, "80 "])
    def test_an_invalid_port_means_no_store(self, monkeypatch, port):
        monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
        monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_PORT", port)
        assert isinstance(Rendezvous.find(0, 2), Silent)
