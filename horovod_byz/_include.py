"""Where an outside Cython project finds the kernels' declarations."""

from pathlib import Path


def get_include() -> str:
    """Folder to put on Cython's ``include_path`` so that ``cimport horovod_byz.kernels...`` is found.

    An installed package is found without it; an editable install needs it::

        cythonize(extensions, include_path=[horovod_byz.get_include()])

    Returns:
        The folder that holds the ``horovod_byz`` package.
    """
    return str(Path(__file__).resolve().parent.parent)
