"""Taking up a run: what must be as before, and which checkpoint all ranks can continue from."""

from __future__ import annotations

from typing import Any

from horovod_byz.collect.errors import names
from horovod_byz.common.atomic import RunError
from horovod_byz.training import checkpoint
from horovod_byz.training.checkpoint import CheckpointError
from horovod_byz.training.config import RunConfig
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import CHECKPOINTS, RunFolder
from horovod_byz.training.trainer import Trainer

__all__ = ["finished", "opens", "take_up"]

_NONE = "-"  # what a rank says that has no such checkpoint; others say its digest


def opens(config: RunConfig, folder: RunFolder, ranks: Ranks) -> bool:
    """Whether the folder holds a run that `config` continues; all ranks call it together.

    Raises:
        RunError: when it holds another run, or the ranks do not see the same.
    """
    with ranks.together("run folder"):
        folder.check_whole()
        if folder.exists:
            check_same(config, folder)
            if folder.complete and not finished(config, folder):
                _check_extensible(folder)
    seen = ranks.say(f"{folder.exists} {folder.complete}", "run folder")
    odd = [rank for rank, other in enumerate(seen) if other != seen[0]]
    if odd:
        raise RunError(
            f"{names(odd)} and rank 0 see different files in {folder.path}: every rank reads it, so put it "
            "on a file system that all hosts share, or copy it to each"
        )
    return folder.exists


def finished(config: RunConfig, folder: RunFolder) -> bool:
    """Whether the folder holds the complete run, of as many steps."""
    return folder.complete and folder.config.steps == config.steps


def check_same(config: RunConfig, folder: RunFolder) -> None:
    """Check that a configuration continues the run of a folder: all but the number of steps is equal.

    Raises:
        RunError: naming what differs.
    """
    old, new = folder.config.to_data(), config.to_data()
    changed = [name for name in sorted({*old, *new} - {"steps"}) if old.get(name) != new.get(name)]
    if changed:
        differences = "; ".join(
            f"{name} = {old.get(name)!r} before, {new.get(name)!r} now" for name in changed
        )
        raise RunError(
            f"{folder.path} holds another run ({differences}): only steps may change; resume it without "
            "other options, or choose another --out"
        )


def take_up(folder: RunFolder, trainer: Trainer) -> tuple[dict[str, Any] | None, list[str]]:
    """The latest checkpoint that every rank holds undamaged and alike; all ranks call it together.

    Returns:
        Its state, None where there is none yet; and what the user should know.

    Raises:
        RunError: when there are checkpoints, and the run can continue from none.
    """
    faults: list[str] = []
    for name in CHECKPOINTS:
        state, fault = _agreed(folder, name, trainer)
        if state is not None:
            _check_steps(folder, state["step"], trainer.config.steps)
            return state, _notes(folder, name, state, faults)
        faults += [fault] if fault else []
    if faults:
        raise RunError(
            f"{'; '.join(faults)}. No checkpoint is left to continue from: put back a good copy, or start "
            "the run anew with --overwrite"
        )
    return None, [f"{folder.path} holds no checkpoint yet: starting from step 0"]


def _agreed(folder: RunFolder, name: str, trainer: Trainer) -> tuple[dict[str, Any] | None, str]:
    """One checkpoint's state if all ranks can use it, else what is wrong; both empty if nobody has it."""
    path, state, digest, fault = folder.path / name, None, _NONE, ""
    try:
        read = checkpoint.read(path)
        if read is not None:
            most = max(trainer.config.steps, folder.config.steps)
            checkpoint.check(read[0], path, trainer.blank(), most)
            state, digest = read
    except CheckpointError as error:
        fault = str(error)
    ranks = trainer.ranks
    faults = ranks.say(fault, "checkpoint")
    for rank, other in enumerate(faults):
        if other:
            return None, other if len({*faults}) == 1 else f"rank {rank}: {other}"
    digests = ranks.say(digest, "checkpoint")
    odd = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if odd:
        return None, (
            f"{names(odd)} and rank 0 do not hold the same {path}: every rank reads it, so put it on a file "
            "system that all hosts share, or copy it to each"
        )
    return state, ""


def _notes(folder: RunFolder, name: str, state: dict[str, Any], faults: list[str]) -> list[str]:
    notes = []
    if name != CHECKPOINTS[0]:
        reason = faults[0] if faults else f"{folder.path / CHECKPOINTS[0]} is missing"
        notes.append(
            f"Warning: {reason}. Continuing from the checkpoint before it, {name} of step {state['step']}, "
            "which leads to the same numbers"
        )
    if not state["finite"]:
        notes.append(
            f"Warning: the parameters are not finite at step {state['step']}: the run has diverged, and more "
            "steps cannot bring it back; try a smaller --lr or another --rule in another --out"
        )
    return notes


def _check_steps(folder: RunFolder, done: int, asked: int) -> None:
    if asked < done:
        raise RunError(
            f"{folder.path} has done {done} steps already, and {asked} were asked for: give --steps {done} "
            "or more, or choose another --out"
        )


def _check_extensible(folder: RunFolder) -> None:
    if not any((folder.path / name).is_file() for name in CHECKPOINTS):
        raise RunError(
            f"{folder.path} is complete and holds no checkpoint, so it cannot get more steps: choose another "
            "--out for a run of more steps, or --overwrite it"
        )
