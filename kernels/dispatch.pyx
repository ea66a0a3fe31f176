# cython: language_level=3, embedsignature=True, annotation_typing=False
"""The instruction set of the kernels: chosen once at import; all of them give the same results.

The environment variable HOROVOD_BYZ_SIMD names a level to use instead of the best one this machine has.
"""

import os


cdef extern from "core/kernels.h" nogil:
    const HbKernels *hb_kernels() noexcept


cdef const HbKernels *kernels() noexcept nogil:
    return hb_kernels()


def levels() -> tuple[str, ...]:
    """The instruction sets this machine can run, slowest first."""
    return tuple(kernels().level_name(i).decode() for i in range(kernels().levels()))


def level() -> str:
    """The instruction set in use."""
    return kernels().level_name(kernels().level()).decode()


def use(name: str) -> None:
    """Uses the instruction set `name` from now on, in the whole process (for tests and measurements).

    Args:
        name: one of `levels`.

    Raises:
        ValueError: if this machine or this build has no such level; nothing changes.
    """
    known = levels()
    if name not in known:
        raise ValueError(f"SIMD level {name!r} is not available here: use one of {', '.join(known)}")
    kernels().set_level(known.index(name))


if os.environ.get("HOROVOD_BYZ_SIMD"):
    try:
        use(os.environ["HOROVOD_BYZ_SIMD"])
    except ValueError as error:
        raise ImportError(f"environment variable HOROVOD_BYZ_SIMD: {error}, or unset it") from None
