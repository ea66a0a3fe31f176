"""The median of rows of 16 bits has the bits of the same values' in float32, at every instruction set."""

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.aggregation.halves import HalfRows
from horovod_byz.kernels import coordinate
from horovod_byz.kernels.rows import Rows
from kernel_cases import WIDTHS, assert_bits, call, clean

pytestmark = pytest.mark.usefixtures("level")
KINDS = [torch.bfloat16, torch.float16]


def widened(words, kind):
    """The values of rows of words, as float32."""
    return torch.from_numpy(words.view(np.int16)).view(kind).float().numpy()


def some_words(rng, n, d, kind):
    """Normal values, ties with signed zeros, denormals, and one in ten of any bits: NaN and Inf too."""
    values = torch.from_numpy(rng.standard_normal((n, d), dtype=np.float32)).to(kind)
    words = values.view(torch.int16).numpy().view(np.uint16).copy()
    words[:, : d // 4] = rng.choice(np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0x7C00], np.uint16), (n, d // 4))
    anywhere = rng.random((n, d)) < 0.1
    words[anywhere] = rng.integers(0, 1 << 16, int(anywhere.sum()), dtype=np.uint16)
    return words


def median_of(words, kind, threads=1):
    out = np.full(words.shape[1], 77, np.float32)
    done = coordinate.median_half(list(words), out, kind is torch.bfloat16, threads)
    assert done == (not np.all(out == 77))
    return out if done else None


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_number_of_rows(kind, level):
    rng = np.random.default_rng(0)
    for n in [*range(1, 66), 100, 128, 129, 256]:
        words = some_words(rng, n, WIDTHS[n % len(WIDTHS)], kind)
        got = median_of(words, kind)
        if got is None:
            assert n > 64 or level in ("generic", "v2")
        else:
            assert_bits(got, call(coordinate.median, Rows(widened(words, kind))))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_value_is_widened_exactly(kind):
    words = np.arange(1 << 16, dtype=np.uint16)[None]
    assert_bits(median_of(words, kind), clean(widened(words, kind)[0]))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_threads_and_width_change_no_bit(kind):
    words = some_words(np.random.default_rng(1), 9, 100_003, kind)
    wanted = call(coordinate.median, Rows(widened(words, kind)))
    for threads in (1, 2, 5):
        assert_bits(median_of(words, kind, threads), wanted)
    for d in [1, 7, 31, 32, 33, 63, 65, 100]:
        assert_bits(median_of(words[:, :d].copy(), kind), wanted[:d])


def test_arguments_that_do_not_fit():
    words, out = [np.zeros(4, np.uint16)] * 3, np.zeros(4, np.float32)
    cases = [
        (TypeError, "row 0 must be a 1-D uint16", ([np.zeros(4, np.float16)], out)),
        (TypeError, "row 1 must be a 1-D uint16", ([words[0], np.zeros((2, 2), np.uint16)], out)),
        (ValueError, "row 0 has 4 values, out has 5", (words, np.zeros(5, np.float32))),
        (ValueError, "row 0 must hold its values side by side", ([np.zeros(8, np.uint16)[::2]], out)),
        (ValueError, "row 0", ([out.view(np.uint16)[:4]], out)),
        (ValueError, "at least one row", ([], out)),
        (TypeError, "out must be a writable float32", (words, np.zeros(4))),
    ]
    for error, message, arguments in cases:
        with pytest.raises(error, match=message):
            coordinate.median_half(*arguments, True)
    out.flags.writeable = False
    with pytest.raises(TypeError, match="writable"):
        coordinate.median_half(words, out, True)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_rule_widens_no_block(kind, level, monkeypatch):
    rows = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 70_000), dtype=np.float32)).to(kind)
    wanted = hb.Median()(rows.float()).to(kind)
    monkeypatch.setattr(HalfRows, "values", None)
    assert torch.equal(hb.Median()(rows), wanted)


def test_rows_that_no_kernel_can_read_are_widened():
    """Strided and byte-swapped rows, and float64 results, take the way of the other rules."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((5, 600)).astype(np.float16)
    wanted = hb.Median()(rows[:, ::2].copy())
    np.testing.assert_array_equal(hb.Median()(list(rows[:, ::2])), wanted)
    swapped = rows[:, ::2].astype(np.dtype(np.float16).newbyteorder())
    np.testing.assert_array_equal(hb.Median()(swapped).astype(np.float16), wanted)
