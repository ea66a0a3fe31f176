"""The C API: what the .pxd files declare, an outside project, one OpenMP runtime, clean symbols."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from horovod_byz.host.include import get_include
from horovod_byz.kernels import dispatch, rows

HERE = Path(__file__).parent
KERNELS = Path(rows.__file__).parent
PUBLIC = ["brsgd", "coordinate", "dispatch", "distances", "linear", "mixing", "rows", "scan", "signs", "vote"]


def declared(text):
    """name -> C signature of each function that a .pxd declares for cimport."""
    text = re.sub(r"#.*", "", text)
    text = re.sub(r"cdef extern.*?(?=^cdef|\Z)", "", text, flags=re.M | re.S)
    signatures = {}
    for result, name, arguments in re.findall(r"^cdef ([^()\n]*?)(\w+)\(([^)]*)\)", text, flags=re.M):
        kinds = [
            re.sub(r"\b\w+$", "", argument.strip()) for argument in arguments.split(",") if argument.strip()
        ]
        signatures[name] = normal(f"{result}({','.join(kinds)})")
    return signatures


def normal(signature):
    """Without spaces, argument names and the spellings that Cython and C do not share."""
    signature = re.sub(r"\bstruct \w*Rows\b ?\*?", "Rows", signature)
    signature = re.sub("object", "PyObject*", signature)
    return re.sub(r"[\s]|\bconst\b", "", signature)


def exported(module):
    """name -> C signature of each function in the module's capsule table."""
    table = getattr(module, "__pyx_capi__", {})
    return {name: normal(re.search(r'"(.*)"', repr(capsule)).group(1)) for name, capsule in table.items()}


def test_the_parser_of_declarations():
    text = """
# cdef int comment(int x)
cdef extern from "a.h" nogil:
    int hidden(int x)

cdef int shown(const float *const *rows, Py_ssize_t n) noexcept nogil
cdef void *start(object x) except? NULL
"""
    assert declared(text) == {"shown": "int(float**,Py_ssize_t)", "start": "void*(PyObject*)"}


@pytest.mark.parametrize("name", PUBLIC)
def test_declarations_are_exported_as_declared(name):
    module = importlib.import_module(f"horovod_byz.kernels.{name}")
    wanted, got = declared((KERNELS / f"{name}.pxd").read_text()), exported(module)
    assert set(wanted) == set(got)
    if name not in ("rows", "dispatch"):  # those two pass structs and objects, spelled differently in C
        assert wanted == got


def test_every_module_has_types_and_a_declaration():
    for name in PUBLIC:
        assert (KERNELS / f"{name}.pxd").exists()
        assert (KERNELS / f"{name}.pyi").exists()


def test_kernels_are_not_a_top_level_package():
    if KERNELS.resolve().name == "kernels" and (KERNELS.resolve().parent / "setup.py").exists():
        pytest.skip("in a checkout the folder itself is visible; an installed package must not be")
    code = "import importlib.util; print(importlib.util.find_spec('kernels'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert str(KERNELS.parent.parent) not in done.stdout


def test_an_outside_project_calls_the_kernels_from_c(tmp_path):
    shutil.copytree(HERE / "extending", tmp_path / "extending")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    quick = {**os.environ, "CFLAGS": "-O0 -g0"}  # the compiler's optimisation takes most of the time
    done = subprocess.run(
        command, cwd=tmp_path / "extending", env=quick, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    spec = importlib.util.spec_from_file_location(
        "stranger", next((tmp_path / "extending").glob("stranger*.so"))
    )
    stranger = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stranger)
    a, b, c = (np.array(row, np.float32) for row in ([1, 5, 9, 2], [2, 4, np.nan, 2], [3, 6, 7, -1]))
    out = np.empty(4, np.float32)
    assert stranger.median_of_three(a, b, c, out) == 0
    np.testing.assert_array_equal(out, [2, 5, 9, 2])
    x = np.random.default_rng(0).standard_normal((20, 1000)).astype(np.float32)
    out = np.empty(1000, np.float32)
    assert stranger.median_of_rows(rows.Rows(x), out) == 0
    np.testing.assert_array_equal(out, np.median(x, axis=0))
    check_votes(stranger, x[:6])


def check_votes(stranger, x):
    """0.1.0: a project that cimports `vote` needed a second include path, which stood nowhere."""
    x[[1, 2]], x[[4, 5]] = x[0], x[3]
    x[1, 700] += 1  # a liar in the first group
    out = np.empty(x.shape[1], np.float32)
    assert stranger.equal_rows(rows.Rows(x)) == [0, 1, 0, 3, 3, 3]
    assert stranger.detox_of_six(rows.Rows(x), out) == [0, 1, 0, 3, 3, 3]
    np.testing.assert_array_equal(out, (0.5 * x[0].astype(float) + 0.5 * x[3]).astype(np.float32))
    x[2, 3] += 1  # and another: no majority
    assert stranger.detox_of_six(rows.Rows(x), out) is None


def test_one_include_path_is_enough_for_the_header_and_the_former_one_works(tmp_path):
    (tmp_path / "mine.pyx").write_text("from horovod_byz.kernels.vote cimport classes\n")
    cython = [sys.executable, "-m", "cython", "-3", "-I", get_include(), "mine.pyx"]
    subprocess.run(cython, cwd=tmp_path, check=True, capture_output=True)
    python = ["-I", sysconfig.get_path("include")]
    for extra in ("", "horovod_byz/kernels"):
        path = str(Path(get_include()) / extra)
        compiler = [os.environ.get("CC", "cc"), "-fsyntax-only", *python, "-I", path, "mine.c"]
        done = subprocess.run(compiler, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (extra, done.stderr)


@pytest.mark.source
@pytest.mark.parametrize("name", ["setup.py", "meson.build"])
def test_the_documentation_shows_the_outside_project(name):
    text = (HERE.parent / "docs" / "extending.md").read_text()
    project = (HERE / "extending" / name).read_text()
    assert (project.partition('"""\n\n')[2] or project) in text


@pytest.mark.source
def test_the_stages_of_the_documentation_are_those_that_are_built():
    text = (HERE.parent / "docs" / "extending.md").read_text()
    snippet = re.search(r"(starts\[:\].*?)```", text, re.S).group(1)
    built = re.sub(r"\s+", "", (HERE / "extending" / "stranger.pyx").read_text())
    for line in snippet.splitlines():
        assert re.sub(r"\s+", "", line.partition("#")[0]) in built


def test_meson_builds_the_outside_project(tmp_path):
    if shutil.which("meson") is None:
        pytest.skip("meson is not installed")
    shutil.copytree(HERE / "extending", tmp_path / "extending")
    for command in (["meson", "setup", "build"], ["meson", "compile", "-C", "build"]):
        done = subprocess.run(
            command, cwd=tmp_path / "extending", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "extending" / "build").glob("stranger*.so"))


def test_include_folder_holds_the_declarations():
    assert (Path(get_include()) / "horovod_byz" / "kernels" / "coordinate.pxd").exists()


@pytest.mark.parametrize("order", ["torch, kernels", "kernels, torch"])
def test_one_openmp_runtime_beside_torch(order):
    pytest.importorskip("torch")
    imports = {"torch": "import torch", "kernels": "from horovod_byz.kernels import coordinate"}
    code = "\n".join(
        [imports[name] for name in order.split(", ")]
        + [
            "import numpy as np",
            "from horovod_byz.kernels.rows import Rows",
            "x = np.ones((3, 200_000), np.float32)",
            "coordinate.median(Rows(x), np.empty(200_000, np.float32), threads=2)",
            "torch.ones(500_000).exp().sum()",
            "maps = open('/proc/self/maps').read().split()",
            "print(*sorted({m for m in maps if 'gomp' in m or 'iomp' in m}), sep='\\n')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 1, done.stdout


def test_no_function_is_shared_between_instruction_sets():
    """A weak symbol could be a copy that was compiled for a machine better than the one that runs it."""
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not installed")
    listing = subprocess.run(
        ["nm", "-C", dispatch.__file__], capture_output=True, text=True, check=True
    ).stdout
    weak = [line for line in listing.splitlines() if re.search(r" [WVu] .*hb::", line)]
    assert not [line for line in weak if re.search(r"hb::(generic|v2|avx2|avx512)::", line)]


def run(code, **variables):
    environment = {**os.environ, "PYTHONPATH": get_include(), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_environment_chooses_the_level():
    code = "from horovod_byz.kernels import dispatch; print(dispatch.level())"
    for level in dispatch.levels():
        assert run(code, HOROVOD_BYZ_SIMD=level).stdout.strip() == level
    done = run(code, HOROVOD_BYZ_SIMD="mmx")
    assert done.returncode != 0
    assert "HOROVOD_BYZ_SIMD" in done.stderr
    assert "generic" in done.stderr


def test_unknown_level_changes_nothing():
    before = dispatch.level()
    with pytest.raises(ValueError, match="mmx"):
        dispatch.use("mmx")
    assert dispatch.level() == before
