"""Train with ``PyTorch(image_uri=…, entry_point=…, source_dir=…)``: alone, in vain, on two hosts.

Argument: the training image.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

from sagemaker.pytorch import PyTorch
from sdk2_user import INSTANCE, ROLE, error_of, heard, new_session, tell

(image,) = sys.argv[1:]
session = new_session()

# What a user has in a folder: a program, a module beside it, a library elsewhere.
Path("source").mkdir()
Path("source/train.py").write_text("""
import json, os, pathlib, sys
from library import words
import helper

print("seen", json.dumps(helper.seen(sys.argv[1:])), flush=True)
if "--fail" in sys.argv:
    raise ValueError("these numbers make no sense")
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_text(words.TEXT)
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "report").write_text("a report")
""")
Path("source/helper.py").write_text("""
import os

def seen(arguments):
    files = [f"{name}/{file}" for name in ("letters", "one")
             for file in sorted(os.listdir(os.environ[f"SM_CHANNEL_{name.upper()}"]))]
    return {"arguments": arguments, "parameters": os.environ["SM_HPS"], "files": files}
""")
Path("source/sum.py").write_text("""
import os, pathlib, torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
print("rank", dist.get_rank(), "of", dist.get_world_size(), "sum", total.item(), flush=True)
if dist.get_rank() == 0:
    pathlib.Path(os.environ["SM_MODEL_DIR"], "sum").write_text(str(total.item()))
dist.barrier()
dist.destroy_process_group()
""")
Path("elsewhere/library").mkdir(parents=True)
Path("elsewhere/library/words.py").write_text('TEXT = "of the library"\n')
Path("data/deeper").mkdir(parents=True)
Path("data/a").write_text("a")
Path("data/deeper/b").write_text("b")
letters = session.upload_data("data", key_prefix="letters")
session.upload_string_as_file_body("1", bucket=session.default_bucket(), key="one/1.txt")
channels = {"letters": letters, "one": f"s3://{session.default_bucket()}/one/1.txt"}


def estimator(program: str, **more: object) -> PyTorch:
    return PyTorch(
        image_uri=image,
        entry_point=program,
        source_dir="source",
        role=ROLE,
        instance_type=INSTANCE,
        sagemaker_session=session,
        **{"instance_count": 1, "max_run": 300, **more},
    )


def read(uri: str, file: str) -> list[str]:
    """The files of an archive of a job, with their texts."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    session.download_data("out", bucket, key.rpartition("/")[0] + "/" + file)
    with tarfile.open(f"out/{file}") as archive:
        files = [one for one in archive.getmembers() if one.isfile()]
        return [f"{one.name}: {archive.extractfile(one).read().decode()}" for one in files]


parameters = {"name": "adam", "rate": 0.5, "layers": [1, 2], "flag": True, "code": "007"}
alone = estimator("train.py", dependencies=["elsewhere/library"], hyperparameters=parameters)
with heard() as log:
    alone.fit(channels, job_name="pytorch-alone")
lines = log.getvalue().splitlines()
found = {
    "alone": json.loads(next(line for line in lines if line.startswith("seen "))[5:]),
    "model": read(alone.model_data, "model.tar.gz"),
    "output": read(alone.model_data, "output.tar.gz"),
}
again = PyTorch.attach("pytorch-alone", sagemaker_session=session)
found |= {
    "attached": [again.entry_point, again.hyperparameters()["layers"], again.model_data],
}

wrong = estimator("train.py", dependencies=["elsewhere/library"], hyperparameters={"fail": 1})
with heard() as log:
    found["failure"] = error_of(wrong.fit, channels, job_name="pytorch-wrong")
found["failure"]["status"] = wrong.latest_training_job.describe()["TrainingJobStatus"]
found["traceback"] = "ValueError: these numbers make no sense" in log.getvalue().splitlines()

both = estimator("sum.py", instance_count=2, distribution={"torch_distributed": {"enabled": True}})
with heard() as log:
    both.fit(job_name="pytorch-both")
found |= {
    "ranks": sorted(line for line in log.getvalue().splitlines() if "of 2 sum" in line),
    "sum": read(both.model_data, "model.tar.gz"),
}
tell(**found)
