"""Ranks whose parameters or optimizer state differ: located by name, and replaced by the majority's."""

import copy
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.collect import Root, Sharded, StateMismatchError, Symmetric, restoring
from horovod_byz.collect.session import Job
from horovod_byz.optimizer import repair, start
from horovod_byz.optimizer.leaves import PlainLeaf, TensorLeaf, Tree, leaves_of, leaves_of_tensors, root_of
from horovod_byz.optimizer.repair import StateCheck
from thread_ranks import on_ranks, on_ranks_that_fail, said, succeeded

SIZE = 3
NAMES = ["table", "weight", "half", "wide", "scale"]


def parameters():
    g = torch.Generator().manual_seed(0)
    shapes = [(7, 3), (4, 5), (6,), (3, 2), ()]
    dtypes = [torch.float32, torch.float32, torch.bfloat16, torch.float64, torch.float32]
    values = [
        torch.randn(s, generator=g, dtype=torch.float64).to(t) for s, t in zip(shapes, dtypes, strict=True)
    ]
    values[1] = values[1].t().contiguous().t()  # not contiguous
    return [torch.nn.Parameter(value) for value in values]


class Rank:
    """One rank's optimizer after two steps of Adam, equal on all ranks until something is changed."""

    def __init__(self, kind=torch.optim.Adam, **options):
        self.parameters = parameters()
        self.names = dict(zip(self.parameters, NAMES, strict=True))
        self.optimizer = kind(self.parameters, lr=0.1, **options)
        self.ledger, self.extra = hb.Ledger(), {"mask": torch.tensor([True, False, True])}
        self.actions = []
        self.ledger.listeners.append(self)
        for step in range(2):
            for p in self.parameters:
                p.grad = torch.full_like(p, 0.5 + step)
            self.optimizer.step()

    def entered(self, ledger, evidence): ...
    def stepped(self, ledger, result, step): ...

    def acted(self, ledger, action):
        self.actions.append(action)

    def leaves(self):
        yield from leaves_of(self.optimizer, self.names)
        yield from leaves_of_tensors(self.extra.items(), "buffer")

    def check(self, **options):
        return StateCheck(self.leaves, self.ledger, **options)

    def state(self, index):
        return self.optimizer.state[self.parameters[index]]

    @property
    def root(self):
        return Tree.of(self.leaves()).root


def flip(tensor, at=0, bit=3):
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).clone()
    data[at * tensor.dtype.itemsize] ^= 1 << bit
    with torch.no_grad():
        tensor.copy_(data.view(tensor.dtype).reshape(tensor.shape))


def run(change, collector=None, *, size=SIZE, kind=torch.optim.Adam, prepare=None, failing=False, **options):
    """Each rank's `Rank` after a step that compares the states, or the error that it raised."""
    clean = Rank(kind).root

    def work(transport):
        rank = Rank(kind)
        change(transport.rank, rank)
        if prepare is not None:
            prepare(transport, rank)
        session = (collector or Symmetric()).session(Job(transport, 4, np.float32))
        rows = np.ones((len(session.workers), 4), np.float32)
        rank.value = session.step(rows, hb.Median(), state=rank.check(**options)).value.copy()
        rank.restored = rank.root == clean
        return rank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (on_ranks_that_fail if failing else on_ranks)(size, work)


def on(odd, action):
    """A change on some ranks only."""
    return lambda number, rank: action(rank) if number in ((odd,) if isinstance(odd, int) else odd) else None


COLLECTORS = [Symmetric(), Root(), Root(dedicated=True), Sharded(), Sharded(replicas=3)]
CHANGES = {
    "table": lambda rank: flip(rank.parameters[0], 4),
    "weight": lambda rank: flip(rank.parameters[1], 7),
    "half": lambda rank: flip(rank.parameters[2], 5),
    "wide": lambda rank: flip(rank.parameters[3], 1),
    "scale": lambda rank: flip(rank.parameters[4]),
    "exp_avg of weight": lambda rank: flip(rank.state(1)["exp_avg"], 2),
    "exp_avg_sq of wide": lambda rank: flip(rank.state(3)["exp_avg_sq"], 2),
    "step of half": lambda rank: rank.state(2)["step"].add_(8.0),
    "exp_avg of scale": lambda rank: rank.state(4)["exp_avg"].mul_(2.0),
    "mask of fixed buffers": lambda rank: flip(rank.extra["mask"], 1, 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_flipped_bit_is_located_by_name_and_repaired_bit_for_bit(name):
    """Version 0.2.0: the job ended, and the error said neither which tensor nor where."""
    expected = name.removesuffix(" of fixed buffers")
    for rank in succeeded(run(on(1, CHANGES[name]))):
        assert rank.restored
        assert rank.value.all()
        (evidence,) = rank.ledger.evidence
        assert (evidence.kind, evidence.reason, evidence.rank) == ("proof", "state", 1)
        assert evidence.detail == f"{expected} differs from 2 of 3 ranks"
        (action,) = rank.actions
        assert (action.action, action.rank) == ("repair", 1)
        assert action.detail.startswith(f"{expected} replaced by that of ranks 0 and 2")


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
@pytest.mark.parametrize("odd", [0, 3])
def test_every_way_to_collect_and_every_rank(collector, odd):
    results = succeeded(run(on(odd, CHANGES["weight"]), collector, size=4))
    assert all(rank.restored for rank in results)
    assert {evidence.rank for rank in results for evidence in rank.ledger.evidence} == {odd}


def test_the_coordinate_that_differs_stands_in_the_action():
    (action,) = succeeded(run(on(2, CHANGES["weight"])))[0].actions
    assert "1 of 20 values of weight differed, the first at 7" in action.detail


def test_several_tensors_and_several_ranks():
    def change(number, rank):
        if number in (0, 3):
            CHANGES["wide"](rank)
        if number == 3:
            for name in ("table", "half", "step of half", "exp_avg of scale"):
                CHANGES[name](rank)

    for rank in succeeded(run(change, size=5)):
        assert rank.restored
        details = {evidence.rank: evidence.detail for evidence in rank.ledger.evidence}
        assert details == {
            0: "wide differs from 3 of 5 ranks",
            3: "table, half, step of half and 2 more differ from 3 of 5 ranks",
        }


def test_a_state_larger_than_one_piece(monkeypatch):
    monkeypatch.setattr(restoring, "_PIECE", 50)

    def change(rank):
        for name in CHANGES:
            CHANGES[name](rank)

    assert all(rank.restored for rank in succeeded(run(on(0, change))))


def test_pieces_cover_every_byte_once():
    class Part:
        def __init__(self, size):
            self.size = size

    parts = [Part(size) for size in (0, 3, 2**24, 2 * 2**24 + 5, 0, 7)]
    batches = list(restoring._batches(parts, range(len(parts))))
    assert all(sum(end - begin for _, begin, end in batch) <= 2**24 for batch in batches)
    for index, part in enumerate(parts):
        pieces = [(begin, end) for batch in batches for i, begin, end in batch if i == index]
        assert pieces[0][0] == 0
        assert pieces[-1][1] == part.size
        assert all(a[1] == b[0] for a, b in pairwise(pieces))


def test_equal_states_send_their_check_and_nothing_more():
    phases = []

    def prepare(transport, rank):
        transport.lie = lambda phase, message, to: phases.append(phase) or message

    succeeded(run(lambda number, rank: None, prepare=prepare))
    about_states = {phase for phase in phases if "state" in phase or "repair" in phase}
    assert about_states == {"check of the states"}  # one digest of each rank, repeated by all


class TestTheRunStops:
    def test_where_the_user_asks_for_it(self):
        for error in run(on(1, CHANGES["exp_avg of weight"]), failing=True, on_mismatch="stop"):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (1,)
            assert "(first difference: exp_avg of weight on rank 1)" in said(error)
            assert "broadcast them, or restore a checkpoint" in said(error)

    def test_where_one_rank_of_the_majority_asks_for_it(self):
        """All ranks must decide alike, or some would wait for the others until the time-out."""

        def prepare(transport, rank):
            if transport.rank == 0:
                rank.check = lambda **options: StateCheck(rank.leaves, on_mismatch="stop")

        for error in run(on(1, CHANGES["weight"]), failing=True, prepare=prepare):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (1,)

    def test_the_evidence_is_entered_all_the_same(self):
        ranks = []
        run(
            on(1, CHANGES["wide"]),
            failing=True,
            on_mismatch="stop",
            prepare=lambda transport, rank: ranks.append(rank),
        )
        assert len(ranks) == SIZE
        for rank in ranks:
            assert [e.detail for e in rank.ledger.evidence] == ["wide differs from 2 of 3 ranks"]
            assert [(action.action, action.rank) for action in rank.actions] == [("stop", 1)]

    @pytest.mark.parametrize(
        ("size", "odd", "sides"),
        [(2, (1,), "rank 0 and rank 1"), (4, (1, 2), "ranks 0 and 3 and ranks 1 and 2")],
    )
    def test_where_no_majority_says_who_is_right(self, size, odd, sides):
        """Version 0.2.0: the higher rank of two was accused, which may have been the right one."""
        for error in run(on(odd, CHANGES["weight"]), size=size, failing=True):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == ()
            assert len(error.sides) == 2
            assert f"{sides} differ, and no majority of ranks says whose are right" in said(error)
            assert "first difference: weight on rank 1" in said(error)

    def test_where_an_option_differs_and_its_values_are_shown(self):
        def change(rank):
            rank.optimizer.param_groups[0]["lr"] = 0.2
            CHANGES["weight"](rank)

        for error in run(on(2, change), failing=True):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (2,)
            assert "lr of group 0 is 0.2" in said(error)
            assert "on rank 2, and 0.1" in said(error)
            assert "give all ranks the same" in said(error)

    def test_where_a_rank_holds_other_tensors(self):
        def change(rank):
            rank.optimizer.state.clear()

        for error in run(on(1, change), failing=True):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (1,)
            assert "rank 1 and ranks 0 and 2 hold other kinds of state" in said(error)
            assert "broadcast parameters and optimizer state" in said(error)

    def test_where_a_rank_compares_at_other_steps(self):
        def prepare(transport, rank):
            if transport.rank == 1:
                rank.check = lambda **options: StateCheck(rank.leaves, every=0)

        for error in run(lambda number, rank: None, failing=True, prepare=prepare):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (1,)
            assert "give all ranks the same check_state_every" in said(error)


class TestLiars:
    """Ranks that send other bytes than they announced, or cannot take over what they get."""

    def test_what_does_not_have_the_majoritys_digest_is_not_taken_over(self):
        def prepare(transport, rank):
            if transport.rank == 0:  # the first that sends
                honest = transport.alltoall

                def alltoall(send, splits, out, expected, phase):
                    honest(send ^ 1 if phase == "repair of the state" else send, splits, out, expected, phase)

                transport.alltoall = alltoall

        results = succeeded(run(on(2, CHANGES["weight"]), size=4, prepare=prepare))
        assert all(rank.restored for rank in results)

    def test_a_rank_that_cannot_be_repaired_stops_the_run_by_name(self):
        def prepare(transport, rank):
            if transport.rank == 2:
                rank.parameters[1].copy_ = None

                class Stuck(TensorLeaf):
                    def accept(self, data, digest):
                        return True

                good = rank.leaves

                def leaves():
                    for leaf in good():
                        yield Stuck(leaf.name, leaf.kind, leaf.tensor) if leaf.name == "weight" else leaf

                rank.leaves = leaves

        for error in run(on(2, CHANGES["weight"]), failing=True, prepare=prepare):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (2,)
            assert "rank 2 could not take over the state of ranks 0 and 1" in said(error)

    def test_a_minority_cannot_pass_its_digests_as_the_majoritys(self):
        def prepare(transport, rank):
            if transport.rank == 0:
                transport.lie = lambda phase, message, to: (
                    message ^ 1 if phase == "digests of the state's parts" else message
                )

        results = succeeded(run(on(2, CHANGES["weight"]), size=4, prepare=prepare))
        assert all(rank.restored for rank in results)
        assert {e.rank for rank in results for e in rank.ledger.evidence} == {2}

    def test_a_value_from_a_peer_is_shown_as_plain_text_only(self):
        def prepare(transport, rank):
            if transport.rank == 2:
                evil = np.frombuffer(b"\x1b[31m<b>".ljust(64, b"\x07"), np.uint8)
                transport.lie = lambda phase, message, to: evil if phase == "value that differs" else message

        change = on(2, lambda rank: rank.optimizer.param_groups[0].update(lr=0.2))
        for error in run(change, failing=True, prepare=prepare):
            assert "lr of group 0 is [31m<b> on rank 2" in said(error)


class TestLeaves:
    def test_names(self):
        rank = Rank()
        names = [leaf.name for leaf in rank.leaves()]
        assert names[:2] == ["amsgrad of group 0", "betas.0 of group 0"]
        assert [name for name in names if "weight" in name and "decay" not in name] == [
            "weight",
            "exp_avg of weight",
            "exp_avg_sq of weight",
            "step of weight",
        ]

    @pytest.mark.parametrize(
        "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64]
    )
    def test_every_dtype_is_taken_over(self, dtype):
        want, got = torch.arange(6).reshape(2, 3).to(dtype), torch.zeros(2, 3, dtype=dtype)
        leaf, other = TensorLeaf("a", "state", want), TensorLeaf("a", "state", got)
        assert not other.accept(leaf.read().copy(), b"x" * 16)
        assert not got.any()
        assert other.accept(leaf.read().copy(), leaf.digest())
        assert torch.equal(want, got)

    def test_a_sparse_tensor_too(self):
        want, got = torch.eye(3).to_sparse(1), torch.zeros(3, 3).to_sparse(1)
        leaf, other = TensorLeaf("a", "state", want), TensorLeaf("a", "state", got)
        assert other.accept(leaf.read().copy(), leaf.digest())
        assert torch.equal(got.to_dense(), torch.eye(3))

    @pytest.mark.parametrize(("held", "sent"), [(3, 5), (3.0, 0.5), (True, False), (2, 7.5), (None, 1.0)])
    def test_numbers_are_replaced_where_they_stand(self, held, sent):
        state = {"count": held}
        leaf = PlainLeaf("count", "state", held, lambda value: state.update(count=value), np.float64)
        other = PlainLeaf("count", "state", sent, None, np.float64)
        assert leaf.accept(other.read(), other.digest())
        assert state["count"] == sent
        assert type(state["count"]) is type(sent if held is None or sent == 7.5 else held)

    def test_a_forged_number_is_refused(self):
        leaf = PlainLeaf("count", "state", 3, None, np.float64)
        assert not leaf.accept(np.full(leaf.size, 255, np.uint8), leaf.digest())

    def test_threads_do_not_change_a_digest(self):
        leaf = TensorLeaf("a", "state", torch.arange(2**21, dtype=torch.float32))
        assert leaf.digest(1) == leaf.digest(2)

    def test_the_root_follows_from_the_parts(self):
        tree = Tree.of(Rank().leaves())
        assert tree.root == root_of(tree.structure, b"".join(tree.digests))
        assert tree.root == Tree.of(Rank().leaves()).root


class TestStart:
    """`hb.broadcast_majority`: every rank has a copy."""

    def start(self, monkeypatch, make, size=SIZE, **options):
        """What `broadcast_majority` returned on each rank."""
        here = threading.local()
        params = [make(rank) for rank in range(size)]

        def work(transport):
            here.transport = transport
            return hb.broadcast_majority(params[transport.rank], **options)

        monkeypatch.setattr(start, "connect", lambda name, timeout: here.transport)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return on_ranks_that_fail(size, work)

    def module(self, seed=0):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))

    @pytest.mark.parametrize("form", ["module", "state_dict", "pairs", "tensors"])
    def test_a_copy_that_differs_is_named_and_replaced(self, monkeypatch, form):
        modules = {}

        def make(rank):
            module = modules[rank] = self.module(seed=int(rank == 1))
            return {
                "module": module,
                "state_dict": module.state_dict(),
                "pairs": module.named_parameters(),
                "tensors": list(module.parameters()),
            }[form]

        ledger = hb.Ledger()
        for result in succeeded(self.start(monkeypatch, make, ledger=ledger)):
            assert result == (1,)
        want = self.module()
        for module in modules.values():
            assert all(torch.equal(a, b) for a, b in zip(module.parameters(), want.parameters(), strict=True))
        assert {evidence.rank for evidence in ledger.evidence} == {1}

    def test_equal_copies_are_left_alone(self, monkeypatch):
        for result in succeeded(self.start(monkeypatch, lambda rank: self.module().state_dict())):
            assert result == ()

    def test_an_optimizer_with_its_state(self, monkeypatch):
        ranks = {}

        def make(number):
            rank = ranks[number] = Rank()
            if number == 2:
                CHANGES["exp_avg of weight"](rank)
            return rank.optimizer

        succeeded(self.start(monkeypatch, make))
        assert len({rank.root for rank in ranks.values()}) == 1

    def test_without_a_majority_it_stops(self, monkeypatch):
        for error in self.start(monkeypatch, lambda rank: self.module(seed=rank)):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == ()
            assert "rank 0 and rank 1 and rank 2 differ, and no majority" in said(error)
            assert "at step 0: give most ranks the same" in said(error)

    def test_other_tensors_stop_it(self, monkeypatch):
        def make(rank):
            torch.manual_seed(0)
            return torch.nn.Linear(3, 3 if rank == 0 else 2)

        for error in self.start(monkeypatch, make):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (0,)

    @pytest.mark.parametrize("params", [3, "model", torch.zeros(2), {"a": 1}, [("a", None)]])
    def test_other_things_are_refused(self, params):
        with pytest.raises(TypeError, match=r"params must be|takes tensors"):
            hb.broadcast_majority(params)

    def test_one_rank_has_nothing_to_compare(self):
        assert hb.broadcast_majority(self.module()) == ()


class TestTheOptimizer:
    def test_the_argument(self):
        weight = torch.nn.Parameter(torch.ones(3))
        with pytest.raises(ValueError, match='must be "repair" or "stop", got \'ignore\''):
            hb.DistributedOptimizer(torch.optim.SGD([weight], lr=0.1), on_state_mismatch="ignore")
        optimizer = hb.DistributedOptimizer(torch.optim.SGD([weight], lr=0.1))
        assert optimizer.on_state_mismatch == "repair"
        optimizer.on_state_mismatch = "stop"
        assert copy.deepcopy(optimizer).on_state_mismatch == "stop"
        assert repair.checked("stop") == "stop"

    def test_only_buffers_without_an_aggregate_are_compared(self):
        module = torch.nn.BatchNorm1d(3)
        module.register_buffer("mask", torch.tensor([True, False, True]))
        optimizer = hb.DistributedOptimizer(
            torch.optim.SGD(module.parameters(), lr=0.1), buffers=module.named_buffers()
        )
        assert [leaf.name for leaf in optimizer._leaves() if leaf.kind == "buffer"] == ["mask"]
