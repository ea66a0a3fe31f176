"""The launch scripts, with programs in place of AWS, ssh, Slurm and horovodrun that note their arguments."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.source

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
PRETENDER = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
{code}
"""
# Three instances; NOBODY stands for none.
AWS = """
addresses = {"PublicIpAddress": "54.0.0.%d", "PrivateIpAddress": "10.0.0.%d", "InstanceId": "i-%d"}
if "describe-instances" in sys.argv and not os.environ.get("NOBODY"):
    asked = sys.argv[-1].rpartition("[")[2].rstrip("]")
    print("\\n".join(addresses[asked] % i for i in (1, 2, 3)))
"""
SSH = """
if "cat .ssh/id_ed25519.pub" in " ".join(sys.argv):
    print("ssh-ed25519 KEY root")
if os.environ.get("BROKEN", "nowhere") in " ".join(sys.argv) and "make setup" in sys.argv[-1]:
    sys.exit(1)
"""
# node[1-3] has three nodes, anything else node1 and node2.
SCONTROL = """
print("\\n".join(f"node{i + 1}" for i in range(3 if sys.argv[-1] == "node[1-3]" else 2)))
"""
# PMI names the kinds that Slurm offers; OPEN_MPI is what ompi_info says.
SRUN = """
if sys.argv[1:] == ["--mpi=list"]:
    print("MPI plugin types are...\\n\\tnone\\n\\tcray_shasta\\n" + os.environ.get("PMI", ""))
"""
OMPI_INFO = """
print(os.environ.get("OPEN_MPI", ""))
"""
PCLUSTER = """
if "describe-cluster" in sys.argv:
    print({"headNode.publicIpAddress": '"54.0.0.9"', "clusterStatus": '"CREATE_COMPLETE"'}[sys.argv[-1]])
"""


@pytest.fixture
def launch(tmp_path):
    """`launch(script, *arguments, **environment)`; its `calls()` are what was called since."""
    programs = tmp_path / "programs"
    programs.mkdir()
    codes = {"aws": AWS, "ssh": SSH, "rsync": "", "scontrol": SCONTROL, "horovodrun": ""}
    codes |= {"srun": SRUN, "ompi_info": OMPI_INFO, "pcluster": PCLUSTER}
    for name, code in codes.items():
        (programs / name).write_text(PRETENDER.format(python=sys.executable, code=code))
        (programs / name).chmod(0o755)
    log = tmp_path / "calls"
    # A checkout of its own, without .venv, whose horovodrun would come first.
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "launch").symlink_to(LAUNCH)

    def run(script, *arguments, **more):
        log.write_text("")
        env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": "/home/me", "CALLS": str(log), **more}
        command = ["bash", f"launch/{script}", *arguments]
        return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=60)

    run.root, run.programs = root, programs
    run.calls = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    return run


class TestHosts:
    def test_every_slot_gets_a_rank_and_the_first_host_comes_first(self, launch):
        (launch.root / "hosts").write_text("# the cluster\nb slots=2  # big\n\n a\nc slots=10")
        done = launch("hosts.sh", "--nic", "ens5", "hosts", "train", "a b", "$HOME")
        assert done.returncode == 0, done.stderr
        (called,) = launch.calls()
        assert called[:5] == ["horovodrun", "--gloo", "-np", "13", "-H"]
        assert called[5:] == [
            *("b:2,a:1,c:10", "--start-timeout", "600", "--network-interface", "ens5"),
            *("train", "a b", "$HOME"),
        ]

    def test_the_line_ends_of_windows_are_read(self, launch):
        (launch.root / "hosts").write_bytes(b"a slots=2\r\n\r\nb\r\n")
        assert launch("hosts.sh", "hosts", "train").returncode == 0
        assert launch.calls()[0][3:6] == ["3", "-H", "a:2,b:1"]

    def test_a_folder_is_no_hostfile(self, launch):
        done = launch("hosts.sh", ".", "train")
        assert (done.returncode, launch.calls()) == (2, [])
        assert "cannot read the hostfile ." in done.stderr

    def test_print_prints_what_would_run_and_runs_nothing(self, launch):
        (launch.root / "hosts").write_text("a\nb\n")
        arguments = ["--mpi", "hosts", "train", "a b"]
        assert launch("hosts.sh", *arguments).returncode == 0
        called = launch.calls()
        assert "--binding-args=--bind-to none --map-by slot" in called[0]
        printed = launch("hosts.sh", "--print", *arguments)
        assert launch.calls() == []
        assert [shlex.split(line) for line in printed.stdout.splitlines()] == called

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a slots=2\nb slots=two\n", "hosts, line 2: 'b slots=two' is not 'name slots=NUMBER'"),
            ("a slots=0\n", "hosts, line 1"),
            ("a 4\n", "hosts, line 1"),
            ("a slots=1 max=2\n", "hosts, line 1"),
            ("# nobody\n", "hosts names no host"),
            (
                "a slots=99999999999999999999\n",
                "hosts, line 1",
            ),  # over 64 bits: ended as -np 7766279631452241919
            ("a:2\n", "hosts, line 1: 'a:2' is not 'name slots=NUMBER'"),
        ],
    )
    def test_a_hostfile_that_cannot_be_read_is_refused(self, launch, text, message):
        (launch.root / "hosts").write_text(text)
        done = launch("hosts.sh", "hosts", "train")
        assert (done.returncode, launch.calls()) == (2, [])
        assert message in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "needs a hostfile and a command"),
            (("hosts",), "needs a hostfile and a command"),
            (("nowhere", "train"), "cannot read the hostfile nowhere"),
            (("--fast", "hosts", "train"), "unknown option --fast"),
            (("--nic",), "--nic needs the name of an interface"),
        ],
    )
    def test_what_is_missing_is_named(self, launch, arguments, message):
        (launch.root / "hosts").write_text("a\n")
        done = launch("hosts.sh", *arguments)
        assert (done.returncode, launch.calls()) == (2, [])
        assert message in done.stderr

    def test_a_start_without_sense_or_without_horovod_is_refused(self, launch):
        (launch.root / "hosts").write_text("a\n")
        refused = launch("hosts.sh", "hosts", "train", START_TIMEOUT="soon")
        assert "START_TIMEOUT=soon is not a number of seconds" in refused.stderr
        (launch.programs / "horovodrun").unlink()
        refused = launch("hosts.sh", "hosts", "train", PATH=f"{launch.programs}:/usr/bin:/bin")
        assert (refused.returncode, launch.calls()) == (2, [])
        assert "horovodrun is not on PATH: run make setup" in refused.stderr


class TestSlurm:
    def test_one_rank_for_each_task(self, launch):
        job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_SUBMIT_DIR": str(launch.root)}
        done = launch("slurm.sh", "train", "a b", SLURM_NTASKS_PER_NODE="4", NIC="ib0", **job)
        assert done.returncode == 0, done.stderr
        asked, *_, called = launch.calls()
        assert asked == ["scontrol", "show", "hostnames", "node[1-2]"]
        assert called[2:6] == ["-np", "8", "-H", "node1:4,node2:4"]
        assert called[-4:] == ["--network-interface", "ib0", "train", "a b"]

    def test_outside_a_job_it_says_how_to_start_it(self, launch):
        done = launch("slurm.sh", "train")
        assert (done.returncode, launch.calls()) == (2, [])
        assert "sbatch launch/slurm.sh COMMAND" in done.stderr

    def job(self, launch, nodes="node[1-3]", **tasks):
        job = {"SLURM_JOB_NODELIST": nodes, "SLURM_SUBMIT_DIR": str(launch.root)}
        return launch("slurm.sh", "train", **job, **tasks)

    @pytest.mark.parametrize(
        ("tasks", "hosts"),
        [
            ({"SLURM_TASKS_PER_NODE": "8(x3)", "SLURM_NTASKS": "24"}, "node1:8,node2:8,node3:8"),
            ({"SLURM_TASKS_PER_NODE": "2(x2),1"}, "node1:2,node2:2,node3:1"),
            ({"SLURM_TASKS_PER_NODE": "12,1(x2)"}, "node1:12,node2:1,node3:1"),
            ({"SLURM_TASKS_PER_NODE": "2(x2),1", "SLURM_NTASKS_PER_NODE": "2"}, "node1:2,node2:2,node3:1"),
            ({"SLURM_NTASKS": "3"}, "node1:1,node2:1,node3:1"),
            ({}, "node1:1,node2:1,node3:1"),
        ],
        ids=str,
    )
    def test_every_form_of_slurms_number_of_tasks(self, launch, tasks, hosts):
        """0.1.0: SLURM_TASKS_PER_NODE was not read: salloc -N8 -n64 started 8 ranks, without a word."""
        done = self.job(launch, **tasks)
        assert done.returncode == 0, done.stderr
        assert launch.calls()[-1][4:6] == ["-H", hosts]

    @pytest.mark.parametrize(
        ("tasks", "message"),
        [
            ({"SLURM_TASKS_PER_NODE": "8(x2)"}, "counts 2 nodes, but SLURM_JOB_NODELIST=node[1-3] has 3"),
            ({"SLURM_TASKS_PER_NODE": "8(3x)"}, "cannot read '8(3x)'"),
            ({"SLURM_TASKS_PER_NODE": "0(x3)"}, "cannot read '0(x3)'"),
            (
                {"SLURM_TASKS_PER_NODE": "1(x999999999999)"},
                "cannot read '1(x999999999999)'",
            ),  # counted for hours
            ({"SLURM_TASKS_PER_NODE": "*"}, "cannot read '*'"),  # was a file's name
            ({"SLURM_NTASKS_PER_NODE": "many"}, "cannot read 'many(x3)'"),
            ({"SLURM_NTASKS": "64"}, "makes 3 tasks on 3 nodes, but SLURM_NTASKS=64"),
            ({"SLURM_TASKS_PER_NODE": "2(x3)", "SLURM_NTASKS": "7"}, "makes 6 tasks on 3 nodes"),
            ({"SLURM_SUBMIT_DIR": ""}, "SLURM_SUBMIT_DIR is not set"),
            ({"SLURM_SUBMIT_DIR": "/nowhere"}, "cannot enter SLURM_SUBMIT_DIR=/nowhere"),
            ({"SLURM_SUBMIT_DIR": "/"}, "no launch/hosts.sh in /: call sbatch in the root of the checkout"),
        ],
        ids=str,
    )
    def test_an_allocation_that_makes_no_sense_is_refused(self, launch, tasks, message):
        job = {"SLURM_JOB_NODELIST": "node[1-3]", "SLURM_SUBMIT_DIR": str(launch.root)}
        done = launch("slurm.sh", "train", **{**job, **tasks})
        assert done.returncode == 2
        assert message in done.stderr
        assert [call for call in launch.calls() if call[0] == "horovodrun"] == []

    def test_without_scontrol_a_plain_list_is_read_and_a_pattern_refused(self, launch):
        (launch.programs / "scontrol").unlink()
        assert self.job(launch, "b,a", SLURM_TASKS_PER_NODE="2,1").returncode == 0
        assert launch.calls()[-1][4:6] == ["-H", "b:2,a:1"]
        done = self.job(launch)
        assert (done.returncode, launch.calls()) == (2, [])
        assert "scontrol, which reads SLURM_JOB_NODELIST=node[1-3], is not on PATH" in done.stderr

    @pytest.mark.parametrize("slurm", [{}, {"SLURM_JOB_NODELIST": "a,b,c", "SLURM_TASKS_PER_NODE": "4(x3)"}])
    def test_print_prints_the_command_and_starts_nothing(self, launch, slurm):
        """0.1.0: outside Slurm it refused, which is where one looks first."""
        (launch.programs / "scontrol").unlink()
        slurm = {**slurm, "SLURM_SUBMIT_DIR": str(launch.root)} if slurm else {}
        done = launch("slurm.sh", "train", "a b", PRINT="1", NIC="ib0", **slurm)
        assert done.returncode == 0
        # It asks what would start the ranks, and starts nothing.
        assert launch.calls() in ([["srun", "--mpi=list"]], [["srun", "--mpi=list"], ["ompi_info"]])
        words = shlex.split(done.stdout)
        assert words[:3] == ["horovodrun", "--gloo", "-np"]
        assert words[3:6] == (["12", "-H", "a:4,b:4,c:4"] if slurm else ["46", "-H", words[5]])
        assert len(words[5].split(",")) == (3 if slurm else 46)
        assert words[-4:] == ["--network-interface", "ib0", "train", "a b"]

    @pytest.mark.parametrize(
        ("slurm", "mpi", "start"),
        [
            ("\tpmix_v4\n", "Open MPI: 5.0.11", "srun"),
            ("\tpmix\n", "Open MPI: 4.1.6\n MCA pmix: ext3x (MCA v2.1.0)", "srun"),
            ("\tpmix\n", "Open MPI: 4.1.6\n MCA pmix: isolated (MCA v2.1.0)", "horovodrun"),
            ("\tpmi2\n", "Open MPI: 5.0.11", "horovodrun"),
            ("\tpmix\n", "", "horovodrun"),
        ],
    )
    def test_srun_starts_the_ranks_where_slurm_and_open_mpi_share_pmix(self, launch, slurm, mpi, start):
        tasks = {"SLURM_TASKS_PER_NODE": "2(x2),1", "PMI": slurm, "OPEN_MPI": mpi}
        assert self.job(launch, **tasks).returncode == 0
        called = launch.calls()[-1]
        assert called[0] == start
        if start == "srun":
            assert called[1:4] == ["--mpi=pmix", "--nodes=3", "--ntasks=5"]
            assert called[-1] == "train"

    def test_a_choice_of_ones_own_wins_and_a_wrong_one_is_refused(self, launch):
        pmix = {"PMI": "pmix", "OPEN_MPI": "Open MPI: 5.0.11"}
        assert self.job(launch, START="ssh", **pmix).returncode == 0
        assert launch.calls()[-1][0] == "horovodrun"
        assert self.job(launch, START="srun").returncode == 0
        assert launch.calls()[-1][0] == "srun"
        refused = self.job(launch, START="rsh")
        assert (refused.returncode, "START=rsh: there are srun and ssh" in refused.stderr) == (2, True)

    def test_the_interface_reaches_open_mpi_and_each_node_is_prepared_once(self, launch):
        wanted = {"START": "srun", "NIC": "ib0", "PREPARE": "install it"}
        printed = self.job(launch, PRINT="1", SLURM_TASKS_PER_NODE="2(x3)", **wanted)
        prepared, started = (shlex.split(line) for line in printed.stdout.splitlines())
        assert prepared == [
            *("srun", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1"),
            *("bash", "-c", "install it"),
        ]
        assert started[:4] == ["env", "OMPI_MCA_btl_tcp_if_include=ib0", "srun", "--mpi=pmix"]
        assert [call for call in launch.calls() if call[0] != "scontrol"] == []

    def test_print_0_does_not_print(self, launch):
        done = launch("slurm.sh", "train", PRINT="0")
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("hosts.sh", ["--print", "--mpi", "--nic NAME", "START_TIMEOUT", "slots=2"]),
        ("slurm.sh", ["PRINT=1", "NIC", "START", "PREPARE", "sbatch", "salloc -N8 -n64"]),
        ("ec2.sh", ["--print", "AMI", "SPOT_PRICE", "fetch"]),
        ("parallelcluster.sh", ["--print", "SUBNET", "PRICE_DATE", "down"]),
    ],
)
def test_help_explains_every_script_and_starts_nothing(launch, script, words, option):
    done = launch(script, option)
    assert (done.returncode, done.stderr, launch.calls()) == (0, "", [])
    assert [word for word in words if word not in done.stdout] == []
    assert "#" not in done.stdout.splitlines()[0]
    assert "pipefail" not in done.stdout


def test_every_script_is_explained_here_and_prints_for_print_1(launch):
    scripts = {path.name for path in LAUNCH.glob("*.sh")}
    assert scripts == {"hosts.sh", "slurm.sh", "ec2.sh", "parallelcluster.sh"}
    (launch.root / "hosts").write_text("a\n")
    for script, arguments in {
        "hosts.sh": ["hosts", "train"],
        "slurm.sh": ["train"],
        "ec2.sh": ["up"],
        "parallelcluster.sh": ["up"],
    }.items():
        printed = launch(script, *arguments, PRINT="1", START="ssh", SUBNET="subnet-1", **SETTINGS)
        assert (printed.returncode, launch.calls()) == (0, []), printed.stderr
        assert printed.stdout.split()[0] in ("horovodrun", "aws", "pcluster")


@pytest.mark.parametrize("script", ["slurm.sh", "ec2.sh", "parallelcluster.sh"])
def test_without_a_command_each_says_what_it_needs(launch, script):
    done = launch(script)
    assert (done.returncode, launch.calls()) == (2, [])
    assert "needs a command" in done.stderr
    assert "unbound variable" not in done.stderr


SETTINGS = {"AMI": "ami-7", "KEY_NAME": "mine", "SECURITY_GROUP": "sg-1", "COUNT": "3"}


class TestEc2:
    def test_up_asks_for_the_papers_machines(self, launch):
        done = launch("ec2.sh", "up", **SETTINGS, SPOT_PRICE="0.155", NOBODY="yes")
        there, started, *_ = launch.calls()
        assert "describe-instances" in there
        assert started[:4] == ["aws", "--region", "us-west-2", "ec2"]
        options = dict(zip(started[5::2], started[6::2], strict=True))
        assert options["--instance-type"] == "m5.2xlarge"
        assert options["--count"] == "3"
        assert options["--image-id"] == "ami-7"
        assert options["--placement"] == "AvailabilityZone=us-west-2c"
        assert "MaxPrice=0.155" in options["--instance-market-options"]
        assert "Key=horovod_byz,Value=horovod_byz" in options["--tag-specifications"]
        assert done.returncode == 2  # the pretended AWS started nobody
        assert "no instance of cluster horovod_byz runs" in done.stderr

    def test_up_does_not_start_a_second_cluster_of_that_name(self, launch):
        done = launch("ec2.sh", "up", **SETTINGS)
        assert done.returncode == 2
        assert "cluster horovod_byz runs already" in done.stderr
        assert all("run-instances" not in call for call in launch.calls())

    def test_on_demand_without_a_price(self, launch):
        printed = launch("ec2.sh", "--print", "up", **SETTINGS)
        assert "run-instances" in printed.stdout
        assert "spot" not in printed.stdout
        assert launch.calls() == []

    def test_the_hostfile_starts_the_ranks(self, launch):
        assert launch("ec2.sh", "hosts", **SETTINGS).returncode == 0
        assert (launch.root / "hosts.horovod_byz").read_text() == "".join(
            f"10.0.0.{i} slots=1\n" for i in (1, 2, 3)
        )
        assert "&AmiLaunchIndex" in launch.calls()[0][-1]
        launch("hosts.sh", "hosts.horovod_byz", "train")
        assert launch.calls()[0][2:6] == ["-np", "3", "-H", "10.0.0.1:1,10.0.0.2:1,10.0.0.3:1"]

    def test_setup_reaches_every_instance(self, launch):
        done = launch("ec2.sh", "setup", **SETTINGS, DATA="/data/sets")
        assert done.returncode == 0, done.stderr
        calls = launch.calls()
        for i in (1, 2, 3):
            mine = [call for call in calls if f"admin@54.0.0.{i}" in " ".join(call)]
            assert "apt-get" in mine[0][-1]
            assert [call[-1].rpartition(":")[2] for call in mine[1:3]] == [
                "horovod_byz/",
                "horovod_byz/data/",
            ]
            assert mine[3][-1] == "cd horovod_byz && make setup"
            assert "ssh-ed25519 KEY root" in mine[-1][-1]
            assert "authorized_keys" in mine[-1][-1]

    def test_setup_names_the_instances_that_failed(self, launch):
        done = launch("ec2.sh", "setup", **SETTINGS, BROKEN="54.0.0.2")
        assert done.returncode == 2
        assert "setup failed on 54.0.0.2; it may be called again" in done.stderr

    def test_run_starts_the_ranks_from_the_root(self, launch):
        (launch.root / "hosts.horovod_byz").write_text("10.0.0.1\n")
        done = launch("ec2.sh", "run", "horovod-byz", "train", "a b", **SETTINGS)
        assert done.returncode == 0, done.stderr
        copied, started = launch.calls()[1:]
        assert copied[-2:] == ["hosts.horovod_byz", "admin@54.0.0.1:horovod_byz/hosts"]
        assert "launch/hosts.sh --nic ens5 hosts horovod-byz train a\\ b" in started[-1]

    def test_what_run_sends_outlives_its_terminal_and_passes_the_status_on(self, launch, tmp_path):
        (launch.root / "hosts.horovod_byz").write_text("10.0.0.1\n")
        launch("ec2.sh", "run", "horovod-byz", "train", **SETTINGS)
        remote = launch.calls()[-1][-1]
        home = tmp_path / "home"
        (home / "horovod_byz" / "launch").mkdir(parents=True)
        script = home / "horovod_byz" / "launch" / "hosts.sh"
        script.write_text("#!/bin/sh\necho the ranks say $*; exit 3\n")
        script.chmod(0o755)
        done = subprocess.run(["bash", "-c", remote], cwd=home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 3
        assert "the ranks say --nic ens5 hosts horovod-byz train" in done.stdout
        assert (home / "horovod_byz" / "run.log").read_text() == done.stdout

    def test_fetch_and_down(self, launch):
        assert launch("ec2.sh", "fetch", **SETTINGS).returncode == 0
        assert launch.calls()[-1][-4:] == [
            *(f"admin@54.0.0.1:horovod_byz/{what}" for what in ("runs", "results", "run.log")),
            "./",
        ]
        assert launch("ec2.sh", "down", **SETTINGS).returncode == 0
        ended = launch.calls()[-1]
        assert ended[ended.index("--instance-ids") + 1 :][:3] == ["i-1", "i-2", "i-3"]
        done = launch("ec2.sh", "down", **SETTINGS, NOBODY="yes")
        assert done.returncode == 2
        assert all("terminate-instances" not in call for call in launch.calls())

    @pytest.mark.parametrize("verb", ["up", "hosts", "setup", "run train", "fetch", "down"])
    def test_print_starts_no_program(self, launch, verb):
        printed = launch("ec2.sh", "--print", *verb.split(), **SETTINGS)
        assert printed.returncode == 0, printed.stderr
        assert printed.stdout
        assert launch.calls() == []

    @pytest.mark.parametrize("words", ["up --print", "down --print", "run --print train", "down now"])
    def test_nothing_behind_a_command_is_ignored(self, launch, words):
        """`up --print` started the machines that it should show."""
        done = launch("ec2.sh", *words.split(), **SETTINGS)
        assert (done.returncode, launch.calls()) == (2, [])
        assert "--print comes first" in done.stderr or "takes no arguments" in done.stderr

    def test_what_is_missing_is_named(self, launch):
        for verb, message in {"up": "up needs AMI", "fetch": "fetch needs KEY_NAME", "go": "'go'"}.items():
            done = launch("ec2.sh", verb)
            assert (done.returncode, launch.calls()) == (2, [])
            assert message in done.stderr
        assert "COUNT=x is not a number" in launch("ec2.sh", "up", COUNT="x").stderr

    def test_help_names_every_setting_that_the_script_reads(self, launch):
        output = launch("ec2.sh", "help").stdout
        for name in (
            "AMI",
            "KEY_FILE",
            "SUBNET",
            "SPOT_PRICE",
            "DISK_DEVICE",
            "LOGIN",
            "HOSTFILE",
            "DATA",
            "NIC",
        ):
            assert name in output


CLUSTER = {"KEY_NAME": "mine", "SUBNET": "subnet-7", "TMPDIR": "/tmp"}
PRICES = {"HOURS": "10", "PRICE": "0.384", "HEAD_PRICE": "0.096", "PRICE_DATE": "2026-11-26"}


class TestParallelCluster:
    def test_the_configuration_is_the_papers_cluster(self, launch):
        made = yaml.safe_load(launch("parallelcluster.sh", "config", **CLUSTER).stdout)
        (queue,) = made["Scheduling"]["SlurmQueues"]
        (nodes,) = queue["ComputeResources"]
        assert (nodes["InstanceType"], nodes["MinCount"], nodes["MaxCount"]) == ("m5.2xlarge", 0, 46)
        assert queue["Networking"]["SubnetIds"] == ["subnet-7"]
        assert (queue["CapacityType"], made["HeadNode"]["Ssh"]["KeyName"]) == ("ONDEMAND", "mine")
        other = launch(
            "parallelcluster.sh", "config", **CLUSTER, COUNT="5", CAPACITY="SPOT", TYPE="g5.xlarge"
        )
        (queue,) = yaml.safe_load(other.stdout)["Scheduling"]["SlurmQueues"]
        assert queue["CapacityType"] == "SPOT"
        assert queue["ComputeResources"][0]["MaxCount"] == 5

    def test_up_waits_and_down_deletes(self, launch):
        done = launch("parallelcluster.sh", "up", **CLUSTER)
        assert done.returncode == 0, done.stderr
        created, described = launch.calls()
        assert created[1:6] == ["create-cluster", "--region", "us-west-2", "--cluster-name", "horovod-byz"]
        assert described[1] == "describe-cluster"
        assert not pathlib.Path(created[-1]).exists()  # the filled-in configuration
        assert launch("parallelcluster.sh", "down", **CLUSTER).returncode == 0
        assert launch.calls()[-1][1] == "delete-cluster"

    def test_run_queues_the_command_for_all_nodes(self, launch):
        done = launch("parallelcluster.sh", "run", "horovod-byz", "train", "a b", **CLUSTER, COUNT="5")
        assert done.returncode == 0, done.stderr
        sent = launch.calls()[-1]
        assert sent[-2] == "ec2-user@54.0.0.9"
        words = shlex.split(sent[-1])
        assert words[-6:] == ["sbatch", "--nodes=5", "launch/slurm.sh", "horovod-byz", "train", "a b"]
        assert any(word.startswith("PREPARE=sudo dnf install") for word in words)

    def test_the_cost_follows_from_the_prices_that_are_given(self, launch):
        said = launch("parallelcluster.sh", "cost", **PRICES, DISK_PRICE="0.08").stdout
        nodes, head, disks = 10 * 46 * 0.384, 10 * 0.096, 10 * (100 + 46 * 40) * 0.08 / 730
        assert f"46 x m5.2xlarge at $0.384/h = ${nodes:.2f}" in said
        assert f"together ${nodes + head + disks:.2f} at the prices of 2026-11-26" in said
        assert launch.calls() == []

    @pytest.mark.parametrize(
        ("verb", "given", "message"),
        [
            ("cost", {"PRICE_DATE": ""}, "cost needs PRICE_DATE"),
            ("cost", {"PRICE": "free"}, "PRICE=free is not a number"),
            ("cost", {"PRICE_DATE": "today"}, "PRICE_DATE=today is not a day"),
            ("up", {"KEY_NAME": ""}, "needs KEY_NAME"),
            ("up", {"COUNT": "0"}, "COUNT=0 is not a number of nodes"),
            ("up", {"CAPACITY": "CHEAP"}, "there are ONDEMAND and SPOT"),
            ("up", {"CLUSTER": "a b"}, "use letters, digits"),
            ("go", {}, "unknown command 'go'"),
            ("up now", {}, "up takes no arguments"),
        ],
    )
    def test_what_is_missing_or_wrong_is_named(self, launch, verb, given, message):
        done = launch("parallelcluster.sh", *verb.split(), **{**CLUSTER, **PRICES, **given})
        assert (done.returncode, launch.calls()) == (2, [])
        assert message in done.stderr

    @pytest.mark.parametrize("verb", ["up", "setup", "run train", "fetch", "down"])
    def test_print_starts_no_program(self, launch, verb):
        printed = launch("parallelcluster.sh", "--print", *verb.split(), **CLUSTER)
        assert (printed.returncode, launch.calls()) == (0, []), printed.stderr
        assert printed.stdout
