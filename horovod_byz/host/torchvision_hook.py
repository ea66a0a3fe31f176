"""Lets torchvision load beside a build of torch that its compiled library does not fit.

The torchvision wheel is compiled against torch with CUDA. Beside torch for CPU its library does not load,
and its Python part then fails on import, since it attaches properties to two undeclared operators
(`RuntimeError: operator torchvision::nms does not exist`). Declaring them is enough for the data
sets, transforms and models; box operators stay without an implementation. Where torchvision's own library
loads, nothing is declared.

    from horovod_byz.host.torchvision_hook import datasets, transforms

`install` does the same for a plain `import torchvision`. `tools/install_torchvision_hook.py` copies this file
into an environment, which calls `install` whenever Python starts there: so it imports little, and torch only
when torchvision is imported.
"""

from __future__ import annotations

import sys
from importlib import import_module, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["declare_missing_operators", "install", "load"]

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A declaration lasts as long as the library object that made it. It is kept in torch's own namespace, so that
# this module and its copy in the environment see each other's.
_KEPT = "_declared_by_horovod_byz"


def library_loads(folder: str) -> bool:
    """Whether torchvision's compiled operators in `folder` load; loading them twice does no harm."""
    from pathlib import Path

    import torch

    for library in sorted(Path(folder).glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def declare_missing_operators(folders: Iterable[str] | None = None) -> bool:
    """Declares torchvision's operators where its own library cannot; call it before torchvision is imported.

    Args:
        folders: where torchvision is installed; looked up when not given.

    Returns:
        True when the declarations made here are in use, False when torchvision loads by itself or is absent.
    """
    import torch

    if hasattr(torch.ops.torchvision, _KEPT):
        return True
    if folders is None:
        spec = util.find_spec("torchvision")
        folders = spec.submodule_search_locations or () if spec is not None else ()
    folders = list(folders)
    if not folders or any(map(library_loads, folders)):
        return False
    missing = [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(name + SIGNATURE)
    setattr(torch.ops.torchvision, _KEPT, library)
    return True


class Hook:
    """Finds torchvision as the other finders do; the operators are declared right before it is executed."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        for finder in sys.meta_path:
            spec = None if finder is cls else finder.find_spec(name, path, target)
            if spec is not None:
                return _declaring(spec)
        return None


def _declaring(spec: ModuleSpec) -> ModuleSpec:
    loader = spec.loader
    if loader is not None and spec.submodule_search_locations:
        execute = loader.exec_module

        def declare_and_execute(module: ModuleType) -> None:
            declare_missing_operators(spec.submodule_search_locations)
            execute(module)

        loader.exec_module = declare_and_execute  # type: ignore[method-assign]
    return spec


def install() -> None:
    """Makes every later `import torchvision` in this process work; a second call changes nothing."""
    if not any(getattr(finder, "__qualname__", "") == Hook.__qualname__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Hook)


def load(name: str = "torchvision") -> ModuleType:
    """Imports torchvision or one of its modules, for example `load("torchvision.datasets")`.

    Raises:
        ModuleNotFoundError: if torchvision is not installed; the message says how to install it.
    """
    declare_missing_operators()
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ModuleNotFoundError(
            'torchvision is not installed: pip install "horovod-byz[data]"; beside a CPU build of torch: '
            "pip install --no-deps torchvision",
            name="torchvision",
        ) from error


def __getattr__(name: str) -> ModuleType:
    if name not in ("datasets", "models", "transforms"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"torchvision.{name}")
