"""Deploy ``PyTorchModel(image_uri=…, entry_point=…)``: on an instance, serverless, asynchronous.

Argument: the inference image.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import JSONDeserializer
from sagemaker.iterators import LineIterator
from sagemaker.predictor_async import AsyncPredictor
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import JSONSerializer
from sagemaker.serverless import ServerlessInferenceConfig
from sdk2_user import INSTANCE, ROLE, error_of, new_session, tell

if TYPE_CHECKING:
    from sagemaker.predictor import Predictor

(image,) = sys.argv[1:]
session = new_session()
bucket = session.default_bucket()

# Weights as a training job leaves them, without code; the handler lies here, with its module.
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as archive:
    info = tarfile.TarInfo("factor")
    info.size = 1
    archive.addfile(info, io.BytesIO(b"3"))
session.boto_session.client("s3").put_object(
    Bucket=bucket, Key="weights/model.tar.gz", Body=packed.getvalue()
)
Path("handler").mkdir()
Path("handler/ask.py").write_text("""
import os, pathlib
import helper

def model_fn(model_dir):
    return int(pathlib.Path(model_dir, "factor").read_text())

def lines(count):
    for number in range(count):
        yield f"line {number}\\n"

def predict_fn(data, model):
    if "fail" in data:
        raise RuntimeError(data["fail"])
    if "lines" in data:
        return lines(data["lines"])
    return {"times": helper.times(data["number"], model), "named": os.environ["NAMED"]}

def input_fn(body, content_type):
    import json
    return json.loads(body)

def output_fn(prediction, accept):
    import json
    return prediction if isinstance(prediction, str) else (json.dumps(prediction), accept)
""")
Path("handler/helper.py").write_text("def times(one, other):\n    return one * other\n")


def model(framework_version: str) -> PyTorchModel:
    """Before PyTorch 1.2 the SDK leaves the archive alone and names the code in the environment."""
    return PyTorchModel(
        image_uri=image,
        model_data=f"s3://{bucket}/weights/model.tar.gz",
        role=ROLE,
        entry_point="ask.py",
        source_dir="handler",
        framework_version=framework_version,
        env={"NAMED": framework_version, "SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
        sagemaker_session=session,
    )


def json_of(predictor: Predictor) -> Predictor:
    """PyTorchPredictor speaks npy unless told otherwise."""
    predictor.serializer, predictor.deserializer = JSONSerializer(), JSONDeserializer()
    return predictor


def environment(made: PyTorchModel) -> dict[str, str]:
    """What its container is told."""
    described = session.sagemaker_client.describe_model(ModelName=made.name)
    return described["PrimaryContainer"]["Environment"]


repacked = model("2.6")
predictor = json_of(repacked.deploy(initial_instance_count=1, instance_type=INSTANCE))
found = {
    "answer": predictor.predict({"number": 2}),
    "environment": environment(repacked),
    "stream": [
        line.decode() for line in predictor.predict_stream({"lines": 3}, iterator=LineIterator)
    ],
    "error": error_of(predictor.predict, {"fail": "told to"}),
}
predictor.delete_endpoint()

small = ServerlessInferenceConfig(memory_size_in_mb=2048, max_concurrency=2)
separate = model("1.1")
predictor = json_of(separate.deploy(serverless_inference_config=small))
described = session.sagemaker_client.describe_endpoint(EndpointName=predictor.endpoint_name)
found["serverless"] = {
    "answer": predictor.predict({"number": 4}),
    "variant": described["ProductionVariants"][0]["CurrentServerlessConfig"],
    "directory": environment(separate)["SAGEMAKER_SUBMIT_DIRECTORY"],
}
predictor.delete_endpoint()

later = repacked.deploy(
    initial_instance_count=1,
    instance_type=INSTANCE,
    async_inference_config=AsyncInferenceConfig(
        output_path=f"s3://{bucket}/later", failure_path=f"s3://{bucket}/failed"
    ),
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
assert isinstance(later, AsyncPredictor)
patience = WaiterConfig(max_attempts=120, delay=15)
response = later.predict_async({"number": 6})
found["later"] = {
    "whole": later.predict({"number": 5}, waiter_config=patience),
    "response": response.get_result(patience),
    "path": response.output_path,
    "error": error_of(later.predict, {"fail": "told to"}, waiter_config=patience),
}
later.delete_endpoint()
tell(**found)
# Of each request two threads wait, for its output and for its failure. Whichever does not come,
# the SDK goes on waiting for it, and the program's end with it.
os._exit(0)
