"""Which device a rank computes on: a GPU per rank, and a clear error where there is none."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.training import device


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that the host has so many GPUs."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_ranks_of_a_host_share_its_gpus_in_turn(gpus):
    gpus(4)
    assert [device.find("cuda", rank) for rank in range(6)] == [f"cuda:{i}" for i in (0, 1, 2, 3, 0, 1)]
    assert device.find("cuda:2", 1) == "cuda:2"
    assert device.find("cpu", 3) == "cpu"


def test_a_gpu_that_is_not_there_is_named(gpus):
    gpus(2)
    with pytest.raises(ValueError, match=r"'cuda:2' is not there: this host has 2 GPUs, cuda:0 to cuda:1"):
        device.find("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "cuda:x", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="device must be cpu, cuda or such as cuda:1"):
        device.find(name)


@pytest.mark.parametrize("command", [["train", "--data", "digits"], ["reproduce", "xie2018-fig4"]])
def test_the_command_line_says_that_torch_finds_no_gpu(command, gpus, tmp_path, monkeypatch):
    gpus(0)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*command, "--device", "cuda"])
    assert result.exit_code == 2
    assert "device 'cuda' cannot be used: torch" in result.output
    assert "horovod-byz doctor" in result.output
    assert list(tmp_path.iterdir()) == []
