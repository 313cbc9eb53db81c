"""Many models behind one endpoint: ``MultiDataModel``, one added while it serves.

Argument: the inference image.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

from sagemaker.deserializers import JSONDeserializer
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import JSONSerializer
from sdk2_user import INSTANCE, ROLE, error_of, new_session, tell

(image,) = sys.argv[1:]
session = new_session()
HANDLER = b"""
import json, pathlib

def model_fn(model_dir):
    return int(pathlib.Path(model_dir, "factor").read_text())

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(number, factor):
    return number * factor

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
for name, factor in (("two", b"2"), ("three", b"3")):
    with tarfile.open(f"{name}.tar.gz", "w:gz") as archive:
        for file, text in (("factor", factor), ("code/inference.py", HANDLER)):
            info = tarfile.TarInfo(file)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))

many = MultiDataModel(
    "many",
    f"s3://{session.default_bucket()}/many/",
    image_uri=image,
    role=ROLE,
    predictor_cls=Predictor,
    sagemaker_session=session,
)
many.add_model(str(Path("two.tar.gz").absolute()), "first/two.tar.gz")
predictor = many.deploy(
    initial_instance_count=1,
    instance_type=INSTANCE,
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
many.add_model(str(Path("three.tar.gz").absolute()), "three.tar.gz")
found = {
    "models": sorted(many.list_models()),
    "answers": [
        predictor.predict(5, target_model=name) for name in ("first/two.tar.gz", "three.tar.gz")
    ],
    "missing": error_of(predictor.predict, 5, target_model="four.tar.gz"),
    "nameless": error_of(predictor.predict, 5),
}
predictor.delete_endpoint()
tell(**found)
