"""Checkpoints: a damaged one is never trusted, each case ends in one sentence; and resuming to more steps."""

import errno
import gzip
import math
import os
import pickle
import re
import shutil
import signal
import threading

import pytest
import torch
from blake3 import blake3

import horovod_byz as hb
from horovod_byz.common.atomic import replace_file
from horovod_byz.ledger.history import read
from horovod_byz.training import checkpoint, models
from horovod_byz.training import config as configs
from horovod_byz.training.alone import alone
from horovod_byz.training.checkpoint import CheckpointError
from horovod_byz.training.data import load_dataset
from horovod_byz.training.progress import Silent
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import CHECKPOINTS, RunError, RunFolder
from horovod_byz.training.train import Launch, Stopped, train
from horovod_byz.training.trainer import Trainer
from thread_ranks import on_ranks_that_fail
from training import as_of_0_2, contents

SMALL = {
    "steps": 12,
    "workers": 4,
    "byzantine": 1,
    "attack": "omniscient",
    "rule": "median",
    "model": "mlp:width=4",
    "data": {"name": "digits", "batch": 4},
    "optimizer": {"momentum": 0.9},
    "evaluate_every": 5,
}
CURRENT, PREVIOUS = CHECKPOINTS


def small(**changes):
    return configs.make(SMALL | changes)


class Recorder(Silent):
    """Keeps the notes; with a step, presses Ctrl-C there."""

    def __init__(self, stop_at=None):
        self.notes, self.stop_at = [], stop_at

    def note(self, text):
        self.notes.append(text)

    def update(self, step, values):
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(small(), Launch(folder))
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The same run, stopped at step 7 with a checkpoint of step 6 before."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(Stopped):
        train(small(), Launch(folder, checkpoint_every=3), reporter=Recorder(stop_at=7))
    return folder


def test_the_workers_momentum_goes_on(tmp_path):
    whole, folder, momentum = tmp_path / "whole", tmp_path / "run", {"worker_momentum": 0.9}
    train(small(**momentum), Launch(whole))
    with pytest.raises(Stopped):
        train(small(**momentum), Launch(folder), reporter=Recorder(stop_at=7))
    state = RunFolder(folder).path / CURRENT
    momenta = checkpoint.read(state)[0]["momentum"]
    assert len(momenta) == 4
    assert momenta.abs().sum(1).min() > 0
    resumed(folder, **momentum)
    assert contents(folder) == contents(whole)
    blank = Trainer(small(**momentum), load_dataset("digits"), Ranks()).blank()
    complete, _ = checkpoint.read(state)
    checkpoint.check(complete, state, blank, 12)
    for damaged, message in (
        ({"momentum": None}, "lacks momentum"),
        ({"momentum": momenta[:3]}, "holds momentum of shape"),
        ({"momentum": momenta * math.inf}, "momentum that is not finite"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoint.check(complete | damaged, state, blank, 12)


def test_what_a_rule_remembers_goes_on(tmp_path):
    whole, folder, rule = tmp_path / "whole", tmp_path / "run", {"rule": "centered-clipping:tau=0.1"}
    train(small(**rule), Launch(whole))
    with pytest.raises(Stopped):
        train(small(**rule), Launch(folder), reporter=Recorder(stop_at=7))
    last = checkpoint.read(folder / CURRENT)[0]["last_aggregate"]
    assert 0 < last.norm() < 1
    resumed(folder, **rule)
    assert contents(folder) == contents(whole)
    blank = Trainer(small(**rule), load_dataset("digits"), Ranks()).blank()
    complete, _ = checkpoint.read(folder / CURRENT)
    checkpoint.check(complete, folder, blank, 12)
    with pytest.raises(CheckpointError, match="holds last_aggregate of shape"):
        checkpoint.check(complete | {"last_aggregate": last[:3]}, folder, blank, 12)


@pytest.fixture
def run(interrupted, tmp_path):
    """A copy of the interrupted run that a test may damage."""
    return shutil.copytree(interrupted, tmp_path / "run")


@pytest.fixture(scope="module")
def blank():
    """What a checkpoint of the run must be like."""
    return Trainer(small(), load_dataset("digits"), Ranks()).blank()


def resumed(folder, **changes):
    """The notes of resuming."""
    recorder = Recorder()
    train(small(**changes), Launch(folder, resume=True), reporter=recorder)
    return recorder.notes


def entered(steps, **changes):
    """The state of a ledger with one account."""
    ledger = hb.Ledger()
    ledger.steps = steps
    ledger.absent([changes.pop("worker", 0)])
    state = ledger.state_dict()
    state["accounts"][0].update(changes)
    return state


def reseal(path, **changes):
    """Write a checkpoint with some entries changed, and the right digest."""
    state, _ = checkpoint.read(path)
    path.write_bytes(checkpoint.pack(state | changes))


def test_the_two_last_checkpoints_are_kept_and_torch_reads_them(interrupted):
    steps = [torch.load(interrupted / name, weights_only=True)["step"] for name in CHECKPOINTS]
    assert steps == [7, 6]


def test_no_bit_changes_unnoticed(interrupted, tmp_path):
    content = (interrupted / CURRENT).read_bytes()
    path = tmp_path / "checkpoint.pt"
    last = 8 * len(content)
    for bit in [*range(0, last, 1009), *range(last - 8 * 100, last)]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt (is damaged|has no digest)"):
            checkpoint.read(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: content[:-1], "has no digest: it was cut short"),
        (lambda content: content[: len(content) // 2], "has no digest: it was cut short"),
        (lambda content: content[1:], "is damaged"),
        (lambda content: content + b"\0", "has no digest"),
        (lambda content: content + content, "is damaged"),
        (lambda content: b"nonsense", "has no digest"),
        (lambda content: pickle.dumps({"step": 1}), "has no digest: .*an earlier version wrote it"),
    ],
)
def test_a_damaged_checkpoint_falls_back_with_a_warning_or_gives_a_clear_error(run, whole, damage, message):
    path = run / CURRENT
    path.write_bytes(damage(path.read_bytes()))
    alone = shutil.copytree(run, run.with_name("alone"))
    (alone / PREVIOUS).unlink()
    with pytest.raises(RunError, match=f"checkpoint.pt {message}.*start the run anew with --overwrite"):
        resumed(alone)
    assert path.read_bytes() == (alone / CURRENT).read_bytes(), "what may be repaired is left alone"
    (note,) = resumed(run)
    assert note.startswith(f"Warning: {path} ")
    assert "Continuing from the checkpoint before it, checkpoint.previous.pt of step 6" in note
    assert contents(run) == contents(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 10**9}, "is of step 1000000000, and the run has steps 0 to 12"),
        ({"step": -5}, "is of step -5"),
        ({"step": True}, "holds a bool as step"),
        ({"step": "7"}, "holds a str as step"),
        ({"evaluated": 9}, "was evaluated at step 9, and is of step 7"),
        ({"diverged_at": 8}, "diverged at step 8, and is of step 7"),
        ({"config": "0" * 64}, "belongs to a run with another configuration"),
        ({"model": {}}, r"holds the parameters of another model: 1\.bias, 1\.weight, 3\.bias"),
        ({"model": {"1.weight": 3}}, r"holds the parameters of another model: 1\.bias, 3\.bias"),
        ({"parameters": ["1.weight"]}, "holds the state of another optimizer"),
        ({"losses": torch.zeros(4, 3)}, r"holds losses of shape \(4, 3\) and torch.float32"),
        ({"ledger": {}}, "holds no verdicts of its step"),
        ({"ledger": {"byzantine": hb.Ledger().state_dict()}}, "holds no verdicts of its step"),
        ({"ledger": {"byzantine": {"steps": 7, "accounts": [3]}}}, "holds no verdicts of its step"),
        ({"ledger": {"byzantine": entered(7, worker=4)}}, "holds no verdicts of its step"),
        ({"ledger": {"byzantine": entered(7, weight=math.inf)}}, "holds verdicts that are not finite"),
        ({"optimizer": {"state": {}}}, "holds the state of another optimizer"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, "holds the state of another optimizer"),
        ({"optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}}, "holds a moment of the"),
        ({"optimizer": {}}, "holds no state of an optimizer"),
        ({"metrics": "{"}, "holds metrics that are no JSON lines"),
        ({"metrics": ""}, "holds no evaluation of step 5"),
        ({"timings": "[1]"}, "holds timings that are no JSON lines"),
    ],
)
def test_a_checkpoint_of_the_right_digest_and_the_wrong_content_is_refused(run, blank, changes, message):
    reseal(run / CURRENT, **changes)
    state, _ = checkpoint.read(run / CURRENT)
    with pytest.raises(CheckpointError, match=f"checkpoint.pt {message}"):
        checkpoint.check(state, run / CURRENT, blank, 12)


def test_a_tensor_of_the_wrong_shape_is_named(run, blank):
    state, _ = checkpoint.read(run / CURRENT)
    reseal(run / CURRENT, model={**state["model"], "3.bias": torch.zeros(3)})
    state, _ = checkpoint.read(run / CURRENT)
    with pytest.raises(
        CheckpointError, match=r"checkpoint.pt holds 3\.bias of shape \(3,\) and torch.float32"
    ):
        checkpoint.check(state, run / CURRENT, blank, 12)


def test_any_program_loads_the_model_of_a_checkpoint(interrupted):
    """It held the parameters as one vector, which nothing but the trainer could read."""
    state = torch.load(interrupted / CURRENT, weights_only=True)
    model = models.build("mlp", (1, 8, 8), 10, width=4)
    model.load_state_dict(state["model"])
    assert state["parameters"] == [name for name, _ in model.named_parameters()]


def test_every_entry_is_needed(run, blank):
    whole, _ = checkpoint.read(run / CURRENT)
    checkpoint.check(whole, run / CURRENT, blank, 12)
    for name in whole:
        state = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(CheckpointError, match=f"checkpoint.pt lacks {name}"):
            checkpoint.check(state, run / CURRENT, blank, 12)


def test_parameters_that_are_not_finite_do_not_train_on_unnoticed(run, tmp_path):
    state, _ = checkpoint.read(run / CURRENT)
    state["model"]["1.weight"][0, 5] = float("nan")
    (run / PREVIOUS).unlink()
    reseal(run / CURRENT, model=state["model"])
    with pytest.raises(RunError, match="parameters that are not finite"):
        resumed(run)
    # A run that diverged by itself says so in its checkpoint, and may be finished: with a warning.
    reseal(run / CURRENT, finite=False)
    (note,) = resumed(run)
    assert note.startswith("Warning: the parameters are not finite at step 7: the run has diverged")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / CURRENT
    path.write_bytes(checkpoint.pack({"step": Harmful()}))
    with pytest.raises(CheckpointError, match="cannot be read as tensors and plain values"):
        checkpoint.read(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("number", [2, 4])
def test_another_format_is_named(run, number):
    content = (run / CURRENT).read_bytes()[:-64].replace(b"checkpoint 3 ", b"checkpoint %d " % number)
    (run / CURRENT).write_bytes(content + blake3(content).hexdigest().encode())
    with pytest.raises(CheckpointError, match=f"has format {number}, and this version reads format 3 only"):
        RunFolder(run).load_checkpoint()


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl", "run.json"])
@pytest.mark.parametrize("content", [None, b"", b"{\x00", b"\xff\xfe"])
def test_lost_or_damaged_records_come_back_from_the_checkpoint(run, whole, name, content):
    (run / name).unlink() if content is None else (run / name).write_bytes(content)
    assert resumed(run) == []
    assert contents(run) == contents(whole)
    assert [record["step"] for record in RunFolder(run).read_lines("timings.jsonl")] == [0, 5, 10, 12]


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
def test_what_is_missing_of_a_complete_run_is_written_anew(whole, tmp_path, name):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / name).write_bytes(b"{")
    with pytest.raises(RunError, match=rf"{name} is damaged: remove it and continue the run with --resume"):
        [RunFolder(run).summary, RunFolder(run).verdicts, RunFolder(run).metrics]
    (run / name).unlink()
    assert not RunFolder(run).complete
    resumed(run)
    assert contents(run) == contents(whole)


def test_a_folder_of_0_2_is_read_and_resumed(whole, tmp_path):
    old = shutil.copytree(whole, tmp_path / "old")
    as_of_0_2(old)
    assert contents(old) == contents(whole)
    assert RunFolder(old).environment == RunFolder(whole).environment
    assert RunFolder(old).complete
    (old / "summary.json").unlink()
    assert not RunFolder(old).complete
    assert resumed(old) == []
    assert contents(old) == contents(whole)
    assert not [path for path in old.glob("*.json") if path.name != "run.json"]


def test_a_packed_run_of_0_2_is_read(whole, tmp_path):
    old = shutil.copytree(whole, tmp_path / "old")
    (old / "metrics.jsonl.gz").write_bytes(gzip.compress((old / "metrics.jsonl").read_bytes()))
    (old / "metrics.jsonl").unlink()
    assert RunFolder(old).complete
    assert RunFolder(old).metrics == RunFolder(whole).metrics
    (old / "metrics.jsonl.gz").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"metrics\.jsonl\.gz is damaged"):
        _ = RunFolder(old).metrics


def test_the_ledger_of_a_run_goes_on_where_it_stopped(run, whole):
    """Interrupted and resumed: one file, in which the resumed part follows the first."""
    resumed(run)
    ours, uninterrupted = read(run), read(whole)
    assert [len(history.bindings) for history in (ours, uninterrupted)] == [2, 1]
    assert ours.steps == uninterrupted.steps == 12
    assert ours.totals == uninterrupted.totals
    assert [end.reason for end in ours.ends] == [end.reason for end in uninterrupted.ends] == [""]


def test_an_error_ends_the_ledgers_file_with_its_reason(tmp_path, monkeypatch):
    def broken(trainer, collected):
        raise ValueError("no such thing")

    monkeypatch.setattr(Trainer, "apply", broken)
    with pytest.raises(ValueError, match="no such thing"):
        train(small(), Launch(tmp_path / "run"))
    assert {end.reason for end in read(tmp_path / "run").ends} == {"ValueError: no such thing"}


def test_a_checkpoint_that_was_lost_between_two_names_is_replaced_by_the_one_before(run, whole):
    (run / CURRENT).unlink()
    (note,) = resumed(run)
    assert "checkpoint.pt is missing. Continuing from the checkpoint before it" in note
    assert contents(run) == contents(whole)


def test_without_any_checkpoint_a_run_begins_anew_and_says_so(run, whole):
    for name in CHECKPOINTS:
        (run / name).unlink()
    assert resumed(run) == [f"{run} holds no checkpoint yet: starting from step 0"]
    assert contents(run) == contents(whole)
    fresh = run.with_name("fresh")
    assert resumed(fresh) == [f"{fresh} holds no run yet: starting a new one"]


def test_a_checkpoint_without_its_configuration_is_not_thrown_away(run):
    before = (run / CURRENT).read_bytes()
    (run / "config.toml").unlink()
    for launch in (Launch(run), Launch(run, resume=True)):
        with pytest.raises(RunError, match=r"and no config\.toml: put that back"):
            train(small(), launch)
    (run / "config.toml").write_text("steps = [")
    with pytest.raises(RunError, match=r"config\.toml is not the configuration of a run: .*Put a good copy"):
        resumed(run)
    assert (run / CURRENT).read_bytes() == before


def test_a_good_checkpoint_is_not_replaced_by_a_damaged_one(run):
    good = (run / PREVIOUS).read_bytes()
    state, _ = checkpoint.read(run / PREVIOUS)
    (run / CURRENT).write_bytes(b"damaged")
    RunFolder(run).save_checkpoint(state)
    assert (run / PREVIOUS).read_bytes() == good
    assert checkpoint.sealed((run / CURRENT).read_bytes())


# More steps.


@pytest.mark.parametrize("steps", [13, 17, 20])
def test_a_finished_run_goes_on_to_more_steps_as_if_it_had_been_asked_for_them(whole, tmp_path, steps):
    run = shutil.copytree(whole, tmp_path / "run")
    assert resumed(run, steps=steps) == []
    train(small(steps=steps), Launch(tmp_path / "long"))
    assert contents(run) == contents(tmp_path / "long")
    continued, direct = (RunFolder(folder).load_checkpoint() for folder in (run, tmp_path / "long"))
    assert all(torch.equal(part, direct["model"][name]) for name, part in continued["model"].items())
    assert torch.equal(continued["losses"], direct["losses"])


def test_an_interrupted_run_may_end_earlier_but_not_before_its_checkpoint(run, tmp_path):
    with pytest.raises(RunError, match="has done 7 steps already, and 6 were asked for: give --steps 7 or"):
        resumed(run, steps=6)
    resumed(run, steps=9)
    train(small(steps=9), Launch(tmp_path / "short"))
    assert contents(run) == contents(tmp_path / "short")


@pytest.mark.parametrize("changes", [{"seed": 1}, {"evaluate_every": 6}, {"steps": 20, "rule": "mean"}])
def test_nothing_else_may_change(run, changes):
    name, value = list(changes.items())[-1]
    with pytest.raises(RunError, match=f"{name} = .* before, .*{value}.* now.*: only steps may change"):
        resumed(run, **changes)


def test_a_run_without_checkpoint_is_not_started_over_for_more_steps(whole, tmp_path):
    run, kept = (shutil.copytree(whole, tmp_path / name) for name in ("run", "kept"))
    (run / CURRENT).unlink()
    RunFolder(kept).keep({})
    for folder in (run, kept):
        with pytest.raises(RunError, match="is complete and holds no checkpoint, so it cannot get more"):
            resumed(folder, steps=20)
        assert RunFolder(folder).summary["steps"] == 12
        (note,) = resumed(folder)
        assert "holds the complete run: to go on, give more --steps" in note


# Writing.


def failing(number):
    def fsync(handle):
        raise OSError(number, os.strerror(number))

    return fsync


def stopped(handle):
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left_behind(tmp_path, monkeypatch, number):
    path, previous = tmp_path / "file", tmp_path / "previous"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(RunError, match=rf"cannot write .*file \({os.strerror(number)}\): make room there"):
        replace_file(path, b"new", previous)
    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, b"new", previous)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", [0, 6, 12])
def test_a_full_disk_ends_a_run_with_a_clear_error_and_leaves_it_resumable(
    tmp_path, whole, monkeypatch, step
):
    class Full(Silent):
        def start(self, title, total, done):
            if step == 0:
                monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))

        def update(self, at, values):
            if at == step - 1:
                monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))

    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"cannot write .*No space left"):
        train(small(), Launch(run, checkpoint_every=3), reporter=Full())
    assert not list(run.glob(".*"))
    monkeypatch.undo()
    resumed(run)
    assert contents(run) == contents(whole)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="file is a file, not a folder: choose another folder"):
        train(small(), Launch(tmp_path / "file"))
    for launch in (Launch(tmp_path / "file", overwrite=True), Launch(tmp_path / "file" / "run")):
        with pytest.raises(RunError, match="cannot be used as a run folder"):
            train(small(), launch)
    assert (tmp_path / "file").read_text() == "mine"


def test_only_one_process_writes_a_folder(run):
    with alone(run):
        for launch in (Launch(run, resume=True), Launch(run, overwrite=True)):
            with pytest.raises(RunError, match="another process writes its run into"):
                train(small(), launch)
    resumed(run)


def test_overwriting_removes_the_runs_own_files_and_what_a_killed_process_left(run, whole):
    (run / ".metrics.jsonl.99.tmp").write_text("half")
    (run / "notes.txt").write_text("mine")
    train(small(), Launch(run, overwrite=True))
    assert sorted(path.name for path in run.iterdir()) == sorted(
        [*(path.name for path in whole.iterdir()), "notes.txt"]
    )
    (run.with_name("other")).mkdir()
    (run.with_name("other") / "config.toml").write_text("name = 'of another program'")
    with pytest.raises(RunError, match="is not the configuration of a run"):
        train(small(), Launch(run.with_name("other"), overwrite=True))
    assert [path.name for path in run.with_name("other").iterdir()] == ["config.toml"]


def test_a_run_that_does_not_begin_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="use a smaller batch"):
        train(small(data={"name": "digits", "batch": 5000}), Launch(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# Several ranks.


@pytest.fixture
def as_ranks(monkeypatch):
    """Runs `work(rank)` on ranks that are threads."""
    here, seeding, build = threading.local(), threading.Lock(), models.build

    def alone(*arguments, **options):
        with seeding:  # torch has one generator for all threads
            return build(*arguments, **options)

    monkeypatch.setattr("horovod_byz.training.models.build", alone)
    for place in ("horovod_byz.training.ranks.connect", "horovod_byz.collect.transport.connect"):
        monkeypatch.setattr(place, lambda name, timeout: here.transport)
    monkeypatch.setattr(Ranks, "local_rank", 0)
    monkeypatch.setattr("horovod_byz.training.running.describe", lambda ranks: {"ranks": ranks.size})

    def run(size, work):
        def start(transport):
            here.transport = transport
            return work(transport.rank)

        return on_ranks_that_fail(size, start)

    return run


def test_ranks_go_on_from_the_checkpoint_that_all_of_them_hold(as_ranks, interrupted, whole, tmp_path):
    for rank in range(3):
        shutil.copytree(interrupted, tmp_path / str(rank))
    (tmp_path / "1" / CURRENT).write_bytes(b"damaged")
    recorder = Recorder()

    def work(rank):
        return train(small(), Launch(tmp_path / str(rank), resume=True), reporter=recorder)

    summaries = as_ranks(3, work)
    assert summaries == [RunFolder(whole).summary] * 3
    (note,) = recorder.notes
    assert note.startswith("Warning: rank 1: ")
    assert "checkpoint.previous.pt of step 6" in note
    assert contents(tmp_path / "0") == contents(whole)


def strike(trainer, momentum):
    """Flips a bit of a rank's first parameter, or of its momentum."""
    weight = next(trainer.model.parameters())
    struck = trainer.optimizer.state[weight]["momentum_buffer"] if momentum else weight
    struck.detach().view(torch.int32).view(-1)[5] ^= 1 << 22


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("odd", [0, 2])
def test_a_damaged_state_is_in_no_checkpoint(as_ranks, whole, monkeypatch, tmp_path, odd, momentum):
    """Version 0.2.0: rank 0 wrote what it held, with the right digest, whatever the others held."""
    apply, ledgers = Trainer.apply, []

    def damaged(trainer, collected):
        apply(trainer, collected)
        if trainer.step == 6 and trainer.ranks.rank == odd:  # just before the checkpoint
            ledgers.append(trainer.ledger.whole)
            strike(trainer, momentum)

    monkeypatch.setattr(Trainer, "apply", damaged)
    with pytest.warns(UserWarning, match=rf"step 6, rank {odd}: .*1\.weight replaced by that of ranks"):
        summaries = as_ranks(3, lambda rank: train(small(), Launch(tmp_path / str(rank), checkpoint_every=6)))
    assert summaries == [RunFolder(whole).summary] * 3
    assert contents(tmp_path / "0") == contents(whole)
    (evidence,) = ledgers[0].evidence
    tensor = "momentum_buffer of 1.weight" if momentum else "1.weight"
    assert (evidence.step, evidence.rank, evidence.detail) == (6, odd, f"{tensor} differs from 2 of 3 ranks")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "rank 2 and rank 0 see different files in"),
        (
            lambda run: [(run / name).unlink() for name in CHECKPOINTS],
            "rank 2 and rank 0 do not hold the same",
        ),
        (lambda run: [(run / name).write_bytes(b"") for name in CHECKPOINTS], "rank 2: .* is empty"),
        (lambda run: (run / "config.toml").write_text("="), "config.toml is not the configuration"),
        (lambda run: reseal(run / CURRENT, timings="") or (run / PREVIOUS).unlink(), "do not hold the same"),
    ],
)
def test_what_one_rank_cannot_read_ends_all_ranks_with_the_sentence(
    as_ranks, interrupted, tmp_path, damage, message
):
    for rank in range(3):
        shutil.copytree(interrupted, tmp_path / str(rank))
    damage(tmp_path / "2")
    errors = as_ranks(3, lambda rank: train(small(), Launch(tmp_path / str(rank), resume=True)))
    assert all(isinstance(error, RunError) and re.search(message, str(error)) for error in errors), errors


def corrupt(run, change):
    for name in CHECKPOINTS:
        (run / name).write_bytes(change((run / name).read_bytes()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: corrupt(run, lambda content: content[:-100]), "has no digest: it was cut short"),
        (lambda run: corrupt(run, lambda content: content[:9] + b"?" + content[10:]), "is damaged"),
        (
            lambda run: [reseal(run / name, config="0" * 64) for name in CHECKPOINTS],
            "belongs to a run with another",
        ),
        (lambda run: [hb.save_checkpoint({"model": {}}, run / name) for name in CHECKPOINTS], "lacks config"),
    ],
)
@pytest.mark.parametrize("where", [(0, 1, 2), (1,)], ids=str)
def test_no_rank_continues_from_what_another_refuses(
    as_ranks, interrupted, tmp_path, monkeypatch, damage, message, where
):
    monkeypatch.setattr(Trainer, "load", lambda *arguments: pytest.fail("half loaded"))
    for rank in range(3):
        shutil.copytree(interrupted, tmp_path / str(rank))
    for rank in where:
        damage(tmp_path / str(rank))
    errors = as_ranks(3, lambda rank: train(small(), Launch(tmp_path / str(rank), resume=True)))
    for error in errors:
        assert isinstance(error, RunError), error
        assert re.search(f"checkpoint.pt {message}", str(error))
        assert "start the run anew with --overwrite" in str(error)


@pytest.mark.parametrize("swapped", [(0, 1, 2), (1,)], ids=str)
def test_swapped_checkpoints_lead_to_the_same_numbers_or_a_clear_error(
    as_ranks, interrupted, whole, tmp_path, swapped
):
    for rank in range(3):
        run = shutil.copytree(interrupted, tmp_path / str(rank))
        if rank in swapped:
            for name, content in zip(
                CHECKPOINTS, [(run / n).read_bytes() for n in CHECKPOINTS[::-1]], strict=True
            ):
                (run / name).write_bytes(content)
    results = as_ranks(3, lambda rank: train(small(), Launch(tmp_path / str(rank), resume=True)))
    if len(swapped) == 3:
        assert results == [RunFolder(whole).summary] * 3
        assert contents(tmp_path / "0") == contents(whole)
    else:
        assert all("rank 1 and rank 0 do not hold the same" in str(error) for error in results), results


def test_a_full_disk_of_the_first_rank_ends_all_ranks(as_ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    errors = as_ranks(2, lambda rank: train(small(), Launch(tmp_path / "run")))
    assert [type(error) for error in errors] == [RunError, RunError]
    assert "cannot write" in str(errors[0])
    assert str(errors[1]) == f"rank 0: {errors[0]}"


def test_ranks_without_workers_are_named_before_anything_is_read(as_ranks, tmp_path, monkeypatch):
    monkeypatch.setattr("horovod_byz.training.train.prepare", lambda *arguments: pytest.fail("read data"))
    errors = as_ranks(5, lambda rank: train(small(), Launch(tmp_path / "run")))
    assert all("4 workers on 5 ranks leave a rank without any: use at most 4 ranks" in str(e) for e in errors)
    assert not (tmp_path / "run").exists()


def test_what_may_be_resumed_is_the_configuration_but_for_its_steps():
    assert small().identity == small(steps=99).identity
    assert small().identity != small(seed=1).identity
    words = ("multi-krum:f=0,m=1", "multi-krum:m=1,f=0")
    assert small(rule=words[0]).identity == small(rule=words[1]).identity
