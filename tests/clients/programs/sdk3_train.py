"""Train with ``ModelTrainer(training_image=…)`` and no code: the image's own program.

One channel is a local folder, the other in S3. Arguments: the folder of the digits, the training
image.
"""

from __future__ import annotations

import sys

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Tag as TagResource
from sagemaker.core.resources import TrainingJob
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, MetricDefinition, Tag
from sdk3_user import INSTANCE, ROLE, heard, listed, tell

folder, image = sys.argv[1:]
session = Session()
test = session.upload_data(folder, key_prefix="held-out")
trainer = ModelTrainer(
    training_image=image,
    role=ROLE,
    base_job_name="digits",
    compute=Compute(instance_type=INSTANCE, instance_count=1),
    hyperparameters={"epochs": 6, "seed": 8},
    environment={"BYOC_SYSTEM_METRICS_SECONDS": "0"},
    tags=[Tag(key="story", value="digits")],
).with_metric_definitions(
    [MetricDefinition(name="test:accuracy", regex=r"test_accuracy=([0-9.]+);")]
)
channels = [
    InputData(channel_name="training", data_source=folder),
    InputData(channel_name="test", data_source=test, content_type="application/x-idx"),
]
with heard() as log:
    trainer.train(input_data_config=channels, wait=True, logs=True)
job = TrainingJob.get(trainer._latest_training_job.training_job_name)  # as another session finds it
tell(
    job=job.training_job_name,
    status=job.training_job_status,
    transitions=[one.status for one in job.secondary_status_transitions],
    channels=[
        [one.channel_name, one.data_source.s3_data_source.s3_uri] for one in job.input_data_config
    ],
    parameters=job.hyper_parameters,
    metrics={one.metric_name: one.value for one in job.final_metric_data_list},
    model_data=job.model_artifacts.s3_model_artifacts,
    model_files=listed(session, job.model_artifacts.s3_model_artifacts),
    tags=[[one.key, one.value] for one in TagResource.get_all(job.training_job_arn)],
    log=log,
)
