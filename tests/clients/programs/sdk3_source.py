"""Train with ``SourceCode``: a script, a command, Torchrun on two instances, a failure, a stop.

The jobs are all sent at once and run one after the other. Arguments: the folder of the digits, the
training image, and what ``requirements.txt`` says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import TrainingJob
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.distributed import Torchrun
from sdk3_user import INSTANCE, ROLE, listed, log_of, tell, until

digits, image, requirements = sys.argv[1:]
session = Session()
source = Path("source")
source.mkdir()
for wheel in Path().glob("*.whl"):
    wheel.rename(source / wheel.name)
(source / "requirements.txt").write_text(f"{requirements}\n")
(source / "script.py").write_text("""
import importlib.util, json, os, pathlib, sys
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_text("w")
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "curve").write_text("c")
greeting = importlib.util.find_spec("greeting")
print("seen", json.dumps({
    "arguments": sys.argv[1:],
    "hyperparameters": json.loads(os.environ["SM_HPS"]),
    "folder": os.getcwd(),
    "files": sorted(os.listdir()),
    "rate": os.environ["RATE"],
    "greeting": greeting is not None,
}), flush=True)
""")
(source / "group.py").write_text("""
import json, os, torch
import torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
print("seen", json.dumps([dist.get_rank(), dist.get_world_size(), total.item()]), flush=True)
if dist.get_rank() == 0:
    torch.save({"sum": total}, os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
dist.barrier()
dist.destroy_process_group()
""")
(source / "bad.py").write_text("raise ValueError('told to fail')\n")


def start(name: str, code: SourceCode | None, instances: int = 1, **more: Any) -> TrainingJob:
    trainer = ModelTrainer(
        training_image=image,
        role=ROLE,
        base_job_name=name,
        source_code=code,
        compute=Compute(instance_type=INSTANCE, instance_count=instances),
        **more,
    )
    trainer.train(wait=False, logs=False)
    job: TrainingJob = trainer._latest_training_job
    return job


def of_source(**more: str) -> SourceCode:
    return SourceCode(source_dir=str(source), **more)


script = start(
    "script",
    of_source(entry_script="script.py", requirements="requirements.txt"),
    hyperparameters={"epochs": 2, "name": "adam", "flag": True, "sizes": [1, 2]},
    environment={"RATE": "fast"},
)
command = start(
    "command",
    SourceCode(
        source_dir=str(source),
        command="echo seen $TRAINING_JOB_NAME && ls",
        args=["-d", "script.py"],
    ),
)
group = start("group", of_source(entry_script="group.py"), 2, distributed=Torchrun())
bad = start("bad", of_source(entry_script="bad.py"))
# Without code: the SDK's sm_train.sh, a shell, hands no SIGTERM on to the script; a job with code
# is killed when the platform has waited for two minutes.
slow = start(
    "slow",
    None,
    hyperparameters={"epochs": 100000},
    # On cores that others use too, two threads that wait for each other take ten times as long.
    environment={"OMP_NUM_THREADS": "1"},
    input_data_config=[InputData(channel_name="training", data_source=digits)],
)
found: dict[str, Any] = {}
for job in (script, command, group):
    job.wait(poll=1)
for name, job in (("script", script), ("group", group)):
    found[name] = {"files": listed(session, job.model_artifacts.s3_model_artifacts)}
found["script"]["log"] = log_of(session, script.training_job_name)
found["command"] = {
    "job": command.training_job_name,
    "log": log_of(session, command.training_job_name),
}
found["group"]["logs"] = [
    log_of(session, group.training_job_name, host) for host in ("algo-1", "algo-2")
]
try:
    bad.wait(poll=1)
except FailedStatusError as error:
    found["bad"] = {
        "error": str(error),
        "reason": bad.failure_reason,
        "log": log_of(session, bad.training_job_name),
    }
until(lambda: any("epoch=1;" in line for line in log_of(session, slow.training_job_name)), 300)
slow.stop()
slow.wait(poll=1)
found["slow"] = {
    "status": [slow.training_job_status, slow.secondary_status],
    "files": listed(session, slow.model_artifacts.s3_model_artifacts),
    "log": log_of(session, slow.training_job_name),
}
found["listed"] = [
    one.training_job_name
    for one in TrainingJob.get_all(sort_by="CreationTime", sort_order="Ascending")
    if one.training_job_name.partition("-")[0] in {"script", "command", "group", "bad", "slow"}
]
found["failed"] = [one.training_job_name for one in TrainingJob.get_all(status_equals="Failed")]
found["names"] = [one.training_job_name for one in (script, command, group, bad, slow)]
tell(**found)
