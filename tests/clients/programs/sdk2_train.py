"""Train with ``Estimator(image_uri=…)``: a channel uploaded, logs followed, metrics read.

Arguments: the folder of the digits, the training image.
"""

from __future__ import annotations

import sys

from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sdk2_user import INSTANCE, ROLE, heard, new_session, tell

folder, image = sys.argv[1:]
session = new_session()
channel = session.upload_data(folder, key_prefix="digits")
estimator = Estimator(
    image_uri=image,
    role=ROLE,
    instance_count=1,
    instance_type=INSTANCE,
    base_job_name="digits",
    hyperparameters={"epochs": 3, "seed": 8},
    metric_definitions=[{"Name": "test:accuracy", "Regex": r"test_accuracy=([0-9.]+);"}],
    # On cores that others use too, two threads that wait for each other take ten times as long.
    environment={"BYOC_SYSTEM_METRICS_SECONDS": "0", "OMP_NUM_THREADS": "1"},
    max_run=300,
    tags=[{"Key": "story", "Value": "digits"}],
    sagemaker_session=session,
)
with heard() as log:
    estimator.fit({"training": TrainingInput(channel, content_type="application/x-idx")})
job = estimator.latest_training_job
description = job.describe()
tell(
    bucket=session.default_bucket(),
    channel=channel,
    job=job.name,
    log=log.getvalue(),
    status=description["TrainingJobStatus"],
    transitions=[one["Status"] for one in description["SecondaryStatusTransitions"]],
    metrics=description["FinalMetricDataList"],
    parameters=description["HyperParameters"],
    model_data=estimator.model_data,
    tags=session.sagemaker_client.list_tags(ResourceArn=description["TrainingJobArn"])["Tags"],
)
