"""Serve a trained model: ``Model``, ``EndpointConfig``, ``Endpoint``; then ``ModelBuilder``.

Arguments: the folder of the digits, the training job, the inference image.
"""

from __future__ import annotations

import io
import json
import sys

import numpy as np
from botocore.exceptions import ClientError
from sagemaker.core.resources import Endpoint, EndpointConfig, Model, TrainingJob
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
from sagemaker.serve import ModelBuilder
from sdk3_user import INSTANCE, ROLE, code_of, tell
from sdk_digits import digits, right

folder, job_name, image = sys.argv[1:]
pictures, labels = digits(folder, 100)
artifact = TrainingJob.get(job_name).model_artifacts.s3_model_artifacts
workers = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}

model = Model.create(
    model_name="sdk3-digits",
    primary_container=ContainerDefinition(
        image=image, model_data_url=artifact, environment=workers
    ),
    execution_role_arn=ROLE,
)
config = EndpointConfig.create(
    endpoint_config_name="sdk3-digits",
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic",
            model_name=model.model_name,
            instance_type=INSTANCE,
            initial_instance_count=1,
        )
    ],
)
endpoint = Endpoint.create(endpoint_name="sdk3-digits", endpoint_config_name="sdk3-digits")
at_first = endpoint.endpoint_status
# The SDK's builder takes a container of the user's own as it is: no model object, only an archive.
builder = ModelBuilder(
    image_uri=image,
    s3_model_data_url=artifact,
    role_arn=ROLE,
    instance_type=INSTANCE,
    env_vars=workers,
)
built = builder.build()
other = builder.deploy(endpoint_name="sdk3-built", initial_instance_count=1, wait=False)
for one in (endpoint, other):
    one.wait_for_status("InService", poll=1)


def asked(content_type: str, body: bytes | str, accept: str) -> bytes:
    answer = endpoint.invoke(body=body, content_type=content_type, accept=accept)
    assert answer.content_type == accept, answer.content_type
    content: bytes = answer.body.read()
    return content


npy, text = io.BytesIO(), io.StringIO()
np.save(npy, pictures)
np.savetxt(text, pictures.reshape(len(pictures), -1), delimiter=",", fmt="%.6f")
as_json, as_npy, as_csv = "application/json", "application/x-npy", "text/csv"
(one,) = json.loads(asked(as_json, json.dumps(pictures[:1].tolist()), as_json))
found = {
    "digit": labels[0],
    "answer": int(np.argmax(one)),
    "right": {
        "json": right(json.loads(asked(as_json, json.dumps(pictures.tolist()), as_json)), labels),
        "npy": right(np.load(io.BytesIO(asked(as_npy, npy.getvalue(), as_npy))), labels),
        "csv": right(
            np.loadtxt(io.BytesIO(asked(as_csv, text.getvalue(), as_csv)), delimiter=","), labels
        ),
    },
    "statuses": [at_first, endpoint.endpoint_status],
    "variant": endpoint.production_variants[0].variant_name,
}
try:
    endpoint.invoke(body="no digit", content_type=as_json)
except ClientError as error:
    found["refused"] = [code_of(error), error.response["OriginalStatusCode"], str(error)]

answer = other.invoke(body=json.dumps(pictures.tolist()), content_type=as_json, accept=as_json)
found["built"] = {
    "image": built.primary_container.image,
    "data": built.primary_container.model_data_url,
    "right": right(json.loads(answer.body.read()), labels),
}
found["artifact"] = artifact

found["listed"] = {
    "endpoints": sorted(one.endpoint_name for one in Endpoint.get_all()),
    "found": [one.endpoint_name for one in Endpoint.get_all(name_contains="built")],
    "configs": "sdk3-digits" in [one.endpoint_config_name for one in EndpointConfig.get_all()],
    "models": sorted(one.model_name for one in Model.get_all())
    == sorted([model.model_name, built.model_name]),
}
for resource in (endpoint, other):
    resource.delete()
    resource.wait_for_delete(poll=1)
for configuration in EndpointConfig.get_all():
    configuration.delete()
for resource in Model.get_all():
    resource.delete()
try:
    Endpoint.get("sdk3-digits")
except ClientError as error:
    found["gone"] = [code_of(error), str(error)]
found["left"] = [len(list(kind.get_all())) for kind in (Endpoint, EndpointConfig, Model)]
tell(**found)
