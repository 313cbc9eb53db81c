"""Jobs beside training: ``Processor``, ``ScriptProcessor``, ``Transformer``, and their resources.

Arguments: the folder of the digits, the training job, the training image, the inference image.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.processing import Processor, ScriptProcessor
from sagemaker.core.resources import Model, ProcessingJob, TrainingJob, TransformJob
from sagemaker.core.shapes import (
    ContainerDefinition,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
)
from sagemaker.core.transformer import Transformer
from sagemaker.core.utils.exceptions import FailedStatusError
from sdk3_user import INSTANCE, ROLE, tell
from sdk_digits import digits, right

folder, job_name, training_image, inference_image = sys.argv[1:]
session = Session()
bucket = session.default_bucket()
where: dict[str, Any] = {
    "role": ROLE,
    "image_uri": training_image,
    "instance_count": 1,
    "instance_type": INSTANCE,
    "sagemaker_session": session,
}


def text_of(key: str) -> str:
    body: bytes = session.s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body.decode()


def given(folder: str) -> list[ProcessingInput]:
    s3 = ProcessingS3Input(
        s3_uri=folder, local_path="/opt/ml/processing/input", s3_data_type="S3Prefix",
        s3_input_mode="File",
    )  # fmt: skip
    return [ProcessingInput(input_name="digits", s3_input=s3)]


def taken(name: str) -> list[ProcessingOutput]:
    s3 = ProcessingS3Output(
        s3_uri=f"s3://{bucket}/{name}", local_path="/opt/ml/processing/output",
        s3_upload_mode="EndOfJob",
    )  # fmt: skip
    return [ProcessingOutput(output_name="found", s3_output=s3)]


count = "ls /opt/ml/processing/input | wc -l > /opt/ml/processing/output/count"
counting = Processor(entrypoint=["/bin/sh", "-c", count], base_job_name="count", **where)
counting.run(inputs=given(folder), outputs=taken("counted"), wait=False, logs=False)

Path("convert.py").write_text("""
import json, os, pathlib, sys
files = sorted(one.name for one in pathlib.Path("/opt/ml/processing/input").iterdir())
found = {"arguments": sys.argv[1:], "files": files, "side": os.environ["SIDE"]}
pathlib.Path("/opt/ml/processing/output/found.json").write_text(json.dumps(found))
""")
converting = ScriptProcessor(
    command=["python3"], base_job_name="convert", env={"SIDE": "28"}, **where
)
converting.run(
    code="convert.py", arguments=["--side", "28"], inputs=given(folder), outputs=taken("converted"),
    wait=False, logs=False,
)  # fmt: skip

failing = Processor(entrypoint=["/bin/sh", "-c", "echo no luck; exit 3"], **where)
failing.run(wait=False, logs=False)

artifact = TrainingJob.get(job_name).model_artifacts.s3_model_artifacts
model = Model.create(
    model_name="sdk3-batch",
    primary_container=ContainerDefinition(image=inference_image, model_data_url=artifact),
    execution_role_arn=ROLE,
)
pictures, labels = digits(folder, 100)
np.savetxt("digits.csv", pictures.reshape(len(pictures), -1), delimiter=",", fmt="%.6f")
data = session.upload_data("digits.csv", bucket, "batch")
transformer = Transformer(
    model_name=model.model_name,
    instance_count=1,
    instance_type=INSTANCE,
    strategy="MultiRecord",
    assemble_with="Line",
    accept="text/csv",
    output_path=f"s3://{bucket}/transformed",
    env={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    sagemaker_session=session,
)
transformer.transform(data, content_type="text/csv", split_type="Line", wait=False)

for processor in (counting, converting):
    processor.latest_job.wait(poll=1)
found: dict[str, Any] = {
    "count": text_of("counted/count").strip(),
    "converted": json.loads(text_of("converted/found.json")),
    "local files": sorted(one.name for one in Path(folder).iterdir()),
}
try:
    failing.latest_job.wait(poll=1)
except FailedStatusError as error:
    found["failed"] = str(error)
transformer.latest_transform_job.wait(poll=1)
rows = text_of("transformed/digits.csv.out").splitlines()
found["right"] = right([[float(value) for value in row.split(",")] for row in rows], labels)
found["processing"] = [
    [one.processing_job_name, one.processing_job_status]
    for one in ProcessingJob.get_all(sort_by="CreationTime", sort_order="Ascending")
]
found["started"] = [one.latest_job.get_name() for one in (counting, converting, failing)]
latest = transformer.latest_transform_job.get_name()
found["transforms"] = [
    [one.transform_job_name == latest, one.transform_job_status] for one in TransformJob.get_all()
]
model.delete()
tell(**found)
