"""What users hand over as rows and as rules: read correctly, or refused by an error that names the remedy.

0.1.0: rule="median", rule=hb.Median, lists, unaligned arrays, subclasses and negated views gave an
AttributeError or a TypeError from inside; the mask of a masked array was ignored.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz import attacks, rules
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.collect import bind
from horovod_byz.rules import Condition
from horovod_byz.rules.base import RowRule
from horovod_byz.training import config as configs

X = np.random.default_rng(0).standard_normal((9, 33))
MEDIAN = np.median(X, axis=0)


class Named(torch.Tensor):
    """A subclass as users write them: in no module of torch."""


class Elsewhere(torch.Tensor):
    """A subclass whose own memory holds nothing, as a distributed or a fake tensor is."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, call, types, args=(), kwargs=None):
        raise NotImplementedError("no operation of this tensor may be called")


def unaligned(rows):
    """A copy at an odd address, as a header of odd length gives in a memory-mapped file."""
    memory = np.zeros(rows.nbytes + 1, np.uint8)
    copy = memory[1:].view(rows.dtype).reshape(rows.shape)
    copy[:] = rows
    assert not copy.flags.aligned
    return copy


def negated(tensor):
    """A view whose negation is still pending."""
    view = torch.complex(tensor, -tensor).conj().imag
    assert view.is_neg()
    return view


def tensor(dtype=torch.float64):
    return torch.from_numpy(X).to(dtype)


READ = {
    "lists": lambda: X.tolist(),
    "tuples": lambda: tuple(map(tuple, X.tolist())),
    "unaligned": lambda: unaligned(X),
    "unaligned rows": lambda: list(unaligned(X)),
    "unaligned float32": lambda: unaligned(X.astype(np.float32)),
    "unaligned half": lambda: unaligned(X.astype(np.float16)),
    "byte-swapped": lambda: X.astype(X.dtype.newbyteorder()),
    "byte-swapped half": lambda: X.astype(np.dtype(np.float16).newbyteorder()),
    "every other column": lambda: np.repeat(X, 2, axis=1)[:, ::2],
    "columns backwards": lambda: np.ascontiguousarray(X[:, ::-1])[:, ::-1],
    "Fortran order": lambda: np.asfortranarray(X),
    "read-only": lambda: np.frombuffer(X.tobytes()).reshape(X.shape),
    "long double": lambda: X.astype(np.longdouble),
    "tensor": tensor,
    "transposed tensor": lambda: tensor().t().contiguous().t(),
    "list of tensors": lambda: list(tensor()),
    "parameter": lambda: torch.nn.Parameter(tensor()),
    "in a graph": lambda: tensor().requires_grad_() * 1,
    "subclass": lambda: tensor().as_subclass(Named),
    "list of a subclass": lambda: list(tensor().as_subclass(Named)),
    "pending negation": lambda: negated(tensor()),
    "list with pending negations": lambda: list(negated(tensor())),
    "half with pending negation": lambda: negated(tensor(torch.float32)).half(),
    "bfloat16": lambda: tensor(torch.bfloat16),
}


@pytest.mark.parametrize("kind", READ)
def test_rows_are_read_rightly(kind):
    data = READ[kind]()
    value = hb.Median()(data)
    if isinstance(data[0], torch.Tensor):
        assert type(value) is torch.Tensor
        assert value.dtype == data[0].dtype
        assert not value.requires_grad
        value = value.double().numpy()
    else:
        assert type(value) is np.ndarray
        assert value.dtype == (data[0].dtype if isinstance(data[0], np.ndarray) else np.float64)
    close = {"rtol": 1e-2, "atol": 1e-2} if "half" in kind or "16" in kind else {"rtol": 1e-6}
    np.testing.assert_allclose(value.astype(float), MEDIAN, **close)


def test_a_memory_mapped_file_with_an_odd_header_is_read(tmp_path):
    (tmp_path / "rows").write_bytes(b"#" + X.tobytes())
    mapped = np.memmap(tmp_path / "rows", np.float64, "r", offset=1, shape=X.shape)
    value = hb.Krum(f=2)(mapped)
    assert type(value) is np.ndarray
    np.testing.assert_array_equal(value, hb.Krum(f=2)(X))


def test_lists_of_whole_numbers_are_floats():
    np.testing.assert_array_equal(hb.Median()([[1, 2], [2, 3]]), [1.5, 2.5])


def masked_tensor():
    from torch.masked import masked_tensor as make

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class is a prototype
        return make(tensor(), tensor() > 0)


def nested_tensor():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(3), torch.ones(4)])


REFUSED = {
    "masked": (lambda: np.ma.masked_array(X, X > 0), TypeError, r"masked array.*filled"),
    "masked rows": (lambda: list(np.ma.masked_array(X, X > 0)), TypeError, r"masked array.*filled"),
    "masked tensor": (masked_tensor, TypeError, r"MaskedTensor.*plain\s+tensors first"),
    "values elsewhere": (
        lambda: Elsewhere(tensor()),
        TypeError,
        "Elsewhere, which keeps its values elsewhere",
    ),
    "nested tensor": (nested_tensor, TypeError, "nested tensor: give a list"),
    "sparse": (lambda: tensor().to_sparse(), TypeError, r"must be dense.*to_dense"),
    "meta": (lambda: tensor().to("meta"), TypeError, "'meta', which holds no values"),
    "conjugated": (lambda: torch.complex(tensor(), tensor()).conj(), TypeError, "must be floating point"),
    "objects": (lambda: X.astype(object), TypeError, "floating point, got dtype object"),
    "texts": (lambda: [["1", "2"]], TypeError, "row 0 must be a list of numbers"),
    "truth values": (lambda: [[True, False]], TypeError, "row 0 must be a list of numbers, got bool"),
    "huge numbers": (lambda: [[2**70]], TypeError, "row 0 must be a list of numbers, got object"),
    "uneven lists": (lambda: [[1.0, 2.0], [1.0]], ValueError, "row 1 has 1 coordinates where row 0 has 2"),
    "ragged list": (lambda: [[1.0, [2.0, 3.0]]], ValueError, "row 0 must be a list of numbers"),
    "deep lists": (lambda: [[[1.0], [2.0]]], ValueError, r"shape \(2, 1\): flatten it first"),
    "lists and arrays": (lambda: [[1.0, 2.0], np.ones(2)], TypeError, "row 0 must be a 1-D array"),
    "gradients by parameter": (lambda: [[torch.ones(3), torch.ones(2)]] * 3, TypeError, r"torch\.cat"),
    "0-d": (lambda: np.array(1.0), ValueError, r"shape \(n, d\), got \(\)"),
    "0-d tensor": (lambda: torch.tensor(1.0), ValueError, r"shape \(n, d\), got \(\)"),
    "3-d": (lambda: np.zeros((2, 2, 2)), ValueError, r"\(2, 2, 2\)"),
    "iterator": (lambda: iter(X), TypeError, r"got \w*iterator"),
    "dict": (lambda: {"a": X}, TypeError, "got dict"),
    "memory": (lambda: memoryview(X), TypeError, "got memoryview"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_unreadable_rows_give_a_clear_error(kind):
    make, error, words = REFUSED[kind]
    with pytest.raises(error, match=words):
        hb.Median()(make())


@pytest.mark.parametrize(
    "kind", ["unaligned", "every other column", "subclass", "pending negation", "parameter"]
)
def test_a_session_reads_the_same(kind):
    session = bind("symmetric", X.shape[1], np.float64, local_workers=len(X))
    np.testing.assert_allclose(session.step(READ[kind](), hb.Median()).value, MEDIAN)


@pytest.mark.parametrize(
    "data", [np.ma.masked_array(X, X > 0), X.astype(">f8"), X.tolist(), X.astype(np.float32)]
)
def test_a_session_refuses_the_same(data):
    session = bind("symmetric", X.shape[1], np.float64, local_workers=len(X))
    with pytest.raises(TypeError, match=r"masked|dtype float64, got"):
        session.step(data, hb.Median())


# rules


def model():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def optimizer(rule):
    return hb.DistributedOptimizer(torch.optim.SGD(model().parameters(), lr=0.1), rule=rule)


TAKERS = {
    "aggregate": lambda rule: hb.aggregate(X, rule),
    "step": lambda rule: bind("symmetric", X.shape[1], np.float64, len(X)).step(X, rule),
    "optimizer": optimizer,
    "buffers": lambda rule: hb.aggregate_buffers(model(), rule),
    "inner": lambda rule: hb.Hierarchical(rule, hb.Mean(), groups=1),
    "outer": lambda rule: hb.Detox(hb.Redundancy(3), hb.Mean(), rule),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_rule_may_be_given_by_its_name(taker):
    TAKERS[taker]("median")
    TAKERS[taker]("trimmed-mean:f=0")
    TAKERS[taker]("hierarchical:inner=mean,outer=median,groups=1")


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (hb.Median, TypeError, "the class Median: pass hb.Median(), not the class"),
        (hb.Krum, TypeError, "pass hb.Krum(f=1), not the class"),
        (
            hb.Detox,
            TypeError,
            "pass hb.Detox(redundancy=hb.Redundancy(r=3), inner=hb.Mean(), outer=hb.Median())",
        ),
        (
            np.median,
            TypeError,
            "must be a rule such as hb.Krum(f=1), or its name such as 'krum:f=1', got <function",
        ),
        (3, TypeError, "got 3"),
        (["median"], TypeError, "got ['median']"),
        ("medain", ValueError, "did you mean 'median'?"),
        ("krum", ValueError, "rule 'krum' is missing its option f: write for example 'krum:f=1'"),
        ("draco", ValueError, "missing its option f: write for example 'draco:f=1'"),
        ("krum:g=1", ValueError, "unknown option of rule 'krum' 'g': choose one of f"),
        ("krum:f=many", ValueError, "f must be a whole number >= 0, got 'many'"),
        ("krum:f", ValueError, "not of the form name:option=value"),
        ("majority-vote:tolerance=x", ValueError, "tolerance must be a number"),
        ("majority-vote:lazy=yes", ValueError, "lazy must be True or False, got 'yes'"),
        ("hierarchical", ValueError, "missing its options inner, outer, groups: write for example 'hier"),
        ("hierarchical:inner=mean,outer=krum,groups=5", ValueError, "rule 'krum' is missing its option f"),
        ("detox", ValueError, "pass hb.Detox(redundancy, inner=..., outer=..., groups=...)"),
        ("detox-median:f=1", ValueError, "hb.Detox.preset"),
    ],
)
def test_a_value_that_is_no_rule_gives_a_clear_error(taker, rule, error, words):
    with pytest.raises(error, match=re.escape(words)):
        TAKERS[taker](rule)


def test_names_and_values_mean_the_same():
    assert rules.as_rule("multi-krum:f=2,m=3") == hb.MultiKrum(f=2, m=3)
    assert rules.as_rule(hb.Median()) == hb.Median()
    for kind in rules.with_condition():
        needs = {"f": 1} if issubclass(kind, rules.BoundedRule) else {}
        options = {"tau": 1.0} if kind is hb.CenteredClipping else needs
        rule = rules.by_name(rules.name_of(kind), **options)
        assert type(rule) is kind


def test_a_rule_of_ones_own_gets_a_name():
    class TakeFirst(hb.Median):
        """A rule of a user."""

    rules.register(TakeFirst)
    try:
        assert rules.as_rule("take-first") == TakeFirst()
    finally:
        rules.RULES.remove("take-first")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"rule": "detox"},
            "rule 'detox' is missing its options inner, outer: write for example 'detox:inner=mean",
        ),
        ({"rule": "detox:inner=mean"}, "missing its option outer"),
        ({"rule": "detox-median:f=x"}, "f must be a whole number >= 0, got 'x'"),
        ({"rule": "hierarchical"}, "missing its options inner, outer, groups"),
        ({"rule": "krum:f=x"}, "f must be a whole number"),
        ({"rule": "draco:f=1"}, "needs redundancy groups of r = 2f + 1 = 3"),
        ({"rule": "draco:r=3"}, "unknown option of rule 'draco' 'r'"),
        ({"rule": "majority-vote:tolerance=x"}, "tolerance must be a number"),
        (
            {"attack": "inner-product"},
            "attack 'inner-product' is missing its option epsilon: write for example 'inner-product:epsilon=",
        ),
        ({"attack": "gaussian:std=x"}, "std must be a finite number"),
        (
            {"attack": "gaussian:s=1"},
            "unknown option of attack 'gaussian' 's': did you mean 'std'? choose one of std",
        ),
        ({"collect": "root:dedicated=maybe"}, "got dedicated = 'maybe': use true or false"),
        ({"collect": "sharded:replicas=x"}, "replicas must be a whole number"),
    ],
)
def test_the_command_line_says_what_is_missing(options, words):
    with pytest.raises(configs.ConfigError, match=re.escape(words)):
        configs.make({"workers": 9, "byzantine": 1, **options})


def test_an_unknown_attack_is_hinted_at_once():
    with pytest.raises(configs.ConfigError) as error:
        configs.make({"byzantine": 1, "attack": "gaussain"})
    assert str(error.value).count("did you mean") == 1
    assert attacks.by_name("gaussian") == attacks.Gaussian()


@pytest.mark.parametrize("collect", [hb.Root, ["root"], None])
def test_a_value_that_is_no_collector_gives_a_clear_error(collect):
    with pytest.raises(ValueError, match="collect must be one of 'symmetric'"):
        bind(collect, 3, np.float32)


def _weighing(weights):
    @dataclass(frozen=True)
    class Own(RowRule):
        condition: ClassVar[Condition] = Condition(2, 1)

        def weigh(self, statistics):
            return weights

    return Own()


def _deciding(decision):
    @dataclass(frozen=True)
    class Own(hb.Rule):
        def max_byzantine(self, n):
            return 0

        def decide(self, statistics):
            return decision

    return Own()


@pytest.mark.parametrize("around", [lambda rule: rule, lambda rule: hb.Hierarchical(rule, hb.Median(), 1)])
@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (
            _weighing(np.ones(3)),
            ValueError,
            "weigh must give one weight for each of 5 rows, got the shape (3,)",
        ),
        (_weighing(0.2), ValueError, "got the shape ()"),
        (_weighing(np.ones((5, 5))), ValueError, "got the shape (5, 5)"),
        (_weighing(np.full(5, np.nan)), ValueError, "weigh must give finite weights, got nan for row 0 of 5"),
        (_weighing(np.ones(5) * 1j), TypeError, "got ndarray of dtype complex128"),
        (_weighing(None), TypeError, "got NoneType"),
        (_weighing("equal"), TypeError, "got str"),
        (_weighing([1, [2, 3]]), TypeError, "one weight for each of 5 rows"),
        (
            _deciding(None),
            TypeError,
            "decide must return a decision such as Weighted.uniform(n, rows), got NoneType",
        ),
        (_deciding(np.ones(5)), TypeError, "got ndarray of dtype float64"),
        (_deciding(Weighted(np.ones(4))), ValueError, "decide must give one weight for each of 5 rows"),
    ],
)
def test_a_rule_of_ones_own_that_answers_wrongly_is_named(rule, error, words, around):
    """Complex weights gave zero, one number counted for every row, others failed inside NumPy."""
    with pytest.raises(error, match=re.escape(words)):
        hb.aggregate(np.ones((5, 3)), around(rule))


@pytest.mark.parametrize("weights", [[1, 0, 0, 0, 0], np.array([1, 0, 0, 0, 0], np.int8), (1.0, 0, 0, 0, 0)])
def test_weights_may_be_whole_numbers_or_a_list(weights):
    rows = np.arange(15.0).reshape(5, 3)
    for rule in (_weighing(weights), _deciding(Weighted(weights))):
        np.testing.assert_array_equal(rule(rows), rows[0])


def test_a_row_is_not_counted_from_the_end():
    with pytest.raises(IndexError, match="chosen must be rows from 0 to 4, got -1"):
        Weighted.uniform(5, [1, -1])


def test_a_condition_is_a_condition():
    with pytest.raises(TypeError, match=re.escape("Own: condition must be a Condition(slope, offset)")):
        type("Own", (RowRule,), {"condition": "n > 2f"})


@pytest.mark.parametrize("segments", ["ab", 5, [1.5, 3]])
def test_segments_are_whole_numbers(segments):
    with pytest.raises(TypeError, match="segments must be a sequence of whole numbers, got"):
        hb.aggregate(np.ones((3, 3)), hb.Median(), segments=segments)


@pytest.mark.parametrize("n", ["a", 1.5, None, True, np.float64(9), -1])
@pytest.mark.parametrize(
    "rule",
    [
        *(
            hb.Mean(),
            hb.Median(),
            hb.Krum(f=1),
            hb.MultiKrum(f=1, m=2),
            hb.Bulyan(f=1),
            hb.BrSGD(),
            hb.Medoid(),
        ),
        *(hb.MajorityVote(), hb.Draco(f=1), hb.Hierarchical(hb.Mean(), hb.Median(), groups=3)),
        hb.Detox(hb.Redundancy(r=3), hb.Mean(), hb.Median()),
        rules.Without(hb.Median(), (1,)),
    ],
    ids=repr,
)
def test_a_number_of_rows_that_is_none_is_an_error_in_words(rule, n):
    """0.2.0: max_byzantine("a") gave "'<' not supported between instances of 'str' and 'int'"."""
    for call in (rule.max_byzantine, rule.defined_for):
        with pytest.raises((TypeError, ValueError), match=rf"{type(rule).__name__}: n must be"):
            call(n)
    assert rule.max_byzantine(np.int64(9)) == rule.max_byzantine(9)


@pytest.mark.parametrize("step", ["a", -1, 1.5, None])
def test_a_step_that_is_none_is_an_error_in_words(step):
    """0.2.0: step="a" was taken by rules without draws; -1 stands for binding inside a session."""
    with pytest.raises((TypeError, ValueError), match="aggregate: step must be"):
        hb.aggregate(X, hb.Median(), step=step)
    if step is not None:
        with pytest.raises((TypeError, ValueError), match="Session: step must be"):
            bind("symmetric", 4, np.float32).step(np.zeros((1, 4), np.float32), hb.Mean(), step=step)


def test_a_rule_whose_options_equality_misses_is_refused():
    """0.2.0: Hidden(1) == Hidden(2), so that ranks with other options did not see it."""

    class Hidden(RowRule):
        condition = Condition(0, 1)

        def __init__(self, k):
            object.__setattr__(self, "k", k)

        def weigh(self, statistics):
            return np.ones(statistics.n)

    class Derived(Hidden):
        pass

    class Bare(hb.Krum):
        def __init__(self, k=1):
            super().__init__(f=k)

    for kind in (Hidden, Derived, Bare):
        with pytest.raises(TypeError, match=r"(Hidden|Bare): a rule with options must be a frozen dataclass"):
            kind(1)

    class Fixed(hb.Krum):
        def __init__(self):
            super().__init__(f=2)

    @dataclass(frozen=True)
    class Own(RowRule):
        k: int
        condition: ClassVar = Condition(0, 1)

        def __init__(self, k):
            object.__setattr__(self, "k", 2 * k)

        def weigh(self, statistics):
            return np.ones(statistics.n)

    assert Fixed().f == 2
    assert Own(1) != Own(2)
    assert Own(1) == Own(1)


WRONG = {
    "wire": (3, TypeError, "wire must be a function"),
    "threads": ("x", TypeError, "threads must be a whole number >= 1"),
    "buffers": (torch.nn.BatchNorm1d(2), TypeError, r"give model.named_buffers\(\)"),
    "ledger": (3, TypeError, "ledger must be a folder, a hb.Ledger or None, got int"),
    "num_groups": (-1, ValueError, "num_groups must be >= 0"),
    "backward_passes_per_step": (1.5, TypeError, "backward_passes_per_step must be a whole number >= 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_the_optimizer_that_is_none(name):
    value, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        hb.DistributedOptimizer(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0), **{name: value})


def test_what_may_be_set_later_and_what_may_not():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = hb.DistributedOptimizer(torch.optim.SGD([parameter], lr=1.0))
    optimizer.backward_passes_per_step = 2
    for _ in range(2):
        parameter.sum().backward()
    optimizer.step()
    assert parameter.tolist() == [-1.0, -1.0]
    for name in ("collect", "timeout", "buffers", "worker_momentum"):
        with pytest.raises(AttributeError, match=f"{name} is an argument .* anew with {name}="):
            setattr(optimizer, name, None)
    optimizer.custom = 3
    assert optimizer.optimizer.custom == 3
