"""The shim that lets torchvision load beside a CPU build of torch."""

from __future__ import annotations

import importlib.util

import pytest

from horovod_byz import _torchvision

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)


@needs_torchvision
def test_datasets_transforms_and_models_work(interpreter):
    done = interpreter("""
        import torch
        from horovod_byz._torchvision import datasets, models, transforms
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
    alone = interpreter("import torchvision")
    declared = interpreter("""
        from horovod_byz import _torchvision
        print(_torchvision.declare_missing_operators(), _torchvision.declare_missing_operators())
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
        from horovod_byz import _torchvision
        print(_torchvision.declare_missing_operators())
    """)
    assert done.stdout.strip() == "False", done.stderr


def test_absent_torchvision_is_an_error_with_the_remedy(interpreter):
    done = interpreter(
        """
        from horovod_byz import _torchvision
        assert _torchvision.declare_missing_operators() is False
        try:
            _torchvision.load("torchvision.datasets")
        except ModuleNotFoundError as error:
            print(error)
    """,
        without=("torchvision",),
    )
    assert "torchvision is not installed: pip install --no-deps" in done.stdout, done.stderr


def test_a_folder_without_the_library_does_not_load(tmp_path):
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert not _torchvision.library_loads(tmp_path)
    assert not _torchvision.library_loads(tmp_path / "nowhere")


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'ops'"):
        _ = _torchvision.ops
