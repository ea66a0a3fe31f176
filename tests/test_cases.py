"""The generator of cases really makes what it promises."""

import numpy as np

from cases import layouts, random_case


def test_cases_hold_what_breaks_rules():
    cases = [random_case(seed, lambda f: 2 * f + 1, np.float32) for seed in range(200)]
    assert any(np.isnan(case.rows).any() for case in cases)
    assert any((np.abs(case.rows) == 1e30).any() for case in cases)
    assert any(len(np.unique(case.rows, axis=0)) < len(case.rows) for case in cases)
    assert {case.rows.shape[0] for case in cases} >= {1, 64}
    assert min(case.rows.shape[1] for case in cases) == 1
    assert max(case.rows.shape[1] for case in cases) > 5000
    assert all(len(case.bad) <= case.f for case in cases)


def test_a_seed_gives_the_same_case():
    first, again = (random_case(7, lambda f: 4 * f + 3, np.float64) for _ in range(2))
    np.testing.assert_array_equal(first.rows, again.rows)


def test_layouts_hold_the_same_rows():
    rows = np.arange(12.0).reshape(3, 4)
    for data in layouts(rows).values():
        np.testing.assert_array_equal(np.stack(list(data)), rows)
