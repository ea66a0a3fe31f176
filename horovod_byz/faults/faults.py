"""`Faults`: the script of a rehearsal, built by calls or read from text."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from horovod_byz.common.words import known
from horovod_byz.faults import ranks, rows, silent
from horovod_byz.faults.base import Fault, call_of, made

if TYPE_CHECKING:
    import torch

Optimizer = TypeVar("Optimizer", bound="torch.optim.Optimizer")

VARIABLE = "HOROVOD_BYZ_FAULTS"
EXAMPLE = "nan(worker=3, at=10); kill(rank=1, at=30)"

_KINDS: tuple[type[Fault], ...] = (
    *(rows.Nan, rows.Infinite, rows.Zero, rows.Constant, rows.Scale, rows.FlipSign, rows.Perturb),
    *(rows.Stale, silent.Bitflip, silent.Burst, silent.Corrupt, rows.Attack),
    *(ranks.Slow, ranks.Stall, ranks.Freeze, ranks.Kill, ranks.Leave, ranks.Fail),
    *(ranks.FlipParameter, ranks.FlipState, ranks.LieAsAggregator, ranks.TamperAsRelay),
)
KINDS = {call_of(kind): kind for kind in _KINDS}


@dataclass(frozen=True, repr=False)
class Faults:
    """Faults to inject on purpose, by worker or rank and by step: a value; each call returns a longer one.

    Every call takes the steps at which it takes place: `at`, a step or a tuple of steps; or `every`,
    `start` and `until` (exclusive); every step where none is given. Steps count from 0, as in the ledger.
    Calls that draw positions take a `seed`. Faults act in the order written.

    Faults of a worker hit the row that it is about to send, before the row is digested. Faults of a rank
    hit its process, its parameters, or its role as an aggregator or a relay.

    Examples:
        >>> import horovod_byz as hb
        >>> faults = hb.Faults().nan(worker=3, at=10).bitflip(worker=5, bit=30, every=7).kill(rank=1, at=30)
        >>> faults
        Faults().nan(worker=3, at=10).bitflip(worker=5, bit=30, every=7).kill(rank=1, at=30)
        >>> hb.Faults.parse("nan(worker=3, at=10)") == hb.Faults().nan(worker=3, at=10)
        True

    `optimizer = faults.around(optimizer)` injects them into a run; so does the environment variable
    HOROVOD_BYZ_FAULTS, in the form that `parse` reads, without a change to the script.
    """

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "faults", tuple(self.faults))
        for fault in self.faults:
            if not isinstance(fault, Fault):
                raise TypeError(
                    f"Faults: build them by calls, such as Faults().{EXAMPLE.split(';')[0]}; got {fault!r}"
                )

    # Rows: what a worker sends.

    def nan(self, worker: int, **more: Any) -> Faults:
        """`worker` sends NaN: everywhere, or in `count` values."""
        return self._and("nan", worker=worker, **more)

    def infinite(self, worker: int, **more: Any) -> Faults:
        """`worker` sends +Inf: everywhere, or in `count` values."""
        return self._and("infinite", worker=worker, **more)

    def zero(self, worker: int, **more: Any) -> Faults:
        """`worker` sends zeros: everywhere, or in `count` values."""
        return self._and("zero", worker=worker, **more)

    def constant(self, worker: int, value: float, **more: Any) -> Faults:
        """`worker` sends `value` everywhere."""
        return self._and("constant", worker=worker, value=value, **more)

    def scale(self, worker: int, factor: float, **more: Any) -> Faults:
        """`worker` sends its row times `factor`."""
        return self._and("scale", worker=worker, factor=factor, **more)

    def flip_sign(self, worker: int, **more: Any) -> Faults:
        """`worker` sends its row negated."""
        return self._and("flip_sign", worker=worker, **more)

    def perturb(self, worker: int, **more: Any) -> Faults:
        """`worker` sends each value times 1 + scale N(0, 1); `scale` is 1e-3."""
        return self._and("perturb", worker=worker, **more)

    def stale(self, worker: int, **more: Any) -> Faults:
        """`worker` sends the row that it computed `age` steps ago; `age` is 1."""
        return self._and("stale", worker=worker, **more)

    def bitflip(self, worker: int, bit: int | tuple[int, ...], **more: Any) -> Faults:
        """`worker` sends `count` = 1 value with bits flipped, drawn, or `coordinate` and those behind it.

        Bits count as in a float32: 0..22 the mantissa, 23..30 the exponent, 31 the sign.
        """
        return self._and("bitflip", worker=worker, bit=bit, **more)

    def burst(self, worker: int, **more: Any) -> Faults:
        """`worker` sends `length` = 32 values with flipped bits, `period` = 1 apart, up to bit `highest`."""
        return self._and("burst", worker=worker, **more)

    def corrupt(self, worker: int, **more: Any) -> Faults:
        """`worker` sends silent corruption as published: another pattern at each step."""
        return self._and("corrupt", worker=worker, **more)

    def attack(self, worker: int, attack: str, **more: Any) -> Faults:
        """`worker` sends the row of an attack of `hb.attacks`, such as "gaussian:std=10"."""
        return self._and("attack", worker=worker, attack=attack, **more)

    # Ranks: their processes, memory and roles.

    def slow(self, rank: int, seconds: float, **more: Any) -> Faults:
        """`rank` comes `seconds` late."""
        return self._and("slow", rank=rank, seconds=seconds, **more)

    def stall(self, rank: int, **more: Any) -> Faults:
        """`rank` never comes, though its process lives."""
        return self._and("stall", rank=rank, **more)

    def freeze(self, rank: int, **more: Any) -> Faults:
        """The process of `rank` stops, by SIGSTOP."""
        return self._and("freeze", rank=rank, **more)

    def kill(self, rank: int, **more: Any) -> Faults:
        """The process of `rank` ends by `signal` = "KILL"."""
        return self._and("kill", rank=rank, **more)

    def leave(self, rank: int, **more: Any) -> Faults:
        """The script of `rank` ends, with exit code `code` = 0."""
        return self._and("leave", rank=rank, **more)

    def fail(self, rank: int, **more: Any) -> Faults:
        """The script of `rank` raises a RuntimeError."""
        return self._and("fail", rank=rank, **more)

    def flip_parameter(self, rank: int, **more: Any) -> Faults:
        """`bit` = 22 of a parameter of `rank` is flipped: `element` of number `tensor`, or drawn ones."""
        return self._and("flip_parameter", rank=rank, **more)

    def flip_state(self, rank: int, **more: Any) -> Faults:
        """`bit` = 22 of the optimizer's state of `rank` is flipped, likewise."""
        return self._and("flip_state", rank=rank, **more)

    def lie_as_aggregator(self, rank: int, **more: Any) -> Faults:
        """`rank` multiplies all rows that it aggregates by `factor` = 3."""
        return self._and("lie_as_aggregator", rank=rank, **more)

    def tamper_as_relay(self, rank: int, victim: int, **more: Any) -> Faults:
        """`rank` rewrites what it relays for rank `victim`."""
        return self._and("tamper_as_relay", rank=rank, victim=victim, **more)

    def around(self, optimizer: Optimizer) -> Optimizer:
        """Injects the faults into the steps of an optimizer, from its next step on, and returns it.

        All ranks call it with the same faults. They replace those of HOROVOD_BYZ_FAULTS; no faults end a
        rehearsal.

        Raises:
            TypeError: if it is no `hb.DistributedOptimizer`.
        """
        rehearse = getattr(type(optimizer), "_rehearse", None)
        if rehearse is None:
            raise TypeError(
                f"Faults.around needs a horovod_byz.DistributedOptimizer, got {type(optimizer).__name__}: "
                "wrap the optimizer first (with rule=hb.Mean() it averages, as Horovod's does)"
            )
        rehearse(optimizer, self)
        return optimizer

    def _and(self, name: str, **given: Any) -> Faults:
        return Faults((*self.faults, made(KINDS[name], given)))

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Reads calls separated by semicolons or new lines, or what `repr` gave. Nothing is executed.

        Raises:
            ValueError: if the text is anything else, or a call is not allowed; it names the call.

        Examples:
            >>> Faults.parse("nan(worker=3, at=10); kill(rank=1, at=30)")
            Faults().nan(worker=3, at=10).kill(rank=1, at=30)
        """
        try:
            statements = ast.parse(text.strip()).body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise ValueError(f"faults {text!r} cannot be read ({error}): write {EXAMPLE!r}") from error
        faults: list[Fault] = []
        for statement in statements:
            if not isinstance(statement, ast.Expr):
                raise _unreadable(statement)
            faults += _chain(statement.value)
        return cls(tuple(faults))

    @classmethod
    def from_environment(cls) -> Faults:
        """The faults of the environment variable HOROVOD_BYZ_FAULTS; none where it is not set.

        Raises:
            ValueError: if its text cannot be read.
        """
        try:
            return cls.parse(os.environ.get(VARIABLE, ""))
        except ValueError as error:
            raise ValueError(f"{VARIABLE}: {error}") from error

    def __bool__(self) -> bool:
        return bool(self.faults)

    def __repr__(self) -> str:
        return "".join(["Faults()", *(f".{fault}" for fault in self.faults)])


def _chain(node: ast.expr) -> list[Fault]:
    """The faults of `name(...)`, or of `Faults().name(...).name(...)`."""
    if not isinstance(node, ast.Call):
        raise _unreadable(node)
    if isinstance(node.func, ast.Attribute):
        return [*_chain(node.func.value), _fault(node.func.attr, node)]
    if not isinstance(node.func, ast.Name):
        raise _unreadable(node)
    if node.func.id == "Faults" and not (node.args or node.keywords):
        return []
    return [_fault(node.func.id, node)]


def _fault(name: str, call: ast.Call) -> Fault:
    known(name, KINDS, "fault")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(
            f"fault {ast.unparse(call)!r}: name its arguments, such as {EXAMPLE.split(';')[0]!r}"
        )
    try:
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except ValueError:
        raise ValueError(
            f"fault {ast.unparse(call)!r}: arguments must be numbers, tuples or quoted text"
        ) from None
    try:
        return made(KINDS[name], given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fault {ast.unparse(call)!r}: {error}") from error


def _unreadable(node: ast.AST) -> ValueError:
    return ValueError(f"faults: {ast.unparse(node)!r} is no fault: write {EXAMPLE!r}")
