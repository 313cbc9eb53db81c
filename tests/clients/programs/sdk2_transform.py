"""Batch transform of the trained digits: ``Transformer``, lines and whole objects, and its log.

Arguments: the folder of the digits, the model's archive, the inference image.
"""

from __future__ import annotations

import io
import json
import sys

import numpy as np
from sagemaker.model import Model
from sagemaker.transformer import Transformer
from sdk2_user import INSTANCE, ROLE, error_of, heard, new_session, tell
from sdk_digits import digits, right

folder, model_data, image = sys.argv[1:]
session = new_session()
bucket = session.default_bucket()
client = session.boto_session.client("s3")
pictures, labels = digits(folder, 60)
rows = pictures.reshape(60, -1)


def put(key: str, body: str | bytes) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=body)


def content(uri: str) -> dict[str, str]:
    """The objects below a prefix."""
    prefix = uri.removeprefix(f"s3://{bucket}/").rstrip("/") + "/"
    keys = session.list_s3_files(bucket, prefix)
    return {key.removeprefix(prefix): session.read_s3_file(bucket, key) for key in keys}


for name, part in (("a", slice(0, 40)), ("deeper/b", slice(40, 60))):
    text = io.StringIO()
    np.savetxt(text, rows[part], delimiter=",", fmt="%.6f")
    put(f"csv/{name}.csv", text.getvalue())
put("lines.jsonl", "".join(json.dumps(row.tolist()) + "\n" for row in rows))
put("bad.csv", "1,2,no number\n")

model = Model(image, model_data, ROLE, name="digits-batch", sagemaker_session=session)
model.create(instance_type=INSTANCE)
transformer = Transformer(
    model_name="digits-batch",
    instance_count=1,
    instance_type=INSTANCE,
    strategy="MultiRecord",
    assemble_with="Line",
    accept="text/csv",
    max_payload=1,
    env={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    sagemaker_session=session,
)
with heard() as log:
    transformer.transform(f"s3://{bucket}/csv/", content_type="text/csv", split_type="Line")
answers = content(transformer.output_path)
scores = np.loadtxt(
    io.StringIO(answers["a.csv.out"] + answers["deeper/b.csv.out"]), delimiter=",", ndmin=2
)
found = {
    "names": sorted(answers),
    "csv": right(scores, labels),
    "log": log.getvalue(),
    "status": session.describe_transform_job(transformer.latest_transform_job.name)[
        "TransformJobStatus"
    ],
}

again = Transformer.attach(transformer.latest_transform_job.name, sagemaker_session=session)
found["attached"] = [again.model_name, again.strategy, again.assemble_with, again.accept]

single = Transformer(
    model_name="digits-batch",
    instance_count=1,
    instance_type=INSTANCE,
    strategy="SingleRecord",
    assemble_with="Line",
    accept="application/jsonlines",
    output_path=f"s3://{bucket}/single",
    env={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    sagemaker_session=session,
)
single.transform(
    f"s3://{bucket}/lines.jsonl",
    content_type="application/jsonlines",
    split_type="Line",
    wait=True,
    logs=False,
)
(lines,) = content(f"s3://{bucket}/single").values()
found["lines"] = right([np.ravel(json.loads(line)) for line in lines.splitlines()], labels)
found["failure"] = error_of(
    transformer.transform, f"s3://{bucket}/bad.csv", content_type="text/csv", split_type="Line"
)
transformer.delete_model()
tell(**found)
