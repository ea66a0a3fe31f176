"""The manifests of launch/ and the image: as their schemas say, and as the rest of the checkout is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.source

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "tools" / "check_manifests.py"


def job(name):
    return yaml.safe_load((ROOT / "launch" / "kubernetes" / f"{name}.yaml").read_text())


def replicas(name):
    spec = job(name)["spec"]
    return spec["mpiReplicaSpecs" if name == "mpijob" else "pytorchReplicaSpecs"]


def check(*files):
    done = subprocess.run([sys.executable, CHECK, *files], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_every_manifest_is_as_its_schema_says():
    code, said = check()
    assert code == 0, said
    assert "4 manifests" in said


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("mpijob", {"spec": {"slotPerWorker": 2}}, "spec.slotPerWorker is unknown"),
        ("mpijob", {"spec": {"slotsPerWorker": 0}}, "spec.slotsPerWorker must be at least 1"),
        ("mpijob", {"spec": {"slotsPerWorker": True}}, "spec.slotsPerWorker must be of type integer"),
        ("mpijob", {"apiVersion": "kubeflow.org/v1"}, "apiVersion must be one of kubeflow.org/v2beta1"),
        ("pytorchjob", {"spec": {"nprocPerNode": 2}}, "spec.nprocPerNode must be of type string"),
        ("pytorchjob", {"spec": {"pytorchReplicaSpecs": {}}}, "spec.pytorchReplicaSpecs lacks Master"),
        ("pytorchjob", {"kind": "PyTorchJobs"}, "no schema"),
    ],
)
def test_a_wrong_manifest_is_named_with_its_place(tmp_path, path, change, message):
    document = job(path)
    for name, value in change.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    code, said = check(file)
    assert code == 1
    assert message in said


def test_each_rank_has_limits_the_volume_and_the_settings_of_ours():
    for name in ("mpijob", "pytorchjob"):
        for role, replica in replicas(name).items():
            (container,) = replica["template"]["spec"]["containers"]
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), (name, role)
            assert container["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]
            # A run that a policy stopped must not start again by itself.
            assert replica["restartPolicy"] == "Never"
        starting = replicas(name)["Launcher" if name == "mpijob" else "Master"]
        (container,) = starting["template"]["spec"]["containers"]
        assert {"HOROVOD_BYZ_TIMEOUT", "HOROVOD_BYZ_DATA"} <= {each["name"] for each in container["env"]}
        assert job(name)["spec"]["runPolicy"]["backoffLimit"] == 0
    claim = yaml.safe_load((ROOT / "launch" / "kubernetes" / "volume.yaml").read_text())["metadata"]["name"]
    (volume,) = replicas("mpijob")["Worker"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim


def test_there_is_a_pod_for_each_worker_of_the_rule():
    for name in ("mpijob", "pytorchjob"):
        text = json.dumps(job(name))
        workers = int(re.search(r"--workers=(\d+)", text)[1])
        pods = sum(each["replicas"] for role, each in replicas(name).items() if role != "Launcher")
        assert pods == workers


def test_the_operators_hostfile_is_one_that_our_script_reads(tmp_path):
    (command,) = replicas("mpijob")["Launcher"]["template"]["spec"]["containers"]
    assert command["command"] == ["launch/hosts.sh", "--nic", "eth0", "/etc/mpi/hostfile"]
    hostfile = tmp_path / "hostfile"  # as the MPI operator writes it
    hostfile.write_text(
        "".join(f"horovod-byz-worker-{i}.horovod-byz.default.svc slots=1\n" for i in range(5))
    )
    words = [*command["command"][:-1], str(hostfile), *command["args"]]
    done = subprocess.run(
        ["bash", *words],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PRINT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "-np 5" in done.stdout
    assert "horovod-byz-worker-0.horovod-byz.default.svc:1" in done.stdout


class TestImage:
    TEXT = (ROOT / "Dockerfile").read_text() if (ROOT / "Dockerfile").exists() else ""  # away from a checkout

    def test_whatever_it_copies_is_not_ignored(self):
        kept = [
            line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
        ]
        assert all((ROOT / name).exists() for name in kept)
        assert {"requirements", "tools", "kernels", "horovod_byz", "setup.py", "README.md"} <= set(kept)

    def test_its_versions_are_those_of_the_requirements(self):
        named = set(re.findall(r"requirements/(\w+)\.txt", self.TEXT))
        assert named == {"constraints", "torch", "torchvision", "build", "run"}
        assert re.search(r"^ARG PYTHON=3\.11\.\d+$", self.TEXT, re.MULTILINE)
        assert not re.search(r"pip install (?!-q )", self.TEXT)

    def test_ranks_are_not_root_and_the_kubernetes_user_is_theirs(self):
        assert re.search(r"^USER 1000$", self.TEXT, re.MULTILINE)
        for name in ("mpijob", "pytorchjob"):
            for replica in replicas(name).values():
                assert replica["template"]["spec"]["securityContext"]["runAsUser"] == 1000
        assert job("mpijob")["spec"]["sshAuthMountPath"] == "/home/horovod/.ssh"
        assert "HostKey /home/horovod/.ssh/id_rsa" in self.TEXT
