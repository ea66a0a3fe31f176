"""Where ranks run: what they send of themselves when they bind, and the errors that say it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.collect import (
    EquivocationError,
    HeaderMismatchError,
    Root,
    Sharded,
    StateMismatchError,
    Symmetric,
    places,
)
from horovod_byz.collect.errors import TransportError, locate, located, names
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.session import Job
from horovod_byz.host.place import Place, _physical, describe, host_name
from thread_ranks import on_ranks_that_fail, succeeded

COLLECTORS = [Symmetric(), Root(), Root(dedicated=True), Sharded(), Sharded(replicas=3)]
SIZE, ODD = 5, 2
CUDA = "cuda:{} NVIDIA H200 GPU-5d3f8a12-0000-1111-2222-333344445555"


def on_hosts(host="h{}", device=CUDA):
    """Makes each rank say that it runs on a host and a GPU of its own."""

    def prepare(transport):
        own = places.pack(host.format(transport.rank), device.format(transport.rank), transport.rank)
        transport.lie = saying(own)

    return prepare


def saying(own):
    """A lie that replaces the place that a rank sends when it binds."""

    def lie(phase, message, to):
        if phase == "check of the headers":
            message[: own.size] = own
        return message

    return lie


def stepped(collector, prepare, *, d=lambda rank: 100, state=lambda rank: b"", steps=1):
    def work(transport):
        prepare(transport)
        job = Job(transport, d(transport.rank), np.float32, 1)
        session = collector.session(job)
        row = np.ones((len(session.workers), session.d), np.float32)
        for _ in range(steps):
            session.step(row, hb.Median(), state=state(transport.rank))
        return session

    return on_ranks_that_fail(SIZE, work)


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_every_rank_learns_where_all_run(collector):
    for session in succeeded(stepped(collector, on_hosts())):
        assert [place.rank for place in session.places] == list(range(SIZE))
        assert [place.where for place in session.places] == [f"host h{r}, GPU {r}" for r in range(SIZE)]
        assert [list(place.workers) for place in session.places] == [
            list(session.layout.workers(r)) for r in range(SIZE)
        ]
        assert session.places[3] == Place(3, session.places[3].workers, "h3", 3, CUDA.format(3))


def test_without_other_ranks_the_place_is_this_machine():
    session = hb.Symmetric().bind(3, np.float32)
    assert [place.where for place in session.places] == [f"host {places.clean(host_name())}"]


class TestErrors:
    def test_at_a_step(self):
        def state(rank):
            return (b"o" if rank == ODD else b"s") * 16

        for error in stepped(Symmetric(), on_hosts(), state=state):
            assert isinstance(error, StateMismatchError)
            assert str(error).startswith("rank 2 (host h2, GPU 2)'s parameters")
            assert error.ranks == (ODD,)
            assert [place.host for place in error.places] == ["h2"]

    @pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
    def test_at_binding(self, collector):
        """The headers say who differs, and places come with their check: the error has both."""
        for error in stepped(collector, on_hosts(), d=lambda rank: 100 + (rank == ODD)):
            assert isinstance(error, HeaderMismatchError)
            assert str(error).startswith("rank 2 (host h2, GPU 2) would send something else")
            assert [place.rank for place in error.places] == [ODD]

    def test_two_stories(self):
        def prepare(transport):
            on_hosts()(transport)
            honest = transport.lie

            def lie(phase, message, to):
                if phase == "header exchange" and transport.rank == ODD and to < 2:
                    message[-1] ^= 1
                return honest(phase, message, to)

            transport.lie = lie

        for error in stepped(Symmetric(), prepare):
            assert isinstance(error, EquivocationError)
            assert "(host h2, GPU 2)" in str(error)

    def test_after_them_places_are_forgotten(self):
        stepped(Symmetric(), on_hosts())
        hb.Symmetric().bind(3, np.float32).step(np.ones((1, 3), np.float32), hb.Mean())
        assert names([0]) == "rank 0"
        assert TransportError("x", [0]).places == ()


class TestNames:
    A, B, C = Place(1, (1,), "a"), Place(2, (2,), "b", device=CUDA.format(2)), Place(4, (4,), "a")

    def test_each_rank_has_its_place(self):
        with located([self.A, self.B]):
            assert names([2]) == "rank 2 (host b, GPU 2)"
            assert names([2, 1]) == "ranks 1 (host a) and 2 (host b, GPU 2)"

    def test_a_shared_place_is_said_once(self):
        with located([self.A, self.C]):
            assert names([1, 4]) == "ranks 1 and 4 (host a)"

    def test_a_rank_without_a_known_place_has_none(self):
        with located([self.A]):
            assert names([0, 1]) == "ranks 0 and 1 (host a)"
            assert names([0]) == "rank 0"

    def test_what_a_binding_learns_ends_with_it(self):
        with located():
            locate([self.A])
            assert names([1]) == "rank 1 (host a)"
        assert names([1]) == "rank 1"


HOSTILE = [
    "[bold red]rank 3[/]",
    "<script>alert(1)</script>",
    "a): rank 1 (host b",
    "\x1b[31mred",
    "line\nbreak",
    "\u202eevil",
    "..;rm -rf $HOME`id`",
    "&amp;\"'",
    "",
    "x" * 500,
]


class TestNamesAreData:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_peers_name_is_never_markup(self, name):
        rows = np.frombuffer(raw(name), np.uint8).reshape(1, -1)
        (place,) = places.unpack(rows, Layout((1,)))
        for text, limit in ((place.host, 64), (place.device, 96)):
            assert 0 < len(text) <= limit
            assert text.isascii()
            assert text.isprintable()
            assert not set(text) & set("[]<>()&\"'`$;\\{}|*")

    def test_any_bytes_are_read(self):
        for seed in range(50):
            data = np.random.default_rng(seed).integers(0, 256, (3, places.SIZE), np.uint8)
            for place in places.unpack(data, Layout((1, 0, 2))):
                assert place.local_rank >= 0
                assert places.clean(place.host) == place.host

    def test_an_honest_name_stays_as_it_is(self):
        own = places.pack("gpu-node07.cluster.local", CUDA.format(3), 3).reshape(1, -1)
        (place,) = places.unpack(own, Layout((2,)))
        assert place == Place(0, (0, 1), "gpu-node07.cluster.local", 3, CUDA.format(3))


def raw(name):
    """A record as a rank sends it that does not clean its names."""
    record = np.zeros((), places._RECORD)
    record["host"] = record["device"] = name.encode()[:64]
    record["local_rank"] = -5
    return record.tobytes()


class TestHere:
    @pytest.mark.parametrize("given", ["localhost", "", "127.0.0.1"])
    def test_localhost_is_no_name(self, monkeypatch, given):
        monkeypatch.setenv("HOROVOD_HOSTNAME", given)
        monkeypatch.setattr("socket.gethostname", lambda: "node7")
        assert host_name() == "node7"

    def test_the_launchers_name_is_the_one_that_its_list_of_hosts_has(self, monkeypatch):
        monkeypatch.setenv("HOROVOD_HOSTNAME", "10.0.0.7")
        monkeypatch.setattr("socket.gethostname", lambda: "node7")
        assert host_name() == "10.0.0.7"

    def test_the_cpu(self):
        assert describe(torch.device("cpu")) == "cpu"

    @pytest.mark.parametrize(
        ("index", "visible", "physical"),
        [(0, "", 0), (3, "", 3), (0, "2", 2), (1, "4,6", 6), (0, "GPU-5d3f", 0), (2, "4,6", 2)],
    )
    def test_the_index_is_that_of_the_machine(self, index, visible, physical):
        assert _physical(index, visible) == physical

    def test_what_a_process_computes_on(self, monkeypatch):
        monkeypatch.setattr(places._Process, "device", "cpu")
        monkeypatch.setattr(places, "describe", lambda device: f"{device.type}:5 Name")
        places.runs_on([torch.zeros(1), torch.zeros(1, device="meta")])
        assert places._Process.device == "meta:5 Name"
        places.runs_on([torch.zeros(1)])
        assert places._Process.device == "cpu"
