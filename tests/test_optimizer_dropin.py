"""What other people's code does with an optimizer, done with ours; one process."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.optimizer.state import digest
from parameters import same
from sharpness import SharpnessAware

FUSED = {
    "SGD": lambda p, fused: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=fused),
    "Adam": lambda p, fused: torch.optim.Adam(p, lr=0.1, fused=fused),
    "AdamW": lambda p, fused: torch.optim.AdamW(p, lr=0.1, fused=fused),
    "Adagrad": lambda p, fused: torch.optim.Adagrad(p, lr=0.1, fused=fused),
}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def values(parameters):
    return [p.detach().clone() for p in parameters]


class Scaled(torch.optim.SGD):
    """An optimizer with a switch that scripts set from outside."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.scale = 1.0

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(self.scale)
        return super().step(closure)


class TestAttributes:
    """0.1.0: reads were forwarded to the wrapped optimizer, writes and deletions stayed on the wrapper."""

    def test_a_switch_set_from_outside_reaches_the_wrapped_optimizer(self):
        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(Scaled([p], lr=1.0))
        optimizer.scale = 0.0
        p.sum().backward()
        optimizer.step()
        assert p.tolist() == [1.0, 1.0]
        assert optimizer.optimizer.scale == 0.0
        del optimizer.scale
        assert not hasattr(optimizer.optimizer, "scale")

    def test_new_attributes_are_the_wrapped_optimizers(self):
        inner = torch.optim.SGD(net().parameters(), lr=0.1)
        optimizer = hb.DistributedOptimizer(inner)
        optimizer.note = "kept"
        assert inner.note == "kept"

    def test_the_wrappers_own_attributes_stay_its_own(self):
        inner = torch.optim.SGD(net().parameters(), lr=0.1)
        optimizer = hb.DistributedOptimizer(inner)
        optimizer.rule, optimizer.ledger = hb.Median(), hb.Ledger()
        torch.optim.lr_scheduler.StepLR(optimizer, 1)  # replaces `step` of the instance
        assert not {"rule", "ledger", "step", "last"} & set(vars(inner))
        optimizer.param_groups = inner.param_groups
        optimizer.state = inner.state
        assert not {"param_groups", "state"} & set(vars(optimizer))

    def test_it_passes_as_the_wrapped_optimizers_class(self):
        optimizer = hb.DistributedOptimizer(torch.optim.Adam(net().parameters()))
        assert isinstance(optimizer, torch.optim.Adam)
        assert isinstance(optimizer, hb.DistributedOptimizer)
        assert not isinstance(optimizer, torch.optim.SGD)
        assert isinstance(copy.deepcopy(optimizer), torch.optim.Adam)

    def test_parameter_names_are_where_horovod_has_them(self):
        model = net()
        optimizer = hb.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters()
        )
        assert optimizer._parameter_names == {p: name for name, p in model.named_parameters()}


def scaled_steps(optimizer, parameters, recipe, scales=(1024.0,), bad=()):
    """Steps of a GradScaler by one of the recipes in use; `bad` steps have an infinite loss."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scales[0], growth_interval=3)
    for step in range(6):
        optimizer.zero_grad()
        loss = sum((p * (step + 1)).square().sum() for p in parameters)
        scaler.scale(loss * float("inf") if step in bad else loss).backward()
        recipe(scaler, optimizer, parameters)
        scaler.update()
    return scaler.get_scale()


def plain(scaler, optimizer, parameters):
    scaler.step(optimizer)


def clipped(scaler, optimizer, parameters):
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    scaler.step(optimizer)


def horovods(scaler, optimizer, parameters):
    if isinstance(optimizer, hb.DistributedOptimizer):
        optimizer.synchronize()
        scaler.unscale_(optimizer)
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
    else:
        scaler.step(optimizer)


def horovods_without_unscale(scaler, optimizer, parameters):
    if isinstance(optimizer, hb.DistributedOptimizer):
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
    else:
        scaler.step(optimizer)


class TestLossScaling:
    """0.1.0: a fused optimizer never got `grad_scale` and `found_inf`, and stepped by scaled gradients."""

    @pytest.mark.parametrize("recipe", [plain, clipped, horovods, horovods_without_unscale])
    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize("name", FUSED)
    def test_every_recipe_takes_the_steps_of_the_plain_optimizer(self, name, fused, recipe):
        theirs, ours = list(net().parameters()), list(net().parameters())
        want = FUSED[name](theirs, fused)
        got = hb.DistributedOptimizer(FUSED[name](ours, fused))
        scales = [scaled_steps(o, p, recipe, bad=(2, 3)) for o, p in ((want, theirs), (got, ours))]
        assert scales[0] == scales[1]  # lowered by both overflows
        for a, b in zip(theirs, ours, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)

    def test_a_scale_that_is_no_power_of_two(self):
        theirs, ours = list(net().parameters()), list(net().parameters())
        for optimizer, parameters in (
            (torch.optim.SGD(theirs, lr=0.1), theirs),
            (hb.DistributedOptimizer(torch.optim.SGD(ours, lr=0.1)), ours),
        ):
            scaled_steps(optimizer, parameters, plain, scales=(1000.0,))
        assert same(theirs, ours)

    def test_a_layer_thawed_between_two_steps(self):
        """What is unscaled before aggregation is what is trained now, not what was bound."""
        models = net(), net()
        for model, wrap in zip(models, (lambda o: o, hb.DistributedOptimizer), strict=True):
            model[0].requires_grad_(False)
            optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.1))
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            for _ in range(2):
                optimizer.zero_grad()
                scaler.scale(model(torch.ones(2, 4)).square().sum()).backward()
                scaler.step(optimizer)
                scaler.update()
                model[0].requires_grad_(True)
        assert same(values(models[0].parameters()), values(models[1].parameters()))

    def test_an_overflow_moves_nothing_not_even_by_momentum(self):
        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(torch.optim.SGD([p], lr=0.1, momentum=0.9))
        p.sum().backward()
        optimizer.step()
        before = p.tolist()
        optimizer.zero_grad()
        (p.sum() * float("inf")).backward()
        with pytest.warns(UserWarning, match="step left out: over half"):
            optimizer.step()
        assert p.tolist() == before

    def test_the_gradients_show_an_overflow_after_synchronize(self):
        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(torch.optim.SGD([p], lr=0.1))
        (p.sum() * float("nan")).backward()
        assert optimizer.synchronize().overflowed
        assert p.grad.isnan().all()
        with optimizer.skip_synchronize(), pytest.warns(UserWarning, match="left out"):
            optimizer.step()
        assert p.tolist() == [1.0, 1.0]


class TestOtherWaysToStep:
    """0.1.0: a method that steps under another name trained without any aggregation, and said nothing."""

    @pytest.mark.parametrize("method", ["first_step", "second_step"])
    def test_they_are_refused_before_aggregation(self, method):
        model = net()
        optimizer = hb.DistributedOptimizer(SharpnessAware(model.parameters()))
        model(torch.ones(2, 4)).square().sum().backward()
        if method == "second_step":
            optimizer.synchronize()
            optimizer.first_step()
            model(torch.ones(2, 4)).square().sum().backward()
        with pytest.raises(RuntimeError, match=rf"SharpnessAware\.{method}.*call optimizer\.synchronize\(\)"):
            getattr(optimizer, method)()

    @pytest.mark.parametrize("by_closure", [False, True])
    def test_they_work_with_aggregated_gradients(self, by_closure):
        x = torch.ones(2, 4)
        results = []
        for wrap in (lambda o: o, hb.DistributedOptimizer):
            model = net()
            optimizer = wrap(SharpnessAware(model.parameters()))
            synchronize = getattr(optimizer, "synchronize", lambda: None)

            def loss(model=model, optimizer=optimizer):
                value = model(x).square().sum()
                value.backward()
                return value

            for _ in range(3):
                optimizer.zero_grad()
                loss()
                if by_closure:
                    optimizer.step(loss)
                else:
                    synchronize()
                    optimizer.first_step()
                    loss()
                    synchronize()
                    optimizer.second_step()
            results.append(values(model.parameters()))
        assert same(*results)

    def test_methods_that_swap_parameters_between_steps_are_free(self):
        class Averaging(torch.optim.SGD):
            def swap(self):
                with torch.no_grad():
                    for p in self.param_groups[0]["params"]:
                        p.mul_(2)

        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(Averaging([p], lr=0.1))
        p.sum().backward()
        optimizer.step()
        optimizer.swap()
        assert p.tolist() == pytest.approx([1.8, 1.8])


class TestConvertedParameters:
    """0.1.0: the row's layout went by the parameters' identity, and rounded float64 to float32."""

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_a_model_converted_after_wrapping(self, dtype):
        model, twin = net(), net()
        optimizer = hb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        plain_optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        for step in range(3):
            if step == 1:
                model.to(dtype)
                twin.to(dtype)
            for network, o in ((model, optimizer), (twin, plain_optimizer)):
                o.zero_grad()
                network(torch.full((2, 4), 1 / 3, dtype=next(network.parameters()).dtype)).sum().backward()
                o.step()
        assert same(values(model.parameters()), values(twin.parameters()))
        assert optimizer.last.value.dtype == ("float64" if dtype == torch.float64 else "float32")
        assert optimizer.last.step == 2

    def test_a_resized_parameter(self):
        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(torch.optim.SGD([p], lr=0.1))
        p.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        p.data = torch.ones(5)
        p.sum().backward()
        optimizer.step()
        assert p.tolist() == pytest.approx([0.9] * 5)


@pytest.fixture
def other_defaults():
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    torch.set_default_device("meta")  # stands for "cuda"; the parameters are on the CPU
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_device(None if device.type == "cpu" else device)
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded"])
def test_other_default_device_and_dtype(other_defaults, collect):
    """0.1.0: the row was made on the default device; TypeError on one rank, a crash on two."""
    p = nn.Parameter(torch.ones(2, device="cpu", dtype=torch.float32))
    buffer = torch.ones(3, device="cpu", dtype=torch.float32)
    optimizer = hb.DistributedOptimizer(
        torch.optim.SGD([p], lr=1.0), collect=collect, buffers=[("b", buffer)], rule=hb.Median()
    )
    p.sum().backward()
    optimizer.step()
    assert p.tolist() == [0.0, 0.0]

    def closure():
        optimizer.zero_grad()
        loss = p.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert p.tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("scope", ["step", "synchronize", "closure"])
def test_a_compiled_training_step(scope):
    """0.1.0: a traceback from inside the library."""
    p = nn.Parameter(torch.ones(2))
    optimizer = hb.DistributedOptimizer(torch.optim.SGD([p], lr=0.1))

    def train():
        optimizer.zero_grad()
        if scope == "closure":
            optimizer.step(lambda: p.sum().backward())
            return
        p.sum().backward()
        if scope == "synchronize":
            optimizer.synchronize()
            with optimizer.skip_synchronize():
                optimizer.step()
        else:
            optimizer.step()

    compiled = torch.compile(train, backend="eager")
    for _ in range(2):
        compiled()
    assert p.tolist() == pytest.approx([0.8, 0.8])
    assert optimizer.ledger.steps == 2


class TestClosures:
    def test_the_wrapped_optimizer_gets_a_loss_of_the_callers_kind(self):
        kinds = []

        class Asking(torch.optim.SGD):
            def step(self, closure=None):
                kinds.append(closure())
                return kinds[-1]

        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(Asking([p], lr=0.1))

        def with_loss(kind):
            p.grad = torch.ones(2)
            return kind

        losses = [torch.tensor(2.5), torch.tensor([[2.5]], dtype=torch.float64), 2.5, None, (1, 2)]
        for loss in losses:
            optimizer.step(lambda loss=loss: with_loss(loss))
        assert kinds[0].dtype == torch.float32
        assert kinds[0].shape == ()
        assert kinds[1].shape == (1, 1)
        assert [float(k) for k in kinds[:3]] == [2.5] * 3
        assert kinds[3:] == [None, (1, 2)]

    def test_a_loss_that_is_not_finite_stays_so(self):
        p = nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(torch.optim.LBFGS([p], lr=1.0))

        def closure():
            optimizer.zero_grad()
            p.sum().backward()  # finite: a step whose gradients are not is left out
            return torch.tensor(float("inf"))

        loss = optimizer.step(closure)
        assert loss.isnan()
        assert p.isfinite().all()


def test_the_state_that_horovods_broadcast_asks_for_moves_no_parameter():
    """0.1.0: it called our collective step() on the ranks without a state, and hung."""
    p = nn.Parameter(torch.ones(2))
    optimizer = hb.DistributedOptimizer(torch.optim.Adam([p], lr=0.1, weight_decay=0.1))
    super(optimizer.__class__, optimizer).step()  # what Horovod calls
    assert p.tolist() == [1.0, 1.0]
    assert p.grad is None
    assert optimizer.ledger.steps == 0
    assert float(optimizer.state[p]["step"]) == 0.0


def _optimizers():
    """Optimizers that Horovod's broadcast_optimizer_state takes, also with options that add to the state."""
    kinds = torch.optim.Optimizer.__subclasses__()
    names = sorted(kind.__name__ for kind in kinds if kind.__module__.startswith("torch.optim."))
    options = {
        "SGD": [{"momentum": 0.9, "weight_decay": 0.1}],
        "Adam": [{"amsgrad": True, "weight_decay": 0.1}, {"fused": True}],
        "ASGD": [{"t0": 1.0}],
        "RMSprop": [{"centered": True, "momentum": 0.9}],
    }
    return [(name, more) for name in names if name != "LBFGS" for more in [{}, *options.get(name, [])]]


@pytest.mark.parametrize(("name", "options"), _optimizers(), ids=str)
def test_a_state_made_for_horovods_broadcast_is_that_of_a_fresh_optimizer(name, options):
    """0.1.0: it was the state after a step, with the weight decay in it."""
    results = []
    for broadcast in (False, True):
        torch.manual_seed(0)
        sparse = name == "SparseAdam"
        module = nn.Embedding(5, 3, sparse=True) if sparse else nn.Linear(5, 3, bias=False)
        inner = getattr(torch.optim, name)(module.parameters(), lr=0.1, **options)
        optimizer = hb.DistributedOptimizer(inner)
        if broadcast:
            super(optimizer.__class__, optimizer).step()  # what Horovod calls
        for step in range(3):
            x = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            module(torch.tensor([step, 4]) if sparse else x).square().sum().backward()
            optimizer.step()
        results.append((module.weight.detach().clone(), digest(inner)))
    (want, state), (got, state_of_broadcast) = results
    assert torch.equal(want, got)
    assert state == state_of_broadcast


class Eager(torch.optim.SGD):
    """Makes the state of some parameters in its constructor, as Adagrad did up to torch 2.11."""

    def __init__(self, params, count):
        super().__init__(params, lr=0.1)
        for p in self.param_groups[0]["params"][:count]:
            self.state[p]["sum"] = torch.full_like(p, 0.5)

    @torch.no_grad()
    def step(self, closure=None):
        for i, p in enumerate(self.param_groups[0]["params"]):
            if i >= 1:
                self.state[p].setdefault("sum", torch.full_like(p, 0.5))
            self.state[p]["sum"] += p.grad**2
            p -= 0.1 * p.grad / self.state[p]["sum"].sqrt()


@pytest.mark.parametrize("count", [1, 2])
def test_a_state_made_by_the_constructor_stays(count):
    """0.1.0 with torch 2.11: KeyError where Horovod broadcasts the state of Adagrad."""
    module = nn.Linear(5, 3)
    inner = Eager(module.parameters(), count)
    optimizer = hb.DistributedOptimizer(inner)
    before = copy.deepcopy(module.state_dict())
    super(optimizer.__class__, optimizer).step()  # what Horovod calls
    assert all(torch.equal(inner.state[p]["sum"], torch.full_like(p, 0.5)) for p in module.parameters())
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())


class Strange(torch.optim.SGD):
    """Keeps its state as users' own code does: by update, by setdefault, and with plain numbers."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            if not state:
                state.update(steps=0, mean=p.clone())
            slow = state.setdefault("slow", p.clone())
            state["steps"] += 1
            state["mean"] += (p - state["mean"]) / state["steps"]
            slow.lerp_(p, 0.5)
            p.add_(-1.0)


def test_the_state_of_a_users_own_optimizer_is_made_too():
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = hb.DistributedOptimizer(Strange([p], lr=0.1))
    super(optimizer.__class__, optimizer).step()
    state = optimizer.state[p]
    assert type(state) is dict
    assert state["steps"] == 0
    assert state["mean"].tolist() == state["slow"].tolist() == p.tolist() == [1.0, 2.0]


def test_sparse_gradients_stay_sparse_where_a_batch_leaves_the_table_out():
    table = nn.Embedding(10, 3, sparse=True)
    optimizer = hb.DistributedOptimizer(torch.optim.SparseAdam(table.parameters()))
    optimizer.step()  # refused a dense gradient
    assert table.weight.grad.is_sparse


class TestDigestOfNumbers:
    """Version 0.2.0: numbers went into the digest as they are written, so a rank with `lr=torch.tensor(0.1)`
    beside others with `lr=0.1` was accused of another state, though all took the same steps."""

    def adam(self, dtype=torch.float32, **options):
        weight = torch.nn.Parameter(torch.ones(3, dtype=dtype))
        return torch.optim.Adam([weight], **options)

    @pytest.mark.parametrize(
        "written",
        [
            {"lr": torch.tensor(0.1)},
            {"lr": np.float32(0.1)},
            {"lr": np.float64(0.1)},
            {"betas": (torch.tensor(0.9), torch.tensor(0.999))},
            {"weight_decay": 0},
            {"weight_decay": -0.0},
            {"amsgrad": 0},
        ],
        ids=str,
    )
    def test_the_same_number_written_differently_is_the_same(self, written):
        usual = {"lr": 0.1, "weight_decay": 0.0, "foreach": False}
        assert digest(self.adam(**usual)) == digest(self.adam(**{**usual, **written}))

    def test_lists_count_as_tuples(self):
        usual, other = self.adam(), self.adam()
        other.param_groups[0]["betas"] = [0.9, 0.999]
        assert digest(usual) == digest(other)

    def test_a_counter_of_steps_may_be_a_number(self):
        usual, other = self.adam(), self.adam()
        for optimizer, count in ((usual, torch.tensor(3.0)), (other, 3)):
            optimizer.state[optimizer.param_groups[0]["params"][0]] = {"step": count}
        assert digest(usual) == digest(other)

    @pytest.mark.parametrize("lr", [0.1 + 1e-7, 0.2, float("nan"), 1e300])
    def test_other_numbers_differ(self, lr):
        usual, other = self.adam(lr=0.1), self.adam(lr=0.1)
        other.param_groups[0]["lr"] = lr
        assert digest(usual) != digest(other)

    def test_with_float64_parameters_a_float32_rate_differs_from_a_float64_one(self):
        """Their steps differ: 0.1 is not torch.tensor(0.1)."""
        usual, other = (self.adam(torch.float64, lr=lr) for lr in (0.1, torch.tensor(0.1)))
        assert digest(usual) != digest(other)

    def test_the_sign_of_a_zero_parameter_counts(self):
        digests = set()
        for zero in (0.0, -0.0):
            digests.add(digest(torch.optim.SGD([torch.nn.Parameter(torch.tensor(zero))])))
        assert len(digests) == 2
