"""What ModelTrainer of SageMaker SDK v3 starts: its own drivers, in the image, on two hosts.

Runs when BYOC_CLIENTS names the clients' environments, as tests/clients/make-clients makes them.
The script and the channels are put together as its ModelTrainer does.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.images.test_hosts import HOSTS, ended, network  # noqa: F401 - the fixture
from tests.images.test_training import mounted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.images.conftest import Docker

DRIVERS = "/opt/ml/input/data/sm_drivers"
ENTRY = ("/bin/bash", "-c", f"chmod +x {DRIVERS}/sm_train.sh && {DRIVERS}/sm_train.sh")
PROGRAM = """
import json, os, sys, torch
import torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
print("seen", json.dumps([dist.get_rank(), dist.get_world_size(), total.item(), sys.argv[1:],
      os.environ["MASTER_PORT"], os.getcwd()]), flush=True)
if dist.get_rank() == 0:
    torch.save({"sum": total}, os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def sdk() -> Path:
    folder = os.environ.get("BYOC_CLIENTS")
    if not folder:
        pytest.skip("no SDK here; tests/clients/make-clients makes it, BYOC_CLIENTS names it")
    (packages,) = Path(folder).glob("sdk3/lib/python3.*/site-packages")
    return packages / "sagemaker" / "train"


@pytest.fixture
def trainer(
    docker: Docker,
    training_image: str,
    opt_ml: Callable[..., Path],
    sdk: Path,
) -> Callable[..., tuple[str, Path]]:
    """Start one host of a job with source code; its container and its folder."""

    def begin(host: str, hosts: tuple[str, ...], *options: str, torchrun: bool) -> tuple[str, Path]:
        root = opt_ml({"epochs": "2", "name": "adam", "flag": "true"}, name=host)
        config: dict[str, Any] = {
            "current_host": host,
            "hosts": list(hosts),
            "network_interface_name": "eth0",
            "current_instance_type": "ml.m5.large",
        }
        channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
        inputs = {"sm_drivers": channel, "code": channel}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(config))
        (root / "input/config/inputdataconfig.json").write_text(json.dumps(inputs))
        code = root / "input/data/code"
        code.mkdir()
        (code / "train.py").write_text(PROGRAM)
        drivers = root / "input/data/sm_drivers"
        shutil.copytree(sdk / "container_drivers", drivers)
        templates = runpy.run_path(str(sdk / "templates.py"))
        driver = templates["EXECUTE_BASIC_SCRIPT_DRIVER"]
        if torchrun:
            driver = templates["EXEUCTE_DISTRIBUTED_DRIVER"].format(
                driver_name="Torchrun", driver_script="torchrun_driver.py"
            )
        script = templates["TRAIN_SCRIPT_TEMPLATE"].format(
            working_dir="cd /opt/ml/input/data/code \n",
            install_requirements="",
            execute_driver=driver,
        )
        (drivers / "sm_train.sh").write_text(script)
        source = {"source_dir": "source", "entry_script": "train.py", "command": None}
        (drivers / "sourcecode.json").write_text(json.dumps(source))
        distributed = {"process_count_per_node": None, "smp": None} if torchrun else {}
        (drivers / "distributed.json").write_text(json.dumps(distributed))
        more = (*mounted(root), "--env", "TRAINING_JOB_NAME=job-3", *options)
        container = docker.start(
            training_image, *ENTRY[1:], options=(*more, "--entrypoint", ENTRY[0])
        )
        return container, root

    return begin


@pytest.mark.contract(42, 43)
def test_torchrun_of_the_sdk_forms_a_group_over_two_containers(
    docker: Docker,
    trainer: Callable[..., tuple[str, Path]],
    network: str,  # noqa: F811 - the fixture
) -> None:
    started = {
        host: trainer(host, HOSTS, "--network", network, "--network-alias", host, torchrun=True)
        for host in HOSTS
    }
    for rank, host in enumerate(HOSTS):
        container, root = started[host]
        code, log = ended(docker, container)
        assert code == 0, log
        line = next(line for line in log.splitlines() if line.startswith("seen "))
        arguments = ["--epochs", "2", "--name", "adam", "--flag", "true"]
        assert json.loads(line[5:]) == [
            rank, 2, 3.0, arguments, "7777", "/opt/ml/input/data/code"
        ]  # fmt: skip
        assert not (root / "output/failure").exists()
        assert [path.name for path in (root / "model").iterdir()] == ["model.pth"] * (rank == 0)


@pytest.mark.contract(42)
def test_a_failure_under_the_sdk_has_the_exit_code_and_a_failure_file(
    docker: Docker, trainer: Callable[..., tuple[str, Path]]
) -> None:
    """Without torchrun there is no process group to be formed: the script fails."""
    container, root = trainer("algo-1", ("algo-1",), torchrun=False)
    code, log = ended(docker, container)
    assert code == 1, log
    assert "RANK expected, but not set" in log
    assert (root / "output/failure").read_text().strip()
