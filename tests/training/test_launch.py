from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from byoc_training import devices, environment, launch, torchrun
from byoc_training.console import Console
from byoc_training.errors import ContractError, SourceError, UnavailableError
from byoc_training.paths import Paths
from byoc_training.program import Kind, Program


@pytest.fixture
def plan(job):
    def make(
        hyperparameters: dict[str, str],
        hosts: tuple[str, ...] = ("algo-1",),
        kind: Kind = Kind.SCRIPT,
        gpus: int = 0,
    ) -> launch.Plan:
        job.config("hyperparameters", hyperparameters)
        job.config("resourceconfig", {"current_host": hosts[-1], "hosts": list(hosts)})
        machine = devices.Devices(2, tuple(f"GPU {n}" for n in range(gpus)), ("lo",), "lo")
        found = environment.read(Paths(job.root), {}, machine, Console())
        name = {Kind.SCRIPT: "train.py", Kind.PACKAGE: "pkg/train.py", Kind.COMMAND: "run.sh"}[kind]
        program = Program(name, Path("/src"), kind, ("/bin/sh",) * (kind is Kind.COMMAND))
        return launch.make_plan(found, program, ("--x", "1"), {})

    return make


def test_script_runs_with_this_interpreter(plan):
    made = plan({})
    assert made.command == (sys.executable, "train.py", "--x", "1")
    assert (made.directory, made.stop) == (Path("/src"), launch.Stop.PROGRAM)


def test_package_runs_as_a_module(plan):
    made = plan({}, kind=Kind.PACKAGE)
    assert made.command == (sys.executable, "-m", "pkg.train", "--x", "1")


def test_shell_script_is_stopped_with_its_group(plan):
    made = plan({}, kind=Kind.COMMAND)
    assert made.command == ("/bin/sh", "./run.sh", "--x", "1")
    assert made.stop is launch.Stop.GROUP


TORCHRUN = {"sagemaker_torch_distributed_enabled": "true"}


def test_torchrun_on_one_host_takes_a_free_port(plan):
    command = plan(TORCHRUN, gpus=4).command
    assert command[1:6] == (
        "-m", "torch.distributed.run", "--nnodes=1", "--nproc_per_node=4", "--standalone"
    )  # fmt: skip
    assert command[6:] == ("train.py", "--x", "1")


@pytest.mark.parametrize(
    "asked",
    [
        {"sagemaker_torch_distributed_enabled": "true"},
        {"sagemaker_pytorch_ddp_enabled": "true"},
        {"byoc_launcher": "torchrun"},
    ],
)
def test_torchrun_can_be_asked_for_in_these_ways(plan, asked):
    assert plan(asked).launcher is launch.Launcher.TORCHRUN
    assert plan(asked).stop is launch.Stop.CHILDREN
    assert plan({**asked, "byoc_launcher": "direct"}).launcher is launch.Launcher.DIRECT


def test_the_number_of_processes_can_be_given(plan):
    command = plan({"byoc_launcher": "torchrun", "byoc_processes_per_host": "3"}, gpus=8).command
    assert "--nproc_per_node=3" in command


def test_torchrun_runs_a_package_as_a_module(plan):
    command = plan(TORCHRUN, kind=Kind.PACKAGE).command
    assert command[6:] == ("-m", "pkg.train", "--x", "1")


def test_unknown_launcher_is_refused(plan):
    with pytest.raises(ContractError, match=r"byoc_launcher .* 'horovod'; expected one of direct"):
        plan({"byoc_launcher": "horovod"})


def test_torchrun_on_many_hosts_is_ranked_by_name(plan):
    hosts = tuple(f"algo-{n}" for n in (1, 3, 10, 2))
    command = plan(TORCHRUN, hosts).command
    assert command[3:8] == (
        "--nnodes=4",
        "--nproc_per_node=1",
        "--master_addr=algo-1",
        "--master_port=7777",
        "--node_rank=2",
    )


def test_torchrun_needs_a_python_script(plan):
    with pytest.raises(SourceError, match="needs a Python program"):
        plan(TORCHRUN, kind=Kind.COMMAND)


@pytest.mark.parametrize("count", ["0", "many", "-1", "1.5"])
def test_processes_per_host_must_be_a_positive_number(plan, count):
    with pytest.raises(ContractError, match="whole number"):
        plan({**TORCHRUN, "sagemaker_mpi_num_of_processes_per_host": count})


@pytest.mark.parametrize(
    ("switch", "runner"),
    [
        ("sagemaker_mpi_enabled", "MPI"),
        ("sagemaker_distributed_dataparallel_enabled", "SMDataParallel"),
        ("sagemaker_pytorch_xla_multi_worker_enabled", "PyTorchXLA"),
    ],
)
def test_options_of_the_toolkit_go_to_its_runner(plan, monkeypatch, job, switch, runner):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("shutil.which", lambda name: name)
    made = plan({switch: "true"})
    assert made.command == (sys.executable, "-m", "byoc_training.toolkit", runner)
    assert made.variables["SAGEMAKER_BASE_DIR"] == str(job.root)
    assert made.stop is launch.Stop.GROUP


def test_missing_toolkit_is_one_clear_line(plan):
    with pytest.raises(UnavailableError, match="sagemaker-training, which is not installed"):
        plan({"sagemaker_mpi_enabled": "true"})


@pytest.mark.parametrize(
    "switch", ["sagemaker_mpi_enabled", "sagemaker_distributed_dataparallel_enabled"]
)
def test_missing_programs_of_a_runner_are_one_clear_line(plan, monkeypatch, switch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("shutil.which", lambda name: None if "sshd" in name else name)
    with pytest.raises(UnavailableError, match="which needs /usr/sbin/sshd; install Open MPI"):
        plan({switch: "true"})


@pytest.fixture
def network(job):
    """The variables for a host of two, with these interfaces and the platform's word."""

    def make(named: str | None, gpus: int, environ: dict[str, str]) -> dict[str, str]:
        config = {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]}
        job.config("resourceconfig", config | ({"network_interface_name": named} if named else {}))
        job.config("hyperparameters", {"byoc_launcher": "torchrun"})
        machine = devices.Devices(2, ("GPU",) * gpus, ("eth7", "lo"), "eth7")
        found = environment.read(Paths(job.root), {}, machine, Console())
        return torchrun.variables(found, environ)

    return make


@pytest.mark.contract(26)
def test_the_named_interface_is_used_where_it_exists(network):
    assert network("eth7", 1, {}) == {"GLOO_SOCKET_IFNAME": "eth7", "NCCL_SOCKET_IFNAME": "eth7"}
    assert network("eth0", 1, {}) == {"GLOO_SOCKET_IFNAME": "eth7"}
    assert network(None, 0, {}) == {"GLOO_SOCKET_IFNAME": "eth7"}


@pytest.mark.contract(53)
def test_what_the_request_has_set_is_left_alone(network):
    assert network("eth7", 1, {"NCCL_SOCKET_IFNAME": "^lo", "GLOO_SOCKET_IFNAME": "x"}) == {}


@pytest.mark.contract(52)
@pytest.mark.parametrize("there", [True, False])
def test_efa_is_asked_for_where_its_devices_are(network, monkeypatch, tmp_path, there):
    monkeypatch.setattr(torchrun, "EFA_DEVICES", tmp_path)
    if there:
        (tmp_path / "uverbs0").touch()
    assert network(None, 1, {}).get("FI_PROVIDER") == ("efa" if there else None)
    assert "FI_PROVIDER" not in network(None, 0, {})
    assert "FI_PROVIDER" not in network(None, 1, {"FI_PROVIDER": "tcp"})


@pytest.mark.contract(22)
@pytest.mark.slow
def test_a_long_and_difficult_hyperparameter_reaches_a_rank_unharmed(job):
    text = 'it\'s "x" $HOME `id`\n\tgröße 数字 🚀 \\n --epochs %s {} '
    text = (text * 100)[:2499] + "."
    job.hyperparameters(byoc_launcher="torchrun", text=text, quoted=json.dumps(text)[:2500])
    job.probe()
    result = job.run("train")
    assert result.code == 0, result.stderr
    seen = result.seen()
    assert (seen["env"]["RANK"], seen["env"]["WORLD_SIZE"]) == ("0", "1")
    assert seen["argv"] == ["--quoted", json.dumps(text)[:2500], "--text", text]
    assert json.loads(seen["env"]["SM_HPS"])["text"] == text
    assert seen["env"]["SM_HP_TEXT"] == text


@pytest.mark.slow
def test_torchrun_forms_a_group_of_two_and_names_the_failing_rank(job):
    job.hyperparameters(
        sagemaker_torch_distributed_enabled="true",
        sagemaker_mpi_num_of_processes_per_host="2",
        fail="true",
    )
    job.program(
        "import json, os, sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.tensor([dist.get_rank() + 1.0]); dist.all_reduce(total)\n"
        "if dist.get_rank() == 0:\n"
        "    print(json.dumps([dist.get_world_size(), total.item(), sys.argv[1:]]), flush=True)\n"
        "dist.barrier()\n"
        "if dist.get_rank() == 1: raise ValueError('only on rank 1')\n"
    )
    result = job.run("train")
    line = next(one for one in result.stdout.splitlines() if one.startswith("[2"))
    assert json.loads(line) == [2, 3.0, ["--fail", "True"]]
    assert result.code == 1
    assert "ValueError: only on rank 1" in result.failure[:200]
