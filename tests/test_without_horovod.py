"""The kernels, rules and engine work where neither Horovod nor MPI is installed."""

from __future__ import annotations

HOROVOD = ("horovod", "mpi4py")


def test_a_hidden_module_is_as_absent_as_one_not_installed(interpreter):
    done = interpreter(
        """
        import importlib.util
        assert importlib.util.find_spec("horovod") is None
        try:
            import horovod.torch
        except ModuleNotFoundError as error:
            print(error.name)
        """,
        without=HOROVOD,
    )
    assert done.stdout.strip() == "horovod", done.stderr


def test_rules_and_engine_work_without_horovod(interpreter):
    done = interpreter(
        """
        import sys
        import numpy as np, torch
        import horovod_byz as hb
        rows = np.array([[1.0, 2.0], [3.0, 5.0], [100.0, -100.0]])
        assert hb.Median()(rows).tolist() == [3.0, 2.0]
        assert hb.Median()(torch.from_numpy(rows)).tolist() == [3.0, 2.0]
        assert hb.aggregate(rows, hb.Mean()).weights.shape == (3,)
        assert not [name for name in sys.modules if name.partition(".")[0] in ("horovod", "mpi4py")]
        print("ok")
        """,
        without=HOROVOD,
    )
    assert done.stdout.strip() == "ok", done.stderr


def test_importing_the_library_does_not_start_horovod(interpreter):
    """A launcher or a notebook may import the names long before hvd.init, or without it."""
    done = interpreter("import sys, horovod_byz; print('horovod' in sys.modules, 'mpi4py' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_the_doctor_names_the_absent_horovod(interpreter):
    done = interpreter(
        """
        from horovod_byz import doctor
        print([check for check in doctor.report() if check.name == "Horovod"][0])
        """,
        without=HOROVOD,
    )
    assert "status='missing'" in done.stdout, done.stderr
    assert "tools/build_horovod.py" in done.stdout
