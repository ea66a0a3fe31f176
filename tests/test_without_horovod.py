"""The kernels, rules and engine work where neither Horovod nor MPI is installed, or NumPy alone is."""

from __future__ import annotations

import re

HOROVOD = ("horovod", "mpi4py")
BESIDE_NUMPY = (
    "torch",
    "scipy",
    "sklearn",
    "matplotlib",
    "pydantic",
    "rich",
    "typer",
    "psutil",
    "blake3",
    "PIL",
)


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


def test_rules_work_with_numpy_alone(interpreter):
    """0.1.0: a rule asked torch for its number of threads, so NumPy users waited for torch, or had none."""
    done = interpreter(
        """
        import os, sys
        import numpy as np
        import horovod_byz as hb
        from horovod_byz import rules
        from horovod_byz.aggregation import engine
        rows = np.random.default_rng(0).standard_normal((15, 100))
        for kind in rules.with_condition():
            needs = {"f": 1} if issubclass(kind, rules.BoundedRule) else {}
            rule = kind(**({"tau": 1.0} if kind is hb.CenteredClipping else needs))
            assert rule(rows).shape == (100,)
            assert len(hb.aggregate(rows, rule).verdicts) == 15
        assert hb.Detox(hb.Redundancy(r=3), "mean", "median", groups=5)(rows).shape == (100,)
        assert hb.Median()(rows.astype(np.float16)).dtype == np.float16
        os.environ["OMP_NUM_THREADS"] = "3"
        assert engine.default_threads() == 3
        os.environ["OMP_NUM_THREADS"] = "many"
        assert engine.default_threads() >= 1
        print("ok")
        """,
        without=(*HOROVOD, *BESIDE_NUMPY),
    )
    assert done.stdout.strip() == "ok", done.stderr


def test_rules_do_not_wait_for_the_import_of_torch(interpreter):
    done = interpreter(
        """
        import sys
        import numpy as np
        import horovod_byz as hb
        hb.aggregate(np.eye(5), "krum:f=1")
        before = "torch" in sys.modules
        import torch
        torch.set_num_threads(1)
        from horovod_byz.aggregation import engine
        print(before, engine.default_threads())
        """
    )
    assert done.stdout.split() == ["False", "1"], done.stderr


def test_importing_the_library_does_not_start_horovod(interpreter):
    """A launcher or a notebook may import the names long before hvd.init, or without it."""
    done = interpreter("import sys, horovod_byz; print('horovod' in sys.modules, 'mpi4py' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_the_doctor_names_the_absent_horovod(interpreter):
    done = interpreter(
        """
        from horovod_byz.host import doctor
        print([check for check in doctor.report() if check.name == "Horovod"][0])
        """,
        without=HOROVOD,
    )
    assert "status='note'" in done.stdout, done.stderr
    assert re.search("build_horovod.py|make setup", done.stdout)


def test_one_rank_trains_without_horovod(interpreter):
    """What the doctor says of a missing Horovod."""
    done = interpreter(
        """
        import torch
        import horovod_byz as hb
        model = torch.nn.Linear(3, 1)
        optimizer = hb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), rule="median")
        before = model.weight.detach().clone()
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
        print(bool((model.weight != before).all()))
        """,
        without=HOROVOD,
    )
    assert done.stdout.strip() == "True", done.stderr


def test_two_ranks_train_over_torch_distributed_without_horovod(interpreter, tmp_path):
    """The ranks are forks of a process in which Horovod cannot be imported; they meet by a file."""
    done = interpreter(
        f"""
        import os, sys
        import torch
        import torch.distributed as dist
        import horovod_byz as hb

        def rank(number):
            dist.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=number, world_size=2)
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 1)
            inner = torch.optim.SGD(model.parameters(), lr=0.1)
            named = model.named_parameters()
            optimizer = hb.DistributedOptimizer(inner, named, rule="mean", collect="sharded")
            before = model.weight.detach().clone()
            for step in range(3):
                optimizer.zero_grad()
                model(torch.full((4, 3), 1.0 + number)).sum().backward()
                optimizer.step()
            moved = float((before - model.weight).sum())
            assert "horovod" not in sys.modules
            with open("{tmp_path}/rank" + str(number), "w") as file:
                print(round(moved, 5), optimizer.ledger.report()["steps"], file=file)

        children = []
        for number in range(2):
            child = os.fork()
            if child == 0:
                try:
                    rank(number)
                    os._exit(0)
                except BaseException as error:
                    print(repr(error), file=sys.stderr, flush=True)
                    os._exit(1)
            children.append(child)
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        """,
        without=HOROVOD,
    )
    assert done.stdout.strip() == "[0, 0]", done.stderr
    # Three steps, each of the mean of 4 and 8 for each of three weights, times 0.1.
    assert [(tmp_path / f"rank{number}").read_text().split() for number in range(2)] == [["5.4", "3"]] * 2
