"""A stranger's project: its own extension, which calls the median kernel from C."""

from Cython.Build import cythonize
from setuptools import Extension, setup

from horovod_byz._include import get_include

setup(
    name="stranger",
    ext_modules=cythonize([Extension("stranger", ["stranger.pyx"])], include_path=[get_include()]),
)
