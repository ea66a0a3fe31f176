"""A project of a user: its own extension, which calls the median and the vote from C."""

from Cython.Build import cythonize
from setuptools import Extension, setup

from horovod_byz.host.include import get_include

# One folder: on Cython's path for the declarations, on the compiler's for the header.
stranger = Extension("stranger", ["stranger.pyx"], include_dirs=[get_include()])
setup(name="stranger", ext_modules=cythonize([stranger], include_path=[get_include()]))
