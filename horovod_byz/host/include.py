"""The include folder for Cython projects that use the kernels: declarations and C header."""

from pathlib import Path


def get_include() -> str:
    """The folder that an outside project puts on Cython's path and on the C compiler's.

    Cython finds `cimport horovod_byz.kernels...` there, and the compiler the header that `dispatch` and
    `vote` include:

        Extension("mine", ["mine.pyx"], include_dirs=[horovod_byz.get_include()])
        cythonize(extensions, include_path=[horovod_byz.get_include()])

    Returns:
        The folder that holds the `horovod_byz` package.
    """
    return str(Path(__file__).resolve().parents[2])
