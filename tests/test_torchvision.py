"""The shim that lets torchvision load beside a CPU build of torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

from horovod_byz.host import torchvision_hook
from rank_jobs import HOROVODRUN, environment, finish, need_horovod, one_at_a_time

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)


@needs_torchvision
def test_datasets_transforms_and_models_work(interpreter):
    done = interpreter("""
        import torch
        from horovod_byz.host.torchvision_hook import datasets, models, transforms
        assert datasets.MNIST and transforms.ToTensor
        model = models.resnet18(num_classes=10).eval()
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        print("ok")
    """)
    assert done.stdout.strip() == "ok", done.stderr


@needs_torchvision
def test_the_declarations_are_made_exactly_where_torchvision_fails_without_them(interpreter):
    """torchvision 0.28.0 beside torch 2.13.0 for CPU: RuntimeError on import, operator torchvision::nms."""
    alone = interpreter("""
        import sys
        sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "Hook"]
        import torchvision
    """)
    declared = interpreter("""
        from horovod_byz.host import torchvision_hook
        print(torchvision_hook.declare_missing_operators(), torchvision_hook.declare_missing_operators())
    """)
    failed = alone.returncode != 0
    assert declared.stdout.split() == [str(failed), str(failed)], declared.stderr
    assert not failed or "torchvision::nms" in alone.stderr


@needs_torchvision
def test_operators_that_exist_are_left_alone(interpreter):
    done = interpreter("""
        import torch
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from horovod_byz.host import torchvision_hook
        print(torchvision_hook.declare_missing_operators())
    """)
    assert done.stdout.strip() == "False", done.stderr


def test_absent_torchvision_is_an_error_with_the_remedy(interpreter):
    done = interpreter(
        """
        from horovod_byz.host import torchvision_hook
        assert torchvision_hook.declare_missing_operators() is False
        try:
            torchvision_hook.load("torchvision.datasets")
        except ModuleNotFoundError as error:
            print(error)
    """,
        without=("torchvision",),
    )
    assert 'torchvision is not installed: pip install "horovod-byz[data]"' in done.stdout, done.stderr


HOOKED = """
    from horovod_byz.host import torchvision_hook
    torchvision_hook.install()
    torchvision_hook.install()
"""


@needs_torchvision
@pytest.mark.parametrize("first", ["import torch", "from torchvision.ops import boxes", "import torchvision"])
def test_after_install_a_plain_import_works(interpreter, first):
    """0.1.0: no script could import torchvision in our own environment (operator torchvision::nms)."""
    done = interpreter(
        textwrap.dedent(HOOKED)
        + textwrap.dedent(f"""
        import importlib.util, sys
        assert sum(getattr(finder, "__qualname__", "") == "Hook" for finder in sys.meta_path) == 1
        assert importlib.util.find_spec("torchvision").origin and "torch" not in sys.modules
        {first}
        import torch, torchvision
        from torchvision import datasets, models, transforms
        assert models.resnet18(num_classes=10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert torchvision.ops.box_area(torch.tensor([[0.0, 0, 2, 3]])).tolist() == [6]
        print(torchvision_hook.declare_missing_operators() != torchvision.extension._has_ops())
    """)
    )
    assert done.stdout.strip() == "True", done.stderr


def test_install_leaves_an_absent_torchvision_absent(interpreter):
    done = interpreter(
        textwrap.dedent(HOOKED)
        + "import importlib.util; print(importlib.util.find_spec('torchvision'))\nimport torchvision\n",
        without=("torchvision",),
    )
    assert done.stdout.strip() == "None"
    assert "ModuleNotFoundError: No module named 'torchvision'" in done.stderr


RANK = """
import subprocess, sys
import horovod.torch as hvd
import torchvision
hvd.init()
subprocess.run([sys.executable, "-c", "import torchvision.transforms"], check=True)
print("rank", hvd.rank(), torchvision.models.resnet18.__name__, "horovod_byz" in sys.modules)
"""


@needs_torchvision
@pytest.mark.source
@pytest.mark.horovod
def test_the_environment_that_set_up_makes_imports_it_in_ranks_and_their_children(tmp_path):
    """An environment that borrows this one's packages, without the `.pth` files that may lie there."""
    need_horovod()
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    packages = sysconfig.get_path("purelib")
    (tmp_path / "venv" / Path(packages).relative_to(sys.prefix) / "a.pth").write_text(f"{packages}\n")
    env = {**os.environ, **environment()}
    del env["PYTHONPATH"]
    tool = Path(__file__).parents[1] / "tools" / "install_torchvision_hook.py"
    subprocess.run([python, tool], check=True, timeout=60)
    program = tmp_path / "program.py"
    program.write_text(RANK)
    with one_at_a_time():
        done = finish([python, *HOROVODRUN[1:], "-np", "2", "--gloo", python, str(program)], env)
    assert done.returncode == 0, done.stdout
    for rank in range(2):
        assert f"rank {rank} resnet18 False" in done.stdout


def test_a_folder_without_the_library_does_not_load(tmp_path):
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert not torchvision_hook.library_loads(tmp_path)
    assert not torchvision_hook.library_loads(tmp_path / "nowhere")


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'ops'"):
        _ = torchvision_hook.ops
