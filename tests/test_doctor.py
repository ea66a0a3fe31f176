"""The doctor: each check on hosts that lack something, and the whole report on this one."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from rich.console import Console

from horovod_byz.common import remedies
from horovod_byz.host import doctor, launchers, machine
from horovod_byz.host.doctor import Check


def printed(checks: list[Check]) -> str:
    console = Console(width=200, record=True)
    doctor.render(checks, console)
    return console.export_text()


def test_the_report_covers_what_it_promises():
    names = [check.name for check in doctor.report()]
    for name in ("compiler", "Python", "torch", "Horovod", "mpirun", "torchvision", "kernels", "threads"):
        assert name in names
    assert {"data sets", "machine", "host name", "mpi4py"} < set(names)
    assert len(names) == len(set(names))


def test_whatever_is_not_ok_says_how_to_fix_it():
    for check in doctor.report():
        assert check.detail
        assert check.status == "ok" or check.remedy, check


def test_an_old_python_is_reported_as_missing():
    assert doctor.python((3, 10, 4)).status == "missing"
    assert doctor.python((3, 11, 0)) == Check("Python", "ok", "3.11.0")


def with_everything_missing(monkeypatch) -> list[Check]:
    """Every check that may point to a file, on a host that has nothing."""
    monkeypatch.setattr(machine, "version_of", lambda name: None)
    monkeypatch.setattr(machine, "first_line", lambda command: "")
    monkeypatch.setattr(doctor, "KERNELS", ("no_such_kernel",))
    return [
        doctor.python((3, 10, 4)),
        doctor.compiler("no-such-compiler"),
        doctor.torch_build(),
        doctor.kernels(),
        doctor.horovod(None),
        doctor.mpirun(True, ""),
        doctor.mpi4py(),
        doctor.torchvision(),
        doctor.replicas(),
    ]


def test_outside_of_a_checkout_no_file_of_one_is_named(monkeypatch):
    """0.1.0: an installed package said pip install -r requirements/torch.txt, which is not there."""
    monkeypatch.setattr(remedies, "checkout", lambda: None)
    for check in with_everything_missing(monkeypatch):
        assert check.status != "ok"
        assert check.remedy
        assert not re.search(r"requirements/|tools/|\{root\}|\.txt", check.remedy), check


def test_in_a_checkout_the_files_are_found_from_any_folder(monkeypatch, tmp_path):
    for file in (
        "Makefile",
        "tools/build_horovod.py",
        "requirements/torch.txt",
        "requirements/torchvision.txt",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert remedies.checkout(tmp_path / "horovod_byz") == tmp_path
    assert remedies.checkout(tmp_path / "elsewhere" / "horovod_byz") is None
    monkeypatch.setattr(remedies, "checkout", lambda: tmp_path)
    for folder, near in ((tmp_path, ""), (tmp_path / "tools", f"{tmp_path}/")):
        monkeypatch.chdir(folder)
        assert remedies.install("torch") == f"pip install -r {near}requirements/torch.txt"
        assert doctor.horovod(None).remedy.startswith(f"python {near}tools/build_horovod.py")
    named = {word for check in with_everything_missing(monkeypatch) for word in check.remedy.split()}
    assert {str(tmp_path / "requirements" / "torchvision.txt")} <= named


def test_a_missing_horovod_is_no_error():
    """Rules, and training on one rank, work without it; `test_without_horovod.py` trains."""
    check = doctor.horovod(None)
    assert doctor.exit_code([check]) == 0


def test_a_compiler_that_is_not_there_is_only_a_note():
    check = doctor.compiler("no-such-compiler")
    assert (check.status, check.remedy) == ("note", "apt install gcc g++ make")


@pytest.mark.parametrize(
    ("built", "status", "says"),
    [
        (None, "note", "rules, one rank, and torchrun's ranks work without it"),
        ({"MPI": False, "Gloo": False}, "missing", "without MPI, without Gloo"),
        ({"MPI": False, "Gloo": True}, "note", "with Gloo, without MPI"),
        ({"MPI": True, "Gloo": True}, "ok", "with MPI, with Gloo"),
    ],
)
def test_horovod_needs_one_controller(built, status, says):
    check = doctor.horovod(built)
    assert check.status == status
    assert says in check.detail
    assert bool(check.remedy) == (status != "ok")


def test_open_mpi_5_needs_binding_args():
    """Open MPI 5: horovodrun --mpi passes -bind-to none, which prterun takes for the program `none`."""
    assert "--binding-args" in doctor.mpirun(True, "mpirun (Open MPI) 5.0.11").detail
    assert "--binding-args" not in doctor.mpirun(True, "mpirun (Open MPI) 4.1.4").detail
    assert doctor.mpirun(True, "").status == "note"


def test_an_unresolvable_host_name_is_reported_as_missing(monkeypatch):
    """Gloo: segmentation fault in hvd.init when the machine's own name does not resolve."""

    def fails(name: str) -> str:
        raise socket.gaierror

    monkeypatch.setattr(socket, "gethostbyname", fails)
    check = doctor.hostname()
    assert check.status == "missing"
    assert "/etc/hosts" in check.remedy


def test_unbuilt_kernels_are_reported_as_missing(monkeypatch):
    monkeypatch.setattr(remedies, "checkout", lambda: Path.cwd())
    monkeypatch.setattr(doctor, "KERNELS", ("no_such_kernel",))
    check = doctor.kernels()
    assert check.status == "missing"
    assert "no_such_kernel" in check.detail
    assert "make setup" in check.remedy


def test_built_kernels_say_their_simd_level():
    dispatch = pytest.importorskip("horovod_byz.kernels.dispatch")
    check = doctor.kernels()
    assert check.status == "ok"
    assert str(dispatch.level()) in check.detail


@pytest.mark.parametrize(
    ("cores", "threads", "ranks", "status", "remedy"),
    [
        (2, 2, 1, "ok", ""),
        (8, 2, 4, "ok", ""),
        (8, 4, 4, "note", "export OMP_NUM_THREADS=2"),
        (2, 1, 4, "note", "mpi_yield_when_idle"),
    ],
)
def test_oversubscription(cores, threads, ranks, status, remedy):
    check = doctor.threads(cores, threads, ranks)
    assert check.status == status
    assert remedy in check.remedy


def test_little_memory_is_noted():
    assert doctor.this_machine(2, 300).status == "note"
    assert doctor.this_machine(2, 16000).status == "ok"


def test_data_sets_are_found_packed_or_unpacked(tmp_path):
    assert doctor.data([tmp_path]).status == "note"
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").touch()
    check = doctor.data([tmp_path / "nowhere", tmp_path])
    assert check == Check("data sets", "ok", f"digits (bundled), mnist ({tmp_path})")


def test_the_named_data_folder_comes_first(tmp_path):
    folders = doctor.data_folders({"HOROVOD_BYZ_DATA": str(tmp_path), "XDG_CACHE_HOME": "/c"})
    assert folders[0] == tmp_path
    assert str(folders[-1]) == "/c/horovod_byz/data"


def test_ranks_of_a_job():
    assert launchers.local_size({}) == 1
    assert launchers.local_size({"HOROVOD_LOCAL_SIZE": "4"}) == 4
    assert launchers.local_size({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}) == 3


def test_host_facts_are_sane():
    assert machine.cores() >= 1
    assert machine.memory_mib() > 0
    assert machine.first_line(["no-such-command"]) == ""
    assert machine.version_of("no-such-distribution") is None


def test_rendering_shows_status_remedy_and_brackets_as_they_are():
    text = printed([Check("a", "ok", "[fine]"), Check("b", "missing", "gone", "pip install b[c]")])
    assert "[fine]" in text
    assert "fix: pip install b[c]" in text
    assert text.rstrip().endswith("missing: b")
    assert "All that is needed is here." in printed([Check("a", "note", "x", "y")])


def test_the_exit_code_is_1_for_what_is_missing_and_0_for_a_note():
    assert doctor.exit_code([Check("a", "ok", "x"), Check("b", "note", "x", "y")]) == 0
    assert doctor.exit_code([Check("a", "missing", "x", "y")]) == 1


def test_main_returns_the_exit_code_of_what_it_printed(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "report", lambda: [Check("kernels", "missing", "x", "make setup")])
    assert doctor.main() == 1
    assert "make setup" in capsys.readouterr().out
