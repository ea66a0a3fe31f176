"""What tools/kernel_faces.py writes from the declarations of a .pxd file."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.source
ROOT = Path(__file__).resolve().parents[2]

SINGLE = """
# cdef int comment_f32(const float *const *rows) noexcept nogil
cdef int near_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, const float *point,
                  const double *weights, int threads) noexcept nogil
"""
DOUBLE = SINGLE.replace("float", "double").replace("f32", "f64")


@pytest.fixture(scope="module")
def kernel_faces():
    """The tool; not loaded when the tests are collected, since only a checkout has it."""
    spec = importlib.util.spec_from_file_location("kernel_faces", ROOT / "tools" / "kernel_faces.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_a_declared_kernel_is_forwarded_for_both_dtypes_and_chosen_by_that_of_the_rows(kernel_faces):
    text = " ".join(kernel_faces.faces("mine", SINGLE + DOUBLE).split())
    for dtype in ("f32", "f64"):
        assert f"return (<const Table *>kernels()).near_{dtype}(rows, n, d, point, weights, threads)" in text
    assert "cdef int near_of(Rows rows, const void *point, const double *weights, int threads)" in text
    assert (
        "if rows.is_double: return near_f64(<const double *const *>rows.pointers, rows.n, rows.d, "
        "<const double *>point, weights, threads) "
        "return near_f32(<const float *const *>rows.pointers, rows.n, rows.d, "
        "<const float *>point, weights, threads)"
    ) in text
    assert "comment" not in text


@pytest.mark.parametrize(
    "text",
    [
        SINGLE,
        DOUBLE,
        SINGLE + DOUBLE.replace("int threads", "long threads"),
        SINGLE + DOUBLE.replace("near", "far"),
    ],
)
def test_a_declaration_without_its_twin_stops_the_build(text, kernel_faces):
    with pytest.raises(ValueError, match=r"_f64\(.*\) (is missing|has none).*declare both"):
        kernel_faces.faces("mine", text)


def test_a_function_without_dtypes_is_forwarded_alone_and_older_names_find_their_entry(kernel_faces):
    arguments = "const uint8_t *const *rows, Py_ssize_t n, Py_ssize_t bytes, int threads"
    text = kernel_faces.faces("mine", f"cdef int majority_bits({arguments}) noexcept nogil")
    assert "kernels()).bit_majority(rows, n, bytes, threads)" in text
    assert "_of(" not in text


def test_modules_without_kernels_get_no_file_and_right_files_stay_as_they_are(tmp_path, kernel_faces):
    (tmp_path / "mine.pxd").write_text(SINGLE + DOUBLE)
    (tmp_path / "none.pxd").write_text("cdef int check(int status) except -1\n")
    kernel_faces.write_faces(tmp_path, ("mine", "none"))
    path = tmp_path / "generated" / "mine.pxi"
    assert list(path.parent.iterdir()) == [path]
    os.utime(path, (1, 1))
    kernel_faces.write_faces(tmp_path, ("mine", "none"))
    assert path.stat().st_mtime == 1
    path.write_text("spoilt")
    kernel_faces.write_faces(tmp_path, ("mine", "none"))
    assert "near_of" in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*.pxd")), ids=lambda path: path.stem)
def test_a_module_includes_its_faces(path, kernel_faces):
    source = path.with_suffix(".pyx")
    wanted = bool(kernel_faces.declared_functions(path.read_text()))
    assert (source.exists() and f'include "generated/{path.stem}.pxi"' in source.read_text()) == wanted
