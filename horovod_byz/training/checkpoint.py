"""The state of a run in a checkpoint file: the checks before a run continues from it.

The file is sealed (see `common.sealed`). Its entry `model` is the model's `state_dict`, which
`model.load_state_dict` takes without this library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from horovod_byz.common.sealed import CheckpointError, digest_of, pack, read, sealed
from horovod_byz.ledger.ledger import Ledger

__all__ = ["CheckpointError", "check", "digest_of", "pack", "read", "sealed"]

# What a state holds, and of which type; `model`, `optimizer` and `ledger` are checked further.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "config": str,
    "step": int,
    "evaluated": int,
    "model": dict,
    "parameters": list,
    "optimizer": dict,
    "ledger": dict,
    "diverged_at": (int, type(None)),
    "losses": Tensor,
    "finite": bool,
    "metrics": str,
    "timings": str,
}


def check(state: Mapping[str, Any], path: Path, expected: Mapping[str, Any], most_steps: int) -> None:
    """Check that a run may continue from a state: complete, within bounds, of this run.

    Args:
        state: what `read` gave.
        path: its file, for messages.
        expected: the state of the run before its first step: its configuration, and the shape and dtype of
            its tensors.
        most_steps: the most steps that the run can have done.

    Raises:
        CheckpointError: at the first thing that is wrong.
    """
    try:
        _check_types(state)
        if state["config"] != expected["config"]:
            raise ValueError("belongs to a run with another configuration")
        _check_steps(state, most_steps)
        _check_tensor("losses", state["losses"], expected["losses"])
        _check_model(state["model"], expected["model"])
        _check_optimizer(state, expected)
        for name in ("momentum", "last_aggregate"):
            _check_remembered(name, state, expected)
        _check_ledger(state, len(expected["losses"]))
        _check_records(state)
        if state["finite"] and not finite(state):
            raise ValueError("holds parameters that are not finite, though those that were saved were")
    except ValueError as error:
        raise CheckpointError(f"{path} {error}") from error


def finite(state: Mapping[str, Any]) -> bool:
    """Whether every number that the next step starts from is finite."""
    return all(
        bool(torch.isfinite(tensor).all()) for tensor in _tensors([state["model"], state["optimizer"]])
    )


def _check_types(state: Mapping[str, Any]) -> None:
    missing = [name for name in _KEYS if name not in state]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    for name, kind in _KEYS.items():
        value = state[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"holds a {type(value).__name__} as {name}")


def _check_steps(state: Mapping[str, Any], most: int) -> None:
    step, evaluated, diverged = state["step"], state["evaluated"], state["diverged_at"]
    if not 0 <= step <= most:
        raise ValueError(f"is of step {step}, and the run has steps 0 to {most}")
    if not -1 <= evaluated <= step:
        raise ValueError(f"was evaluated at step {evaluated}, and is of step {step}")
    if diverged is not None and not 0 <= diverged < max(step, 1):
        raise ValueError(f"diverged at step {diverged}, and is of step {step}")


def _check_tensor(name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise ValueError(
            f"holds {name} of shape {tuple(tensor.shape)} and {tensor.dtype}, where the run has "
            f"{tuple(expected.shape)} and {expected.dtype}"
        )


def _check_model(model: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    if [*model] != [*expected]:
        odd = sorted({*map(str, model)} ^ {*expected}) or ["their order"]
        raise ValueError(f"holds the parameters of another model: {', '.join(odd[:5])} differ")
    for name, tensor in model.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"holds a {type(tensor).__name__} as {name}")
        _check_tensor(name, tensor, expected[name])


def _check_optimizer(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Only the moments are taken from a checkpoint; learning rate and the like are the configuration's."""
    moments = state["optimizer"].get("state")
    if not isinstance(moments, dict) or not all(isinstance(entries, dict) for entries in moments.values()):
        raise ValueError("holds no state of an optimizer")
    options = expected["optimizer"]["param_groups"][0]
    names = {"momentum_buffer"} if options.get("momentum") else set()
    if "betas" in options:
        names = {"step", "exp_avg", "exp_avg_sq"}
    held = {name for entries in moments.values() for name, value in entries.items() if value is not None}
    # The optimizer numbers its parameters.
    numbered = dict(enumerate(expected["parameters"]))
    if (
        state["parameters"] != expected["parameters"]
        or not {*moments} <= {*numbered}
        or held != (names if state["step"] else set())
    ):
        raise ValueError("holds the state of another optimizer")
    for number, entries in moments.items():
        for name, tensor in entries.items():
            if isinstance(tensor, Tensor) and name != "step":  # Adam counts its steps in a scalar
                _check_tensor("a moment of the optimizer", tensor, expected["model"][numbered[number]])


def _check_remembered(name: str, state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """What workers or a rule remember, where those of the run do."""
    tensor, wanted = state.get(name), expected.get(name)
    if wanted is None:
        return
    if not isinstance(tensor, Tensor):
        raise ValueError(f"lacks {name}")
    _check_tensor(name, tensor, wanted)
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"holds {name} that is not finite")


def _check_ledger(state: Mapping[str, Any], n: int) -> None:
    for name in ("byzantine", "honest"):
        ledger = Ledger()
        try:
            ledger.load_state_dict(state["ledger"][name])
            accounts = [ledger.account(account["worker"]) for account in ledger.report()["workers"]]
            infinite = any(math.isinf(account.weight) for account in accounts)  # NaN: it was not measured
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError("holds no verdicts of its step") from error
        if ledger.steps != state["step"] or not {account.worker for account in accounts} <= {*range(n)}:
            raise ValueError("holds no verdicts of its step")
        if infinite:
            raise ValueError("holds verdicts that are not finite")


def _check_records(state: Mapping[str, Any]) -> None:
    steps: list[Any] = []
    for name in ("timings", "metrics"):
        try:
            steps = [json.loads(line)["step"] for line in state[name].splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"holds {name} that are no JSON lines") from error
    if state["evaluated"] >= 0 and steps[-1:] != [state["evaluated"]]:
        raise ValueError(f"holds no evaluation of step {state['evaluated']}")


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
