"""The error for a missing package of an extra; the core install has only what a training script imports."""

from __future__ import annotations

from importlib.util import find_spec

from horovod_byz.common.errors import ExplainedError

__all__ = ["MissingExtraError", "missing", "require"]

# The packages of each extra of pyproject.toml, by their import names.
EXTRAS = {
    "train": ("pydantic", "sklearn", "tomli_w"),
    "report": ("jinja2", "matplotlib", "pydantic", "tomli_w"),
    "watch": ("prometheus_client", "tensorboard"),
    "reproduce": ("jinja2", "matplotlib", "pydantic", "sklearn", "tomli_w"),
    "data": ("torchvision",),
    "export": ("pyarrow",),
}


class MissingExtraError(ExplainedError, ModuleNotFoundError):
    """A package of an extra is not installed; the message has the command that installs it."""


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def require(extra: str, *packages: str) -> None:
    """Checks that packages are installed, without importing them.

    Args:
        extra: a key of `EXTRAS`.
        packages: packages of the extra that the caller needs; default all.

    Raises:
        MissingExtraError: if a package is not installed; it names the first.
    """
    for name in packages or EXTRAS[extra]:
        if find_spec(name) is None:
            raise MissingExtraError(f'{name} is not installed: pip install "horovod-byz[{extra}]"', name=name)
