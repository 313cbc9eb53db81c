"""Local mode: the SDK itself runs both images with docker-compose, and keeps objects in S3.

Arguments: the folder of the digits, the training image, the inference image, a port to serve on.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.model import Model
from sagemaker.pytorch import PyTorch
from sagemaker.serializers import JSONSerializer, NumpySerializer
from sagemaker.transformer import Transformer
from sdk2_user import ROLE, error_of, heard, tell
from sdk_digits import digits, right

folder, training_image, inference_image, port = sys.argv[1:]
root = Path("containers").absolute()
root.mkdir()
session = LocalSession(default_bucket="sdk2-local")
# local_code: source folders are mounted. From S3 a container could not fetch them, as the SDK
# tells it the address that is this machine's own, not the container's.
session.config = {
    "local": {"local_code": True, "container_root": str(root), "serving_port": int(port)}
}
bucket = session.default_bucket()
pictures, labels = digits(folder, 100)

# Train on a channel in S3; the model goes there.
channel = session.upload_data(folder, key_prefix="digits")
estimator = Estimator(
    image_uri=training_image,
    role=ROLE,
    instance_count=1,
    instance_type="local",
    hyperparameters={"epochs": 3, "seed": 8},
    environment={"OMP_NUM_THREADS": "1"},
    output_path=f"s3://{bucket}/models",
    sagemaker_session=session,
)
with heard() as log:
    estimator.fit({"training": channel})
found = {
    "epochs": log.getvalue().count("epoch="),
    "model_data": estimator.model_data,
    "job": estimator.latest_training_job.name,
}

# Serve it, and ask.
predictor = estimator.deploy(
    initial_instance_count=1,
    instance_type="local",
    image_uri=inference_image,
    env={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
predictor.accept = "application/json"
try:
    (one,) = predictor.predict(pictures[:1].tolist())
    found |= {"digit": labels[0], "answer": int(np.argmax(one))}
    predictor.serializer = NumpySerializer()
    found["right"] = right(predictor.predict(pictures), labels)
finally:
    predictor.delete_endpoint()

# Transform a file of this machine, line by line.
Path("batch").mkdir()
np.savetxt("batch/rows.csv", pictures[:20].reshape(20, -1), delimiter=",", fmt="%.6f")
model = Model(
    inference_image,
    estimator.model_data,
    ROLE,
    name="digits-local",
    env={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    sagemaker_session=session,
)
model.create(instance_type="local")
transformer = Transformer(
    model_name="digits-local",
    instance_count=1,
    instance_type="local",
    strategy="SingleRecord",
    assemble_with="Line",
    accept="text/csv",
    output_path=f"file://{Path('transformed').absolute()}",
    sagemaker_session=session,
)
transformer.transform(
    f"file://{Path('batch').absolute()}", content_type="text/csv", split_type="Line"
)
lines = Path("transformed/rows.csv.out").read_text().split()
found["transformed"] = right(
    [[float(one) for one in line.split(",")] for line in lines], labels[:20]
)

# A program of one's own on two hosts; everything is a folder of this machine.
Path("source").mkdir()
Path("source/sum.py").write_text("""
import json, os, pathlib, sys, torch
import torch.distributed as dist

if "--fail" in sys.argv:
    raise ValueError("these numbers make no sense")
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
hosts = json.loads(os.environ["SM_HOSTS"])
facts = [dist.get_rank(), dist.get_world_size(), total.item(), len(hosts)]
print("seen", json.dumps(facts), sys.argv[1:], flush=True)
if dist.get_rank() == 0:
    text = pathlib.Path(os.environ["SM_CHANNEL_WORDS"], "w").read_text()
    pathlib.Path(os.environ["SM_MODEL_DIR"], "sum").write_text(f"{total.item()} {text}")
dist.barrier()
dist.destroy_process_group()
""")
Path("words").mkdir()
Path("words/w").write_text("a word")
words = {"words": f"file://{Path('words').absolute()}"}


def on_hosts(count: int, **more: object) -> PyTorch:
    return PyTorch(
        image_uri=training_image,
        entry_point="sum.py",
        source_dir="source",
        role=ROLE,
        instance_count=count,
        instance_type="local",
        output_path=f"file://{Path('output').absolute()}",
        sagemaker_session=session,
        **more,
    )


both = on_hosts(
    2,
    hyperparameters={"rate": 0.5},
    distribution={"torch_distributed": {"enabled": True}},
)
with heard() as log:
    both.fit(words)
found["ranks"] = sorted(
    line[line.index("seen ") + 5 :].strip()
    for line in log.getvalue().splitlines()
    if "seen [" in line
)
with tarfile.open(fileobj=io.BytesIO(Path("output/model.tar.gz").read_bytes())) as archive:
    found["sum"] = archive.extractfile("sum").read().decode()

wrong = on_hosts(1, hyperparameters={"fail": 1})
with heard() as log:
    found["failure"] = error_of(wrong.fit, words)
found["said"] = "ValueError: these numbers make no sense" in log.getvalue()
with tarfile.open("output/output.tar.gz") as archive:
    names = archive.getnames()
    reason = next((name for name in names if name.endswith("failure")), None)
    found["reason"] = archive.extractfile(reason).read().decode() if reason else names
tell(**found)
