"""Momentum of the workers: its definition, what leaves it as it was, and replicas that stay equal."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.collect import HeaderMismatchError, matching
from horovod_byz.optimizer.momentum import WorkerMomentum

BETA = 0.9


def expected(gradients, beta=BETA):
    """m_t = beta m_(t-1) + (1 - beta) g_t, each operation rounded to float32."""
    m, old, new = np.zeros_like(gradients[0]), np.float32(beta), np.float32(1 - beta)
    for g in gradients:
        m = g * new + m * old
    return m


class Job:
    """An optimizer on one rank whose gradients the test gives."""

    def __init__(self, d=5, beta=BETA, tensors=1, **options):
        self.parameters = [nn.Parameter(torch.zeros(d)) for _ in range(tensors)]
        self.optimizer = hb.DistributedOptimizer(
            torch.optim.SGD(self.parameters, lr=1.0), worker_momentum=beta, **options
        )

    def step(self, *gradients):
        """Takes a step; returns the aggregate."""
        self.optimizer.zero_grad()
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else torch.as_tensor(gradient).clone()
        self.optimizer.step()
        return None if self.optimizer.last is None else self.optimizer.last.value.copy()

    @property
    def rows(self):
        return self.optimizer._remembered.momentum.rows


@pytest.fixture
def random():
    return np.random.default_rng(0)


def gradients_of(random, steps, d=5):
    return random.normal(size=(steps, d)).astype(np.float32)


def test_a_worker_sends_its_momentum(random):
    job, gradients = Job(), gradients_of(random, 6)
    for t, gradient in enumerate(gradients):
        np.testing.assert_array_equal(job.step(gradient), expected(gradients[: t + 1]))
    np.testing.assert_allclose(Job(beta=0.5).step([2.0] * 5), [1.0] * 5)


def test_without_momentum_nothing_changes(random):
    gradients = gradients_of(random, 3)
    plain = Job(beta=0.0)
    assert plain.optimizer._remembered.momentum is None
    assert "worker_momentum" not in plain.optimizer.state_dict()
    for gradient in gradients:
        np.testing.assert_array_equal(plain.step(gradient), gradient)


def test_the_ledger_names_by_proof_only(random):
    """Four of six clean runs named an honest worker: a row resembles the worker's last ones."""
    assert Job().optimizer.ledger.test is None
    assert Job(beta=0.0).optimizer.ledger.test == "exchangeable"
    with pytest.raises(ValueError, match=r"test 'own past'.*test=None"):
        Job(ledger=hb.Ledger(test="own past"))
    job = Job(ledger=hb.Ledger(test=None))
    with pytest.raises(ValueError, match="would name honest workers"):
        job.optimizer.ledger = hb.Ledger()


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan"), float("inf"), 2])
def test_numbers_out_of_range(beta):
    with pytest.raises(ValueError, match="worker_momentum must be at least 0 and below 1"):
        Job(beta=beta)


@pytest.mark.parametrize("beta", ["0.9", None, True, [0.9], 1j])
def test_what_is_no_number(beta):
    with pytest.raises(TypeError, match="worker_momentum must be a number of at least 0 and below 1"):
        Job(beta=beta)


def test_lbfgs_compares_gradients_of_several_points():
    parameter = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="does not go with LBFGS"):
        hb.DistributedOptimizer(torch.optim.LBFGS([parameter]), worker_momentum=0.9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_leaves_it_as_it_was(random, bad):
    job, gradients = Job(), gradients_of(random, 4)
    job.step(gradients[0])
    with pytest.warns(UserWarning, match="left out"):
        job.step(np.where(np.arange(5) == 2, np.float32(bad), gradients[1]))
    np.testing.assert_array_equal(job.rows[0], expected(gradients[:1]))
    assert np.isfinite(job.step(gradients[2])).all()
    np.testing.assert_array_equal(job.rows[0], expected(gradients[[0, 2]]))


def test_the_largest_numbers_and_the_smallest():
    momentum, largest = WorkerMomentum(BETA), np.full((1, 5), np.finfo(np.float32).max)
    for _ in range(30):
        momentum.rows = momentum.sent(largest, []).copy()
        assert np.isfinite(momentum.rows).all()
    for _ in range(1800):  # no denormal numbers are left behind, which would never become 0
        momentum.rows = momentum.sent(np.zeros((1, 5), np.float32), []).copy()
        assert ((momentum.rows == 0) | (np.abs(momentum.rows) >= np.finfo(np.float32).tiny)).all()
    assert (momentum.rows == 0).all()


def test_a_parameter_without_a_gradient_counts_as_zeros(random):
    job, gradients = Job(tensors=2), gradients_of(random, 3)
    for gradient in gradients:
        job.step(gradient, None)
    np.testing.assert_array_equal(job.rows[0, :5], expected(gradients))
    assert (job.rows[0, 5:] == 0).all()


def test_accumulated_passes_are_one_gradient():
    parameter = nn.Parameter(torch.zeros(3))
    with hb.DistributedOptimizer(
        torch.optim.SGD([parameter], lr=1.0), backward_passes_per_step=2, worker_momentum=0.5
    ) as optimizer:
        for _ in range(2):
            (parameter.sum() * 3).backward()
        optimizer.step()
        np.testing.assert_array_equal(optimizer.last.value, [3.0] * 3)


def test_a_skipped_step_does_not_count(random):
    job, gradients = Job(), gradients_of(random, 2)
    job.step(gradients[0])
    before = job.rows.copy()
    job.parameters[0].grad = torch.full((5,), 7.0)
    job.optimizer.zero_grad()
    np.testing.assert_array_equal(job.rows, before)
    job.step(gradients[1])
    np.testing.assert_array_equal(job.rows[0], expected(gradients))


def test_a_step_that_fails_leaves_it_as_it_was(random):
    job, gradients = Job(), gradients_of(random, 2)
    job.step(gradients[0])

    def broken(*arguments):
        raise OSError("the network")

    job.optimizer.wire = broken
    with pytest.raises(OSError, match="the network"):
        job.step(gradients[1])
    job.optimizer.wire = None
    job.step(gradients[1])
    np.testing.assert_array_equal(job.rows[0], expected(gradients))


def test_parameters_that_come_and_go_keep_theirs(random):
    job, gradients = Job(tensors=2), gradients_of(random, 4)
    job.step(gradients[0], gradients[1])
    new = nn.Parameter(torch.zeros(3))
    job.optimizer.add_param_group({"params": [new]})
    job.parameters[0].requires_grad_(False)
    job.parameters[0].grad = None
    job.step(None, gradients[2])
    np.testing.assert_array_equal(job.rows[0], [*expected(gradients[[1, 2]]), 0, 0, 0])
    job.parameters[1].data = job.parameters[1].data.double()
    job.step(None, gradients[3].astype(np.float64))
    assert job.rows.dtype == np.float64
    np.testing.assert_allclose(job.rows[0, :5], expected(gradients[1:]), rtol=1e-6)


def test_a_checkpoint_goes_on_and_the_plain_optimizer_takes_it_too(random, tmp_path):
    gradients = gradients_of(random, 4)
    whole, first, second = Job(), Job(), Job()
    for gradient in gradients:
        whole.step(gradient)
    for gradient in gradients[:2]:
        first.step(gradient)
    hb.save_checkpoint({"optimizer": first.optimizer.state_dict()}, tmp_path / "run.pt")
    first.step(gradients[3])  # what was saved is a copy
    state = hb.load_checkpoint(tmp_path / "run.pt")["optimizer"]
    second.optimizer.load_state_dict(state)
    for gradient in gradients[2:]:
        second.step(gradient)
    np.testing.assert_array_equal(second.rows, whole.rows)
    torch.optim.SGD([nn.Parameter(torch.zeros(5))], lr=1.0).load_state_dict(state)
    second.optimizer.load_state_dict(torch.optim.SGD([nn.Parameter(torch.zeros(5))], lr=1.0).state_dict())
    np.testing.assert_array_equal(second.step(gradients[0]), expected(gradients[:1]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda saved: saved.update(rows=torch.zeros(1, 4)), r"shape \(1, 4\)"),
        (lambda saved: saved.update(rows=torch.zeros(2, 5)), r"shape \(2, 5\)"),
        (lambda saved: saved["rows"].fill_(np.nan), "NaN or infinities"),
        (lambda saved: saved.update(rows=None), "must hold workers and rows"),
        (lambda saved: saved.pop("workers"), "must hold workers and rows"),
    ],
)
def test_a_checkpoint_that_does_not_fit(random, damage, message):
    job = Job()
    job.step(gradients_of(random, 1)[0])
    state = copy.deepcopy(job.optimizer.state_dict())
    damage(state["worker_momentum"])
    with pytest.raises(ValueError, match=message):
        Job().optimizer.load_state_dict(state)


def test_a_copy_and_a_pickled_one_go_on(random):
    gradients = gradients_of(random, 3)
    job = Job()
    for gradient in gradients[:2]:
        job.step(gradient)
    buffer = io.BytesIO()
    torch.save(job.optimizer, buffer)
    buffer.seek(0)
    want = expected(gradients)
    for other in (copy.deepcopy(job.optimizer), torch.load(buffer, weights_only=False)):
        (parameter,) = other.param_groups[0]["params"]
        parameter.grad = torch.tensor(gradients[2])
        other.step()
        np.testing.assert_array_equal(other.last.value, want)


def test_scaled_gradients_are_refused_only_where_scales_would_mix():
    parameter = nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with hb.DistributedOptimizer(torch.optim.SGD([parameter], lr=1.0), worker_momentum=0.5) as optimizer:
        scaler.scale(parameter.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        np.testing.assert_array_equal(optimizer.last.value, [0.5, 0.5])
        optimizer.zero_grad()
        scaler.scale(parameter.sum()).backward()
        scaler.unscale_(optimizer)
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update()
        np.testing.assert_array_equal(optimizer.last.value, [0.75, 0.75])
        optimizer.zero_grad()
        scaler.scale(parameter.sum()).backward()
        optimizer.synchronize()
        with optimizer.skip_synchronize(), pytest.raises(RuntimeError, match=r"call scaler\.unscale_"):
            scaler.step(optimizer)


REDUNDANCY = hb.Redundancy(r=3, groups=((0, 1, 2), (3, 4, 5)))
DETOX = hb.Detox(REDUNDANCY, inner=hb.Mean(), outer=hb.Mean(), groups=1)


def replicated(transport, steps, gradient_of, rule=DETOX, collect="symmetric", **options):
    """The outvoted workers of each step, and the last momentum."""
    job, lost = Job(rule=rule, collect=collect, timeout=20, **options), []
    for step in range(steps):
        job.step(gradient_of(transport.rank, step))
        lost.append(job.optimizer.last.outcome.outvoted.tolist())
    return lost, job.rows.copy()


@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded", hb.Sharded(overlap=True)], ids=str)
def test_replicas_stay_equal_also_after_a_fault_that_is_over(on_threads, random, collect):
    gradients = gradients_of(random, 6 * 2).reshape(6, 2, 5)

    def gradient_of(rank, step):
        row = gradients[step, rank // 3].copy()
        if (rank, step) == (4, 2):
            row[3] = -row[3]
        if (rank, step) == (1, 3):
            row[0] = np.nan
        return row

    results = on_threads(6, lambda transport: replicated(transport, 6, gradient_of, collect=collect))
    for rank, (lost, rows) in enumerate(results):
        assert lost == [[], [], [4], [1], [], []]
        np.testing.assert_array_equal(rows[0], expected(gradients[:, rank // 3]))


def test_a_replica_that_lies_for_good_is_outvoted_for_good_and_costs_little(on_threads, random, monkeypatch):
    gradients, brought = gradients_of(random, 20), []
    whole = matching.bring_majority
    monkeypatch.setattr(
        matching, "bring_majority", lambda *arguments: (brought.append(arguments[-1]), whole(*arguments))
    )
    results = on_threads(
        6,
        lambda transport: replicated(
            transport, 20, lambda rank, step: gradients[step] * (2 if rank == 5 else 1)
        ),
    )
    assert results[0][0] == [[5]] * 20
    assert sorted(set(brought)) == [0, 1, 3, 7, 15]


def test_a_sender_that_lies_is_not_believed(on_threads, random):
    """Worker 0 holds the majority's row, and sends another one."""
    gradients = gradients_of(random, 6)

    def work(transport):
        alltoall = transport.alltoall

        def lying(send, splits, out, expected, phase):
            alltoall(
                send ^ 1 if phase.startswith("repair") and transport.rank == 3 else send,
                splits,
                out,
                expected,
                phase,
            )

        transport.alltoall = lying
        return replicated(
            transport, 6, lambda rank, step: gradients[step] * (-1 if (rank, step) == (5, 2) else 1)
        )

    (lost, _), *_ = on_threads(6, work)
    # Step 2 has the sender 3, which lies, and step 3 the sender 4.
    assert lost == [[], [], [5], [5], [], []]


def test_with_overlap_momentum_leaves_in_the_step(on_threads, random):
    gradients = gradients_of(random, 3)

    def work(transport):
        parameter = nn.Parameter(torch.zeros(5))
        inner = torch.optim.SGD([parameter], lr=0.0)
        optimizer = hb.DistributedOptimizer(
            inner, collect=hb.Sharded(overlap=True), worker_momentum=BETA, check_state_every=0, timeout=20
        )
        for gradient in gradients:
            optimizer.zero_grad()
            (parameter * torch.tensor(gradient)).sum().backward()
            optimizer.step()
        return optimizer.last.value.copy()

    for value in on_threads(3, work):
        np.testing.assert_allclose(value, expected(gradients), rtol=1e-6)


def test_where_all_load_the_checkpoint_of_one_all_begin_with_zeros(on_threads, random):
    gradients = gradients_of(random, 3)

    def work(transport):
        job = Job(rule=hb.Median(), timeout=20)
        job.step(gradients[0] + transport.rank)
        return job.optimizer.state_dict()

    states = on_threads(3, work)

    def resume(own):
        def work(transport):
            job = Job(rule=hb.Median(), timeout=20)
            job.optimizer.load_state_dict(states[transport.rank if own else 0])
            job.step(gradients[1] + transport.rank)
            return job.rows[0]

        return on_threads(3, work)

    def loaded_while_running(transport):
        job = Job(rule=hb.Median(), timeout=20)
        job.step(gradients[0])
        job.optimizer.load_state_dict(states[0])
        job.step(gradients[1])
        return job.rows[0]

    for rank, row in enumerate(on_threads(3, loaded_while_running)):
        np.testing.assert_array_equal(row, expected(gradients[1:2] if rank else gradients[:2]))
    for rank, row in enumerate(resume(own=False)):
        np.testing.assert_array_equal(row, expected(gradients[1:2] + np.float32(rank)))
    for rank, row in enumerate(resume(own=True)):
        np.testing.assert_array_equal(row, expected(gradients[:2] + np.float32(rank)))


def test_ranks_with_another_beta_are_named(on_threads):
    def work(transport):
        try:
            Job(beta=0.5 if transport.rank == 1 else 0.9, timeout=20).step(np.zeros(5, np.float32))
        except HeaderMismatchError as error:
            return str(error)
        return ""

    assert all("rank 1" in text for text in on_threads(3, work))


def test_the_first_momentum_of_a_resumed_run_has_the_same_bits():
    """-0 + 0 is 0, with a momentum of zeros and without one."""
    fresh, resumed = WorkerMomentum(0.5), WorkerMomentum(0.5)
    resumed.rows = np.zeros((1, 2), np.float32)
    gradient = np.array([[-0.0, 1.0]], np.float32)
    assert fresh.sent(gradient, []).tobytes() == resumed.sent(gradient, []).tobytes()


def test_where_a_rank_is_new_all_begin_with_zeros_at_that_very_step(on_threads, random):
    """The others learn of it in the middle of their step, when their momentum is computed already."""
    gradients = gradients_of(random, 5)

    def work(transport):
        job, lost = Job(rule=DETOX, timeout=20), []
        for step in range(5):
            if (step, transport.rank) == (3, 4):
                job = Job(rule=DETOX, timeout=20)
            job.step(gradients[step])
            lost += job.optimizer.last.outcome.outvoted.tolist()
        return lost, job.rows[0]

    for lost, row in on_threads(6, work):
        assert lost == []
        np.testing.assert_array_equal(row, expected(gradients[3:]))
