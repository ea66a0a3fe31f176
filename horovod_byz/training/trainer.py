"""One run's state and its step: batches, gradients, wire, rule, apply. Writes no files."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from torch import Tensor, nn

from horovod_byz.attacks import LabelFlip, Script
from horovod_byz.collect import Collected, Root
from horovod_byz.collect import Wire as Tampering
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.ledger.suspicion import TestName
from horovod_byz.ledger.truth import GroundTruth
from horovod_byz.optimizer.buffers import Buffers
from horovod_byz.optimizer.leaves import Leaf, leaves_of
from horovod_byz.optimizer.momentum import worker_momentum
from horovod_byz.optimizer.remembered import Remembered
from horovod_byz.optimizer.repair import StateCheck
from horovod_byz.optimizer.synchronizer import Synchronizer
from horovod_byz.redundancy import replicas
from horovod_byz.training import checkpoint, models
from horovod_byz.training.config import Optimizer, RunConfig
from horovod_byz.training.data import Dataset, augment
from horovod_byz.training.gradients import Gradients, take
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import finite
from horovod_byz.training.sampling import sampled
from horovod_byz.training.shares import share

__all__ = ["Trainer"]

_REMEMBER = 10  # steps; the exchange of losses that it takes costs a rank less than a millisecond
_COMPARE = 100  # steps between two comparisons of the ranks' states
_MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_CHUNK = 1000  # test images evaluated at once; fixed, so that a loss does not depend on the number of ranks


class Trainer:
    """A training run in memory; every rank of the job makes one from the same configuration.

    A step is what `DistributedOptimizer` does, with k rows on this rank instead of one: a `Synchronizer`
    takes the workers' gradients (`WorkerRows`) and buffers (`Buffers`) to the aggregate, and a torch
    optimizer steps with it.

    The result depends on the configuration and the data only: not on the number of ranks, nor on whether the
    run was interrupted and taken up again.

    Args:
        config: the run.
        dataset: what to train on, on `device`.
        ranks: the ranks of the job.
        device: where gradients are computed; rules run on the CPU.

    Attributes:
        step: number of steps done.
        skew: how far apart the labels of the workers' data are.
        evaluated: the step of the last recorded evaluation; -1 before the first.
        diverged_at: the first step at which an honest worker's loss was not finite; None so far. Known at
            evaluations.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, ranks: Ranks, device: str = "cpu") -> None:
        self.config, self.dataset, self.ranks, self.device = config, dataset, ranks, device
        model = models.build(
            config.model.name, dataset.shape, dataset.classes, seed=config.seed, **config.model.options
        )
        self.model = model.to(device)
        self.rule = config.make_rule()
        self.wire = config.make_wire()
        collector = config.make_collector()
        dedicated = isinstance(collector, Root) and collector.dedicated
        layout = ranks.layout(config.workers, dedicated_root=dedicated)
        self.workers = ranks.workers(config.workers, dedicated_root=dedicated)
        redundancy = config.make_redundancy()
        self.sampler, self.skew = sampled(config, dataset)
        self.shares = share(config, self.workers, [*self.sampler.groups])
        computed = len(self.shares.batches)
        self.buffers = Buffers(
            self.model.named_buffers(),
            collect=collector,
            count=computed,
            sent=self.shares.own,
            local_workers=layout,
        )
        self.gradients = Gradients(self.model, computed, self.buffers, device)
        self.optimizer = _optimizer(self.model, config.optimizer)
        memory = self.gradients.memory
        # A library may choose its method, and so the last bits, by where an operand lies: the results in
        # results/ were computed with this layout.
        memory.adopt()
        self.buffers.adopt()
        self.session = collector.bind(
            memory.d,
            memory.dtype,
            layout,
            layout=memory.layout,
            compression=config.make_compression(),
            segments=memory.segments,
        )
        replicas.compare(self.session.transport, self.rule)
        groups = redundancy.groups_of(config.workers) if redundancy.r > 1 else None
        operators = Ledger(test=_test(config))
        self.ledger = GroundTruth(config.workers, self.byzantine_at, groups, operators)
        self._remembered = Remembered(worker_momentum(config, config.worker_momentum, self.optimizer))
        self._synchronizer = Synchronizer(
            self.session, self.rule, self.ledger, self.buffers, remembered=self._remembered
        )
        self.step = 0
        self.evaluated = -1
        self.diverged_at: int | None = None
        # Per worker since the last evaluation: sum of honest losses, honest steps, and one more than the
        # first step with a bad loss. Only this rank's workers; the others' rows stay 0.
        self._losses = np.zeros((config.workers, 3))
        self._resumable: dict[str, Any] | None = None
        ranks.agree(self.digest(), "first parameters")

    @property
    def theta(self) -> Tensor:
        """A copy of the parameters as one vector, `(d,)`."""
        return nn.utils.parameters_to_vector(self.model.parameters()).detach()

    def digest(self) -> bytes:
        """A digest of the step, the parameters and buffers, and the training labels."""
        hasher = blake3(str(self.step).encode())
        for part in (*self.model.state_dict().values(), self.dataset.train_y):
            hasher.update(part.detach().cpu().numpy().tobytes())
        return hasher.digest(16)

    def compute(self) -> None:
        """Fill the gradient rows of this rank's workers at the current step."""
        if not self.workers:
            return
        sampler, dataset, batches = self.sampler, self.dataset, self.shares.batches
        images, labels = take(dataset.train_x, dataset.train_y, sampler.indices(self.step, batches))
        for row, worker in enumerate(batches):
            if self.config.data.augment:
                images[row] = augment(images[row], sampler.augmentation(self.step, worker))
            for attack in self._poisons(self.shares.computers[row]):
                labels[row] = attack.labels(labels[row], dataset.classes)
        seeds = []
        if self.gradients.uses_seeds:
            seeds = [sampler.model_seed(self.step, worker) for worker in batches]
        images = self._laid_out(images.flatten(0, 1)).unflatten(0, labels.shape)
        self.gradients.compute(images, labels, seeds)

    def collect(self, wire: Tampering | None = None) -> Collected:
        """Bring the rows together and aggregate them; this changes nothing that the next step depends on, but
        a rank's state that differs from most ranks': they are compared every 100 steps.

        Args:
            wire: what happens to the collected rows at this step in place of the configured attack, such as a
                fault that a test injects.
        """
        # What a Byzantine worker would report about its batch's statistics is not simulated; the median
        # tolerates it.
        rows = self.shares.sent(self.gradients.on_host())
        state = self._check(_COMPARE) if self.ranks.size > 1 else b""
        wire = self.wire if wire is None else wire
        return self._synchronizer.collect(rows, wire, step=self.step, state=state)

    def _check(self, every: int) -> StateCheck:
        """The parameters and the optimizer's state, in which a rank's damage is found and repaired."""
        names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}

        def leaves() -> Iterator[Leaf]:
            yield from leaves_of(self.optimizer, names)
            yield from self._remembered.last.leaves(self.rule)

        return StateCheck(leaves, self.ledger.whole, every=every, first=self.step)

    def apply(self, collected: Collected) -> None:
        """Let the optimizer step with the aggregate, and count the step."""
        byzantine = self.byzantine
        self.gradients.memory.write(collected.value, copy=False)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr_at(self.step)
        self.optimizer.step()
        self._synchronizer.settle(collected)
        self.step += 1
        losses = self.gradients.losses.tolist()
        for row, worker in zip(self.shares.own, self.workers, strict=True):
            if worker not in byzantine:
                self._count_loss(worker, losses[row])

    @property
    def byzantine(self) -> tuple[int, ...]:
        """Who is Byzantine at the current step."""
        return self.byzantine_at(self.step)

    def byzantine_at(self, step: int) -> tuple[int, ...]:
        """Who is Byzantine at a step."""
        return self.wire.workers(step) if self.wire is not None else ()

    @property
    def loss(self) -> float:
        """Mean loss of this rank's workers at the last step, for display."""
        return float(self.gradients.losses.mean()) if self.workers else float("nan")

    def evaluate(self) -> dict[str, Any]:
        """Measure the model on the test set, all ranks together; see `end_interval`."""
        test_x, test_y = self.dataset.test_x, self.dataset.test_y
        chunks = -(-len(test_y) // _CHUNK)
        mine = np.zeros((chunks, 3))
        for chunk in range(self.ranks.rank, chunks, self.ranks.size):
            part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
            mine[chunk] = _scores(self.model, self._laid_out(test_x[part]), test_y[part])
        sent = np.concatenate([mine.ravel(), self._losses.ravel()])
        shared = self.ranks.share(sent, "evaluation")
        scores = shared[: mine.size].reshape(mine.shape).sum(axis=0)
        losses = shared[mine.size :].reshape(self._losses.shape).sum(axis=0)
        bad = shared[mine.size :].reshape(self._losses.shape)[:, 2]
        if self.diverged_at is None and bad.any():
            self.diverged_at = int(bad[bad > 0].min()) - 1
        count = len(test_y)
        return {
            "step": self.step,
            "accuracy": float(scores[0]) / count,
            "top3": float(scores[1]) / count,
            "loss": finite(float(scores[2]) / count),
            "train_loss": finite(float(losses[0] / losses[1])) if losses[1] else None,
            "lr": self.config.optimizer.lr_at(max(self.step - 1, 0)),
        }

    def end_interval(self) -> None:
        """Start a new interval of training losses, once an evaluation is recorded."""
        self._losses[:] = 0
        self.evaluated = self.step

    @property
    def due(self) -> bool:
        """Whether an evaluation belongs to this step and was not recorded yet."""
        last = self.step == self.config.steps
        return self.evaluated != self.step and (last or self.step % self.config.evaluate_every == 0)

    def state(self) -> dict[str, Any]:
        """All that later steps and evaluations depend on. All ranks must call it at the same step.

        Rank 0's, which is saved, has the momentum of all workers.

        The ranks compare it first, so that no checkpoint holds the damaged state of the rank that writes it.
        """
        self.ranks.agree_on(self._check(every=1), self.step)
        own = self._remembered.momentum
        momentum = None if own is None else own.gathered(self.session)
        return self._state(self.ranks.share(self._losses, "losses"), momentum)

    def blank(self) -> dict[str, Any]:
        """A state of this run, without asking other ranks: what a checkpoint must be like."""
        memory, n = self.gradients.memory, self.config.workers
        momentum = (
            None if self._remembered.momentum is None else memory.rows.new_zeros(()).cpu().expand(n, memory.d)
        )
        return self._state(self._losses, momentum)

    def _state(self, losses: NDArray[np.float64], momentum: Tensor | None) -> dict[str, Any]:
        state = {
            "config": self.config.identity,
            "step": self.step,
            "evaluated": self.evaluated,
            "model": {name: part.detach().cpu().clone() for name, part in self.model.state_dict().items()},
            "parameters": [*self.gradients.memory.names],  # as the optimizer numbers them
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "ledger": self.ledger.state_dict(),
            "diverged_at": self.diverged_at,
            "losses": torch.from_numpy(losses.copy()),
            **({} if momentum is None else {"momentum": momentum}),
            **self._last(),
        }
        return {**state, "finite": checkpoint.finite(state)}

    def _last(self) -> dict[str, Tensor]:
        """The last result, where the rule remembers it."""
        if not self.rule.remembers:
            return {}
        last = self._remembered.last.state_dict()
        return last or {"last_aggregate": torch.zeros_like(self.gradients.rows[0])}

    def remember(self) -> None:
        """Keep the state every few steps, so that a rank which is stopped alone has one to save."""
        if self.ranks.size > 1 and self.step % _REMEMBER == 0:
            self._resumable = self.state()

    def resumable(self) -> dict[str, Any] | None:
        """The latest state that can be saved without asking other ranks; None before there is one."""
        return self._resumable if self.ranks.size > 1 else self.state()

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave.

        Raises:
            RunError: when the ranks do not hold the same afterwards.
        """
        self.model.load_state_dict(state["model"])
        # Learning rate, momentum and the like are the configuration's, never a file's.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        self.ledger.load_state_dict(state["ledger"])
        if self._remembered.momentum is not None:
            self._remembered.momentum.take_up(state["momentum"], self.session)
        self._remembered.last.load_state_dict(state, self.gradients.memory.d)
        mine = list(self.workers)
        self._losses[mine] = state["losses"].numpy()[mine]
        self.step, self.evaluated = int(state["step"]), int(state["evaluated"])
        self.diverged_at = state["diverged_at"]
        self._resumable = dict(state)
        self.ranks.agree(self.digest(), "parameters of the checkpoint")

    def _laid_out(self, images: Tensor) -> Tensor:
        """`(count, channels, height, width)` images in the run's memory format."""
        return images.contiguous(memory_format=_MEMORY_FORMATS[self.config.data.memory_format])

    def _count_loss(self, worker: int, loss: float) -> None:
        self._losses[worker, :2] += (loss, 1)
        if not np.isfinite(loss) and self._losses[worker, 2] == 0:
            self._losses[worker, 2] = self.step  # already counted

    def _poisons(self, worker: int) -> list[LabelFlip]:
        """The data attacks on a worker at the current step."""
        if self.wire is None or worker not in self.byzantine:
            return []
        if isinstance(self.wire.schedule, Script):
            events = self.wire.schedule.events
            active = [e.attack for e in events if e.active(self.step) and worker in e.workers]
        else:
            active = [self.wire.attack] if self.wire.attack is not None else []
        return [attack for attack in active if isinstance(attack, LabelFlip)]


def _test(config: RunConfig) -> TestName | None:
    """The test of a ledger that names no honest worker of such a run."""
    if config.worker_momentum:
        return None  # a worker's rows resemble its earlier ones, so steps are no independent evidence
    # Honest workers with unlike data are not exchangeable.
    return "own past" if config.data.partition.divides else "exchangeable"


def _optimizer(model: nn.Module, options: Optimizer) -> torch.optim.Optimizer:
    parameters = model.parameters()
    if options.name == "adam":
        return torch.optim.Adam(parameters, options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        parameters,
        options.lr,
        options.momentum,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
    )


def _scores(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Correct top-1 and top-3 answers, sum of the cross-entropies; NaN logits count as the first class."""
    model.eval()
    with torch.no_grad():
        logits = model(images)
        best = logits.topk(min(3, logits.shape[1]), dim=1).indices == labels[:, None]
        losses = nn.functional.cross_entropy(logits, labels, reduction="none").double()
    return float(best[:, 0].sum()), float(best.any(dim=1).sum()), float(losses.sum())
