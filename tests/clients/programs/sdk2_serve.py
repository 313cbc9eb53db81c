"""In another session: attach to the job, deploy its model, ask, update, delete.

Arguments: the folder of the digits, the job, the inference image.
"""

from __future__ import annotations

import sys

import numpy as np
from sagemaker.deserializers import CSVDeserializer, JSONDeserializer, NumpyDeserializer
from sagemaker.estimator import Estimator
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer, JSONSerializer, NumpySerializer
from sdk2_user import INSTANCE, error_of, new_session, tell
from sdk_digits import digits, right

folder, job, image = sys.argv[1:]
session = new_session()
pictures, labels = digits(folder, 100)
estimator = Estimator.attach(job, sagemaker_session=session)
found = {"parameters": estimator.hyperparameters(), "model_data": estimator.model_data}
predictor = estimator.deploy(
    initial_instance_count=1,
    instance_type=INSTANCE,
    image_uri=image,
    env={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
name = predictor.endpoint_name


def asked(serializer: object, deserializer: object, data: object) -> np.ndarray:
    other = Predictor(name, session, serializer, deserializer)
    return np.asarray(other.predict(data), dtype="float32")


(one,) = predictor.predict(pictures[:1].tolist())
answers = {
    "json": np.asarray(predictor.predict(pictures.tolist())),
    "npy": asked(NumpySerializer(), NumpyDeserializer(), pictures),
    "csv": asked(CSVSerializer(), CSVDeserializer(), pictures.reshape(len(pictures), -1)),
}
found |= {
    "digit": labels[0],
    "answer": int(np.argmax(one)),
    "right": {kind: right(rows, labels) for kind, rows in answers.items()},
    "apart": {kind: float(abs(rows - answers["json"]).max()) for kind, rows in answers.items()},
    "refused": error_of(predictor.predict, "no digit"),
}

client = session.sagemaker_client
before = client.describe_endpoint(EndpointName=name)
predictor.update_endpoint(initial_instance_count=2, instance_type=INSTANCE)
after = client.describe_endpoint(EndpointName=name)
found |= {
    "configs": [before["EndpointConfigName"], after["EndpointConfigName"]],
    "counts": [one["ProductionVariants"][0]["CurrentInstanceCount"] for one in (before, after)],
    "status": after["EndpointStatus"],
    "right after update": right(predictor.predict(pictures.tolist()), labels),
}
predictor.delete_model()
predictor.delete_endpoint()
found |= {
    "gone": error_of(predictor.predict, pictures[:1].tolist()),
    "left": [client.list_endpoints()["Endpoints"], client.list_models()["Models"]],
}
tell(**found)
