"""The training loop: same seed, same numbers, also when interrupted and resumed; whole folders."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch

from horovod_byz.training import config as configs
from horovod_byz.training.data import Dataset, load_dataset
from horovod_byz.training.interrupts import Interrupts
from horovod_byz.training.progress import Silent
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import RunError, RunFolder, finite, replace_file
from horovod_byz.training.train import Launch, Stopped, train
from horovod_byz.training.trainer import Trainer
from training import contents

SMALL = {
    "steps": 12,
    "workers": 9,
    "byzantine": 2,
    "attack": "omniscient",
    "rule": "median",
    "model": "mlp:width=8",
    "data": {"name": "digits", "batch": 8},
    "optimizer": {"momentum": 0.9, "decay": 0.5, "milestones": [8]},
    "evaluate_every": 5,
}


def small(**changes):
    return configs.make(SMALL | changes)


class InterruptAt(Silent):
    """Sends this process a signal when a step is reached."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def update(self, step, values):
        if step == self.step:
            os.kill(os.getpid(), self.number)


def test_a_run_leaves_a_whole_folder(tmp_path):
    summary = train(small(), Launch(tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    assert folder.complete
    assert folder.config == small()
    assert [record["step"] for record in folder.metrics] == [0, 5, 10, 12]
    assert [record["lr"] for record in folder.metrics] == [0.1, 0.1, 0.05, 0.05]
    assert summary == folder.summary
    assert summary["steps"] == 12
    assert summary["diverged_at"] is None
    assert set(folder.environment) >= {
        "python",
        "packages",
        "commit",
        "cpu",
        "ranks",
        "device",
    }
    assert folder.load_checkpoint()["step"] == 12
    assert not [path for path in folder.path.iterdir() if path.suffix == ".tmp"]


def test_the_verdicts_separate_byzantine_workers_from_honest_ones(tmp_path):
    train(small(rule="krum"), Launch(tmp_path / "run"))
    verdicts = RunFolder(tmp_path / "run").verdicts
    assert verdicts["byzantine_rows_named"] == 1.0
    assert verdicts["byzantine_share_of_weight"] == 0.0
    guilty = [account["worker"] for account in verdicts["workers"] if account["byzantine_steps"] == 12]
    assert guilty == list(small().make_wire().workers(0))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "data": {
                "name": "digits",
                "batch": 8,
                "sampling": "epochs",
                "normalise": "standard",
                "augment": True,
            }
        },
        {"schedule": "redrawn", "attack": "gaussian"},
        {"model": "cnn-xie2018:width=2,hidden=4", "steps": 3, "evaluate_every": 2},
        {"model": "resnet18:width=2", "steps": 3, "evaluate_every": 2},
        {"optimizer": {"name": "adam", "lr": 0.01}},
    ],
)
def test_the_same_seed_gives_the_same_files(tmp_path, changes):
    for name in ("one", "two"):
        train(small(**changes), Launch(tmp_path / name))
    train(small(**changes, seed=1), Launch(tmp_path / "other"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one")["metrics.jsonl"] != contents(tmp_path / "other")["metrics.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [3, 5, 11])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, step, number):
    config = small(schedule="redrawn")
    train(config, Launch(tmp_path / "whole"))
    with pytest.raises(Stopped) as stopped:
        train(config, Launch(tmp_path / "run"), reporter=InterruptAt(step, number))
    assert stopped.value.step == step
    assert not RunFolder(tmp_path / "run").complete
    train(config, Launch(tmp_path / "run", resume=True))
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    resumed, whole = (RunFolder(tmp_path / name).load_checkpoint() for name in ("run", "whole"))
    assert all(torch.equal(part, whole["model"][name]) for name, part in resumed["model"].items())


@pytest.mark.parametrize("model", ["resnet18:width=2", "cnn-xie2018:width=2,hidden=4"])
def test_batch_statistics_and_dropout_resume_too(tmp_path, model):
    config = small(model=model, steps=4, evaluate_every=3, optimizer={"name": "adam", "lr": 0.01})
    train(config, Launch(tmp_path / "whole"))
    with pytest.raises(Stopped):
        train(config, Launch(tmp_path / "run"), reporter=InterruptAt(2))
    train(config, Launch(tmp_path / "run", resume=True))
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_periodic_checkpoints_survive_a_crash(tmp_path):
    class Crash(Silent):
        def update(self, step, values):
            if step == 7:
                raise MemoryError

    config = small()
    train(config, Launch(tmp_path / "whole"))
    with pytest.raises(MemoryError):
        train(config, Launch(tmp_path / "run", checkpoint_every=3), reporter=Crash())
    assert RunFolder(tmp_path / "run").load_checkpoint()["step"] == 6
    train(config, Launch(tmp_path / "run", resume=True))
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_complete_run_is_not_run_again(tmp_path):
    launch = Launch(tmp_path / "run", resume=True)
    first = train(small(), launch)
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    assert train(small(), launch) == first
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_an_error(tmp_path):
    train(small(), Launch(tmp_path / "run"))
    with pytest.raises(RunError, match=r"--resume, replace it with --overwrite"):
        train(small(), Launch(tmp_path / "run"))
    with pytest.raises(RunError, match=r"seed = 0 before, 1 now"):
        train(small(seed=1), Launch(tmp_path / "run", resume=True))
    train(small(seed=1), Launch(tmp_path / "run", overwrite=True))
    assert RunFolder(tmp_path / "run").config.seed == 1


@pytest.mark.parametrize("collect", ["root", "sharded"])
def test_ways_to_collect_give_the_same_metrics(tmp_path, collect):
    train(small(), Launch(tmp_path / "one"))
    train(small(collect=collect), Launch(tmp_path / "two"))
    assert contents(tmp_path / "one")["metrics.jsonl"] == contents(tmp_path / "two")["metrics.jsonl"]


def test_a_run_that_diverges_says_when(tmp_path):
    summary = train(small(rule="mean"), Launch(tmp_path / "run"))
    assert summary["diverged_at"] == 1
    assert summary["loss"] is None
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[-1])["train_loss"] is None


def test_nan_at_every_step_stops_nobody(tmp_path):
    config = small(attack="not-a-number", rule="mean", model="mlp:width=32", steps=60, optimizer={"lr": 0.5})
    summary = train(config, Launch(tmp_path / "run"))
    assert summary["accuracy"] > 0.5
    assert RunFolder(tmp_path / "run").verdicts["byzantine_rows_named"] == 1.0


def test_label_flip_poisons_byzantine_workers_only():
    dataset, ranks = load_dataset("digits"), Ranks()
    honest = Trainer(small(byzantine=0, attack="none"), dataset, ranks)
    poisoned = Trainer(small(attack="label-flip"), dataset, ranks)
    for trainer in (honest, poisoned):
        trainer.compute()
    differs = [
        not torch.equal(*pair) for pair in zip(honest.gradients.rows, poisoned.gradients.rows, strict=True)
    ]
    assert [worker for worker in range(9) if differs[worker]] == list(poisoned.byzantine)


def test_a_script_poisons_whom_it_names_when_it_says():
    script = [{"steps": [1, 2], "workers": [4], "attack": "label-flip"}]
    trainer = Trainer(small(byzantine=0, attack="none", script=script), load_dataset("digits"), Ranks())
    assert not trainer._poisons(4)
    trainer.step = 1
    assert trainer._poisons(4)
    assert not trainer._poisons(3)


def test_without_attack_mean_equals_plain_minibatch_training(tmp_path):
    """The mean over workers is the gradient of the union of their batches."""
    config = small(byzantine=0, attack="none", rule="mean", steps=5, optimizer={"lr": 0.2})
    dataset = load_dataset("digits")
    trainer = Trainer(config, dataset, Ranks())
    plain = Trainer(config, dataset, Ranks()).model
    optimizer = torch.optim.SGD(plain.parameters(), 0.2)
    for step in range(5):
        indices = torch.from_numpy(trainer.sampler.indices(step, range(9))).flatten()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            plain(dataset.train_x[indices]), dataset.train_y[indices]
        ).backward()
        optimizer.step()
        trainer.compute()
        trainer.apply(trainer.collect())
    for ours, theirs in zip(trainer.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_memory_format_of_images_changes_no_more_than_rounding():
    """In a model without dropout, whose masks follow the order in memory. Rounding may flip a ReLU."""
    images = torch.rand(90, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(90) % 10
    dataset = Dataset(images, labels, images[:20], labels[:20], 10, (3, 32, 32), "tiny", "here")
    rows, losses = [], []
    for memory_format in ("contiguous", "channels_last"):
        options = {"batch": 4, "memory_format": memory_format}
        trainer = Trainer(small(model="resnet18:width=4", data=options), dataset, Ranks())
        trainer.compute()
        rows.append(trainer.gradients.rows.clone())
        losses.append(trainer.evaluate()["loss"])
    assert trainer._laid_out(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.linalg.norm(rows[0] - rows[1]) < 0.02 * torch.linalg.norm(rows[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_interrupts_wait_for_the_end_of_a_held_block():
    reached = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():  # noqa: PT012 - goes on to its end
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("end")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    replace_file(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    assert [finite(value) for value in (1.5, math.nan, -math.inf)] == [1.5, None, None]


def test_workers_are_spread_over_ranks(monkeypatch):
    ranks = Ranks()
    ranks.size = 3
    spread = []
    for ranks.rank in range(3):
        spread.append(ranks.workers(8))
    assert spread == [range(3), range(3, 6), range(6, 8)]
    dedicated = []
    for ranks.rank in range(3):
        dedicated.append(ranks.workers(8, dedicated_root=True))
    assert dedicated == [range(0), range(4), range(4, 8)]
    with pytest.raises(ValueError, match="leave a rank without any: use at most 2 ranks"):
        ranks.workers(2)


def test_one_rank_shares_with_nobody():
    values = np.array([1.0, np.nan])
    np.testing.assert_array_equal(Ranks().share(values, "test"), values)
    Ranks().agree(b"0123456789abcdef", "test")
