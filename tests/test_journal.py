"""The ledger's file, and what else hears of evidence at once: log, callback, boards."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.collect import EquivocationError, HeaderMismatchError, JoinedRanksError, LateRanksError
from horovod_byz.collect.pace import RankPace
from horovod_byz.host.place import Place
from horovod_byz.ledger import appended, endings
from horovod_byz.ledger.boards import Prometheus, TensorBoard
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.journal import FIRST, MOST, Budget
from horovod_byz.ledger.records import FORMAT, WINDOWS
from horovod_byz.ledger.slow import WINDOW
from horovod_byz.ledger.windows import length_of
from horovod_byz.optimizer import recording
from rank_jobs import environment

PLACES = [Place(rank, (rank,), f"h{rank}", rank, f"cuda:{rank} NVIDIA H200 GPU-5d3f") for rank in range(4)]


@pytest.fixture(autouse=True)
def no_other_ledgers(monkeypatch):
    """Endings of this process are of no ledger of another test."""
    monkeypatch.setattr(endings._Process, "ledgers", {})


@dataclass
class Result:
    """A step of four workers."""

    bad: dict = field(default_factory=dict)  # worker -> reason
    compute: tuple = (0.1, 0.1, 0.1, 0.1)
    timings: dict = field(default_factory=lambda: {"collect": 0.5, "aggregate": 0.25})

    @property
    def verdicts(self):
        return [Verdict(w, 0.25, 0, float(w), self.bad.get(w, "")) for w in range(4)]

    @property
    def paces(self):
        return [RankPace(rank, seconds, 0.02, 0.01) for rank, seconds in enumerate(self.compute)]


def bound(path=None, rank=0, **options):
    ledger = hb.Ledger(path, **options)
    ledger.bind(PLACES, rank, workers=4, rule="Median()", collect="symmetric", groups=None, f=1)
    return ledger


def records(path, kind=None, name="ledger.jsonl"):
    lines = (path / name).read_text().splitlines()
    return [record for record in map(json.loads, lines) if kind in (None, record["record"])]


def proof(step, worker=3, reason="non-finite", detail=""):
    return Evidence(step, "proof", reason, worker, worker, detail)


class TestFile:
    def test_begins_with_who_takes_part(self, tmp_path):
        bound(tmp_path / "runs" / "a")
        (run,) = records(tmp_path / "runs" / "a")
        assert run["record"] == "run"
        assert run["format"] == FORMAT
        assert run["resumed"] is False
        assert (run["workers"], run["rule"], run["collect"], run["f"]) == (4, "Median()", "symmetric", 1)
        assert run["places"][2] == {**vars(PLACES[2]), "workers": [2]}

    def test_evidence_is_there_at_once(self, tmp_path):
        ledger = bound(tmp_path)
        ledger.add(Result({3: "non-finite"}), 7)
        (entry,) = records(tmp_path, "evidence")
        assert (entry["step"], entry["worker"], entry["rank"], entry["reason"]) == (7, 3, 3, "non-finite")

    def test_windows_hold_means(self, tmp_path):
        ledger = bound(tmp_path)
        for step in range(20):
            ledger.add(Result({3: "outvoted"} if step == 4 else {}), step)
        (window,) = records(tmp_path, "window")
        assert (window["first"], window["last"]) == (0, 19)
        assert window["workers"][3] == {
            "worker": 3,
            "weight": 0.25,
            "distance": 3.0,
            "norm": window["workers"][3]["norm"],
            "measured": 20,
            "proofs": 1,
            "suspicion": window["workers"][3]["suspicion"],
        }
        assert window["phases"] == {"collect": 0.5, "aggregate": 0.25, "compute": 0.1, "apply": 0.02}
        assert window["ranks"][1] == {"rank": 1, "wait": 0.01, "compute": 0.1}
        (totals,) = records(tmp_path, "totals")
        assert totals["report"]["steps"] == 20

    def test_numbers_that_are_not_finite_are_null(self, tmp_path):
        ledger = bound(tmp_path)
        for step in range(20):
            result = hb.aggregate(np.array([[1.0], [2.0], [np.nan]]), hb.Median())
            ledger.add(result, step)
        text = (tmp_path / "ledger.jsonl").read_text()
        assert "NaN" not in text
        assert records(tmp_path, "window")[0]["workers"][2]["distance"] is None

    def test_other_ranks_write_nothing_while_all_is_well(self, tmp_path):
        ledger = bound(tmp_path, rank=2)
        for step in range(40):
            ledger.add(Result({3: "non-finite"}), step)
        ledger.end()
        assert list(tmp_path.iterdir()) == []

    def test_the_end(self, tmp_path):
        ledger = bound(tmp_path)
        for step in range(5):
            ledger.add(Result(), step)
        ledger.end()
        ledger.end()
        kinds = [record["record"] for record in records(tmp_path)]
        assert kinds == ["run", "window", "totals", "end"]
        assert records(tmp_path, "end")[0]["reason"] == ""

    @pytest.mark.parametrize("rank", [0, 2])
    def test_every_rank_says_by_which_error_it_ends(self, tmp_path, rank):
        ledger = bound(tmp_path, rank=rank)
        ledger.add(Result({3: "non-finite"}), 0)
        ledger.end("LateRanksError: rank 1 did not arrive", [1])
        ledger.end("LateRanksError: rank 1 did not arrive", [1])  # the step said it, and now the script does
        ledger.end()  # and Python ends
        own = records(tmp_path, name=f"ledger.rank{rank}.jsonl")
        assert [record["record"] for record in own] == ["run", "evidence", "totals", "end"]
        assert own[-1]["ranks"] == [1]
        assert own[-1]["reason"] == "LateRanksError: rank 1 did not arrive"

    def test_a_run_that_went_on_says_its_later_end(self, tmp_path):
        ledger = bound(tmp_path)
        ledger.end("LateRanksError: x", [1])
        ledger.bind(PLACES)
        ledger.add(Result(), 0)
        ledger.end()
        assert records(tmp_path, "end")[-1]["reason"] == ""


class TestAnotherRunInTheFolder:
    def test_stays(self, tmp_path):
        for _ in range(2):
            bound(tmp_path).add(Result({3: "non-finite"}), 0)
        kinds = [record["record"] for record in records(tmp_path)]
        assert kinds == ["run", "evidence", "run", "evidence"]
        assert [run["resumed"] for run in records(tmp_path, "run")] == [False, False]

    def test_a_resumed_run_says_so(self, tmp_path):
        first = bound(tmp_path)
        first.add(Result(), 0)
        second = hb.Ledger(tmp_path)
        second.load_state_dict(first.state_dict())
        second.bind(PLACES)
        assert [run["resumed"] for run in records(tmp_path, "run")] == [False, True]

    def test_half_a_line_of_a_killed_run_goes(self, tmp_path):
        bound(tmp_path)
        with (tmp_path / "ledger.jsonl").open("a") as file:
            file.write('{"record": "evid')
        bound(tmp_path)
        assert len(records(tmp_path, "run")) == 2


class TestBounds:
    def test_windows_grow(self):
        lengths = [length_of(number) for number in range(WINDOWS)]
        assert lengths[:200] == [20] * 200
        assert all(a <= b for a, b in itertools.pairwise(lengths))
        assert all(b <= 1.2 * a for a, b in itertools.pairwise(lengths))
        assert sum(lengths) > 1e9
        assert length_of(WINDOWS + 3) > 2 * length_of(WINDOWS + 1)

    def test_evidence_is_bounded_and_totals_count_all(self, tmp_path):
        ledger = bound(tmp_path)
        for step in range(20 * FIRST):
            ledger.add(Result({1: "outvoted", 3: "non-finite"}), step)
        ledger.add(Result({2: "non-finite"}), 20 * FIRST)
        written = records(tmp_path, "evidence")
        windows = len(records(tmp_path, "window"))
        assert 2 * FIRST < len(written) <= 2 * FIRST + 2 * 2 * windows + 3
        assert written[-1]["worker"] == 2  # a new culprit is always written
        ledger.end()
        totals = records(tmp_path, "totals")[-1]
        assert totals["report"]["workers"][3]["reasons"] == {"non-finite": 20 * FIRST}
        assert totals["evidence_left_out"] + len(written) == 2 * 20 * FIRST + 1

    def test_so_it_is_with_very_many_culprits(self):
        budget = Budget()
        allowed = sum(budget.allows(proof(step, worker)) for step in range(20) for worker in range(1000))
        assert MOST <= allowed <= MOST + 1000 + 64


class TestDisk:
    @pytest.mark.parametrize("where", ["file", "missing/file/x"])
    def test_a_folder_that_cannot_be_made_is_an_error_at_once(self, tmp_path, where):
        (tmp_path / "file").write_text("")
        (tmp_path / "missing").write_text("")
        with pytest.raises(OSError, match=r"the ledger cannot be written .*: name a folder") as caught:
            hb.Ledger(tmp_path / where)
        assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)

    def test_so_is_a_full_disk(self, tmp_path, monkeypatch):
        if not os.access("/dev/full", os.W_OK):
            pytest.skip("no /dev/full here")
        real, full = pathlib.Path.write_bytes, pathlib.Path("/dev/full")
        monkeypatch.setattr(pathlib.Path, "write_bytes", lambda path, data: real(full, data))
        with pytest.raises(OSError, match=r"No space left.*on a disk with room"):
            hb.Ledger(tmp_path / "x")

    def test_an_error_of_a_write_is_reported_once_and_training_goes_on(self, tmp_path, caplog, monkeypatch):
        ledger = bound(tmp_path)
        real = os.write

        def full(fd, data):
            real(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(appended.os, "write", full)
        with caplog.at_level(logging.ERROR, "horovod_byz"):
            for step in range(45):
                ledger.add(Result({3: "non-finite"}), step)
        monkeypatch.undo()
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "No space left" in errors[0].getMessage()
        assert [record["record"] for record in records(tmp_path)] == ["run"]  # no half line is left
        ledger.end()
        assert records(tmp_path, "totals")[-1]["report"]["steps"] == 45


class TestLog:
    def lines(self, caplog):
        return [record.getMessage() for record in caplog.records if record.name == "horovod_byz"]

    def test_names_worker_rank_host_device_step_and_reason_once(self, caplog):
        ledger = bound()
        for step in range(30, 40):
            ledger.add(Result({3: "non-finite"}), step)
        (line,) = self.lines(caplog)
        for part in ("worker 3", "rank 3", "host h3", "cuda:3 NVIDIA H200", "step 30", "non-finite"):
            assert part in line

    def test_again_for_another_reason(self, caplog):
        ledger = bound()
        for reason in ("non-finite", "outvoted", "non-finite"):
            ledger.add(Result({3: reason}))
        assert len(self.lines(caplog)) == 2

    @pytest.mark.parametrize("rank", [None, 1])
    def test_only_on_rank_0_of_a_job(self, caplog, rank):
        ledger = hb.Ledger() if rank is None else bound(rank=rank)
        ledger.add(Result({3: "non-finite"}))
        assert self.lines(caplog) == []

    def test_what_a_peer_sent_is_one_line(self, caplog):
        bound().enter(proof(1, detail="a\nb\x1b[31m"))
        assert "(a?b?[31m)" in self.lines(caplog)[0]


class TestCallback:
    def test_gets_evidence_on_every_rank(self):
        for rank in (0, 2):
            heard = []
            bound(rank=rank, on_verdict=heard.append).add(Result({3: "non-finite"}), 5)
            assert [(e.step, e.worker, e.rank) for e in heard] == [(5, 3, 3)]

    def test_what_it_raises_ends_the_step_after_all_others_heard(self, tmp_path):
        def stop(evidence):
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            bound(tmp_path, on_verdict=stop).add(Result({3: "non-finite"}))
        assert len(records(tmp_path, "evidence")) == 1

    def test_must_be_a_function(self):
        with pytest.raises(TypeError, match="on_verdict must be a function"):
            hb.Ledger(on_verdict="print")

    def test_beside_a_ledger_is_refused_with_the_remedy(self):
        model = torch.nn.Linear(2, 2)
        with pytest.raises(TypeError, match=r"hb\.Ledger\(path, on_verdict"):
            hb.DistributedOptimizer(
                torch.optim.SGD(model.parameters(), 0.1), ledger=hb.Ledger(), on_verdict=print
            )


def slow_in(ledger):
    return [(e.rank, e.kind) for e in ledger.evidence if e.reason == "slow"]


class TestSlowRanks:
    def run(self, *phases):
        ledger = bound()
        for compute in phases:
            for _ in range(WINDOW):
                ledger.add(Result(compute=compute))
        return ledger

    EVEN = (0.2, 0.2, 0.2, 0.2)

    def test_slower_than_the_others(self):
        ledger = self.run((0.2, 0.2, 0.5, 0.2))
        assert slow_in(ledger) == [(2, "notice")]
        assert "0.5 s a step, the median of the others 0.2 s" in ledger.evidence[-1].detail

    def test_once_until_it_was_not(self):
        slow = (0.2, 0.2, 0.5, 0.2)
        assert len(slow_in(self.run(slow, slow, slow))) == 1
        assert len(slow_in(self.run(slow, self.EVEN, slow))) == 2

    def test_slower_than_in_its_own_past(self):
        """Rank 0 has the smaller half of the work: with the others' pace it is slow by its own past."""
        ledger = self.run((0.1, 0.2, 0.2, 0.2), (0.25, 0.2, 0.2, 0.2))
        assert slow_in(ledger) == [(0, "notice")]
        assert "and 0.1 s before" in ledger.evidence[-1].detail

    def test_not_when_all_get_slower(self):
        assert slow_in(self.run((0.1, 0.2, 0.2, 0.2), (0.5, 0.6, 0.6, 0.6))) == []

    def test_not_for_noise(self):
        assert slow_in(self.run((0.001, 0.001, 0.009, 0.001))) == []

    def test_not_for_a_checkpoint_now_and_then(self):
        ledger = bound()
        for step in range(5 * WINDOW):
            ledger.add(Result(compute=(5.0 if step % 3 == 0 else 0.2, 0.2, 0.2, 0.2)))
        assert slow_in(ledger) == []

    def test_a_dedicated_root_is_no_worker(self):
        ledger = hb.Ledger()
        ledger.bind([Place(0, ()), *(Place(rank, (rank - 1,)) for rank in (1, 2, 3))])
        for _ in range(WINDOW):
            ledger.add(Result(compute=(9.0, 0.2, 0.2, 0.2)))
        assert slow_in(ledger) == []

    def test_it_is_no_verdict(self):
        ledger = self.run((0.2, 0.2, 0.5, 0.2))
        assert ledger.suspects == ()


class TestErrorsBetweenRanks:
    @pytest.fixture(autouse=True)
    def of_four(self, monkeypatch):
        monkeypatch.setattr(recording, "ranks", lambda: (0, 4))

    def entered(self, error, tmp_path):
        ledger = bound(tmp_path)
        with pytest.raises(type(error)), recording.recorded(ledger, lambda: 9):
            raise error
        (end,) = records(tmp_path, "end", "ledger.rank0.jsonl")
        assert end["ranks"] == list(error.ranks)
        assert type(error).__name__ in end["reason"]
        return [(e.step, e.kind, e.reason, e.worker, e.rank) for e in ledger.evidence]

    def test_a_header(self, tmp_path):
        error = HeaderMismatchError("rank 2 would send something else", [2])
        assert self.entered(error, tmp_path) == [(9, "proof", "header", 2, 2)]

    def test_two_stories(self, tmp_path):
        error = EquivocationError("rank 2 gave different ranks different headers", [2])
        assert self.entered(error, tmp_path) == [(9, "proof", "two stories", 2, 2)]

    def test_of_two_that_contradict_one_another_none_is_proven_wrong(self, tmp_path):
        error = EquivocationError("ranks 2 and 3 contradict one another", [2, 3])
        error.doubtful = (2, 3)
        assert self.entered(error, tmp_path) == []

    def test_half_of_the_ranks_are_no_minority(self, tmp_path):
        assert self.entered(HeaderMismatchError("ranks 2 and 3", [2, 3]), tmp_path) == []

    def test_hvd_join_is_a_mistake_of_the_script(self, tmp_path):
        assert self.entered(JoinedRanksError("rank 2 called hvd.join()", [2]), tmp_path) == []

    def test_a_late_rank_with_workers_is_entered_by_them(self, tmp_path):
        assert self.entered(LateRanksError("rank 2 did not arrive", [2]), tmp_path) == []

    def test_a_late_root_has_none(self, tmp_path):
        ledger = bound(tmp_path)
        ledger.places = (Place(0, ()), *PLACES[1:])
        with pytest.raises(LateRanksError), recording.recorded(ledger, lambda: 9):
            raise LateRanksError("rank 0 did not arrive", [0])
        assert [(e.reason, e.worker, e.rank) for e in ledger.evidence] == [("late", None, 0)]


def optimizer(tmp_path, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, hb.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), 0.1), model.named_parameters(), ledger=tmp_path, **options
    )


def steps(model, wrapped, count):
    for _ in range(count):
        wrapped.zero_grad()
        model(torch.ones(4, 3)).square().mean().backward()
        wrapped.step()


def broken(block, offset, d, step):
    if step % 3 == 0:
        block[0, 0] = np.nan


class TestOptimizer:
    def test_writes_its_run(self, tmp_path):
        model, wrapped = optimizer(tmp_path / "a", rule=hb.Median())
        steps(model, wrapped, 21)
        run, window = records(tmp_path / "a", "run")[0], records(tmp_path / "a", "window")[0]
        assert (run["rule"], run["collect"], run["workers"]) == ("Median()", "symmetric", 1)
        assert run["places"][0]["device"] == "cpu"
        assert window["phases"].keys() >= {"collect", "aggregate", "compute", "apply"}
        assert window["phases"]["apply"] > 0

    def test_what_is_entered_is_logged_called_and_written(self, tmp_path, caplog):
        heard = []
        model, wrapped = optimizer(tmp_path, wire=broken, on_verdict=heard.append)
        with pytest.warns(UserWarning, match="step left out"):
            steps(model, wrapped, 7)
        assert [e.step for e in heard if e.reason == "overflow"] == [0, 3, 6]  # of one worker, a majority
        assert [e["step"] for e in records(tmp_path, "evidence") if e["reason"] == "overflow"] == [0, 3, 6]
        assert sum("overflow" in line for line in caplog.messages) == 1

    def test_a_replaced_ledger_knows_the_run(self, tmp_path):
        model, wrapped = optimizer(tmp_path / "a")
        steps(model, wrapped, 1)
        wrapped.ledger = hb.Ledger(tmp_path / "b")
        steps(model, wrapped, 1)
        assert records(tmp_path / "b", "run")[0]["workers"] == 1
        assert wrapped.ledger.rank == 0

    @pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
    def test_a_copy_goes_on_writing(self, tmp_path, copier):
        model, wrapped = optimizer(tmp_path, on_verdict=print)
        steps(model, wrapped, 3)
        twin_model, twin = copier((model, wrapped))
        steps(twin_model, twin, 20)
        steps(model, wrapped, 20)
        runs = records(tmp_path, "run")
        assert [run["resumed"] for run in runs] == [False, True]
        assert len(records(tmp_path, "window")) == 3  # the copy's last steps before it was bound, and both

    def test_an_unwritable_folder_is_an_error_of_the_constructor(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="the ledger cannot be written"):
            optimizer(tmp_path / "file")


class TestSharedFolder:
    """Two runs in one folder at once were written without a word, and the report took them for one."""

    def test_two_ledgers_of_a_process(self, tmp_path, caplog):
        first, second = bound(tmp_path), bound(tmp_path)
        for step in range(3):
            second.add(Result(), step)
        assert not caplog.records
        for step in range(3):
            first.add(Result(), step)
        (record,) = caplog.records
        assert "give each optimizer a folder of its own" in record.message

    def test_a_ledger_that_took_the_place_of_another(self, tmp_path, caplog):
        bound(tmp_path).add(Result(), 0)
        second = bound(tmp_path)
        second.add(Result(), 1)
        third = copy.deepcopy(second)
        third.bind(PLACES, 0)
        third.add(Result(), 2)
        assert not caplog.records

    def test_two_processes(self, tmp_path, caplog):
        holds = (
            "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
            "print(flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", holds, str(tmp_path / "ledger.jsonl")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            ledger = bound(tmp_path)
            assert not caplog.records  # it may be a process that ends
            for step in range(3):
                ledger.enter(proof(step, reason="late"))
            other.stdin.close()
        assert [r.levelname for r in caplog.records if "another process" in r.message] == ["ERROR"]
        assert len(records(tmp_path, "evidence")) == 3

    def test_a_rank_that_is_no_longer_rank_0_lets_go(self, tmp_path):
        ledger = bound(tmp_path)
        ledger.bind(PLACES, 1)
        takes = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        subprocess.run([sys.executable, "-c", takes, str(tmp_path / "ledger.jsonl")], check=True)


class TestTensorBoard:
    def test_scalars_and_evidence(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        ledger = bound(listeners=[TensorBoard(tmp_path)])
        for step in range(41):
            ledger.add(Result({3: "non-finite"} if step in (2, 4) else {}), step)
        ledger.end()
        events = EventAccumulator(str(tmp_path)).Reload()
        assert [point.step for point in events.Scalars("weight/worker 3")] == [0, 20, 40]
        assert [point.value for point in events.Scalars("evidence/worker 3")] == [1.0, 2.0]
        assert events.Scalars("seconds/compute, rank 2")[0].value == pytest.approx(0.1)
        assert any("evidence" in tag for tag in events.Tags()["tensors"])

    def test_other_ranks_write_nothing(self, tmp_path):
        pytest.importorskip("tensorboard")
        bound(rank=1, listeners=[TensorBoard(tmp_path / "b")]).add(Result({3: "non-finite"}), 0)
        assert not (tmp_path / "b").exists()

    def test_a_writer_is_used_and_a_copy_has_its_own(self, tmp_path):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        board = TensorBoard(SummaryWriter(tmp_path))
        assert pickle.loads(pickle.dumps(board))._folder == tmp_path

    def test_a_full_disk_does_not_end_the_run(self, tmp_path, caplog, monkeypatch):
        """Before 0.2: the writer's OSError ended rank 0's step, and the other ranks named rank 0 as late."""
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        ledger = bound(listeners=[TensorBoard(tmp_path)])
        with monkeypatch.context() as disk:
            for name in ("add_scalar", "add_text", "flush"):
                disk.setattr(SummaryWriter, name, full)
            for step in range(41):
                ledger.add(Result({3: "non-finite"} if step % 10 == 2 else {}), step)
            ledger.end()
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert "training goes on" in errors[0].message
        ledger.add(Result(), 60)
        ledger.end()
        assert [p.step for p in EventAccumulator(str(tmp_path)).Reload().Scalars("weight/worker 3")] == [60]


class TestPrometheus:
    def test_the_step_is_the_last_one_at_the_end(self, tmp_path):
        """It stayed at the last multiple of `every`."""
        pytest.importorskip("prometheus_client")
        ledger = bound(listeners=[Prometheus(tmp_path / "a.prom")])
        for step in range(27):
            ledger.add(Result(), step)
        ledger.end()
        assert "horovod_byz_step 26.0" in (tmp_path / "a.prom").read_text()

    def test_the_file_is_what_the_collector_reads(self, tmp_path):
        parser = pytest.importorskip("prometheus_client.parser")
        ledger = bound(listeners=[Prometheus(tmp_path / "a.prom")])
        for step in range(21):
            ledger.add(Result({3: "non-finite"} if step in (2, 4) else {}), step)
        families = {
            f.name: f for f in parser.text_string_to_metric_families((tmp_path / "a.prom").read_text())
        }
        (evidence,) = families["horovod_byz_evidence"].samples
        assert evidence.value == 2
        assert evidence.labels == {
            "kind": "proof",
            "reason": "non-finite",
            "worker": "3",
            "rank": "3",
            "host": "h3",
            "device": "cuda:3 NVIDIA H200 GPU-5d3f",
        }
        assert families["horovod_byz_step"].samples[0].value == 20
        assert {s.labels["rank"]: s.value for s in families["horovod_byz_compute_seconds"].samples}[
            "2"
        ] == 0.1
        assert list(tmp_path.iterdir()) == [tmp_path / "a.prom"]  # no temporary file is left

    def test_evidence_is_written_at_once(self, tmp_path):
        pytest.importorskip("prometheus_client")
        bound(listeners=[Prometheus(tmp_path / "a.prom")]).enter(proof(1))
        assert "horovod_byz_evidence{" in (tmp_path / "a.prom").read_text()

    def test_a_disk_that_fails_does_not_end_the_run(self, tmp_path, caplog):
        pytest.importorskip("prometheus_client")
        ledger = bound(listeners=[Prometheus(tmp_path / "missing" / "a.prom")])
        for step in range(41):
            ledger.add(Result(), step)
        assert sum("cannot write" in line for line in caplog.messages) == 1

    def test_another_ending_is_refused(self, tmp_path):
        pytest.importorskip("prometheus_client")
        with pytest.raises(ValueError, match=r"\.prom only"):
            Prometheus(tmp_path / "a.txt")


SCRIPT = """
import sys, torch, numpy as np, horovod_byz as hb

def broken(block, offset, d, step):
    if step % 3 == 0:
        block[0, 0] = np.nan

model = torch.nn.Linear(3, 2)
optimizer = hb.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), 0.1), ledger=sys.argv[1], wire=broken
)
for step in range(int(sys.argv[2])):
    optimizer.zero_grad()
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    if step == 50:
        print("there", flush=True)
exec(sys.argv[3])
"""


def script(tmp_path, count, end):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path), str(count), end]
    env = {**os.environ, **environment()}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestProcess:
    def test_kill_9_leaves_whole_lines(self, tmp_path):
        process = script(tmp_path, 10**9, "")
        try:
            assert process.stdout.readline() == "there\n"
            while_it_runs = records(tmp_path)
            process.kill()
        finally:
            process.kill()
            process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        kinds = {record["record"] for record in while_it_runs}
        assert kinds == {"run", "evidence", "window", "totals"}
        after = records(tmp_path)
        assert after[: len(while_it_runs)] == while_it_runs
        steps_named = [e["step"] for e in after if e["record"] == "evidence" and e["reason"] == "overflow"]
        assert steps_named[:10] == list(range(0, 30, 3))

    @pytest.mark.parametrize(
        ("end", "name", "reason"),
        [
            ("", "ledger.jsonl", ""),
            ("raise ValueError('the data is gone')", "ledger.rank0.jsonl", "ValueError: the data is gone"),
        ],
    )
    def test_how_a_script_ends_is_in_the_file(self, tmp_path, end, name, reason):
        process = script(tmp_path, 25, end)
        errors = process.communicate(timeout=100)[1]
        assert ("Traceback" in errors) == bool(reason)
        assert records(tmp_path, "end", name)[-1]["reason"] == reason
        assert records(tmp_path, "totals")[-1]["report"]["steps"] == 25
        assert errors.count("notice at step 0: overflow") == 1  # on screen, without any setting of logging
