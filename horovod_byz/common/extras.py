"""The error for a package that an extra installs: the core install has what a training script imports."""

from __future__ import annotations

from importlib.util import find_spec

from horovod_byz.common.errors import ExplainedError

__all__ = ["MissingExtraError", "missing", "require"]

# What each extra of pyproject.toml installs, by the names under which Python imports it.
EXTRAS = {
    "train": ("pydantic", "sklearn", "tomli_w"),
    "report": ("matplotlib", "pydantic", "tomli_w"),
    "reproduce": ("matplotlib", "pydantic", "sklearn", "tomli_w"),
    "data": ("torchvision",),
}


class MissingExtraError(ExplainedError, ModuleNotFoundError):
    """A package of an extra is not installed; the message says how to install it."""


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def require(extra: str, *packages: str) -> None:
    """Check that packages are installed, without importing them.

    Args:
        extra: a key of `EXTRAS`.
        packages: those of the extra that the caller needs; all when none is named.

    Raises:
        MissingExtraError: the first of them is not installed.
    """
    for name in packages or EXTRAS[extra]:
        if find_spec(name) is None:
            raise MissingExtraError(f'{name} is not installed: pip install "horovod-byz[{extra}]"', name=name)
