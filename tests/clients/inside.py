"""A server in this process, and requests whose jobs fail at once."""

import threading
from pathlib import Path
from typing import Any

from byoc.local.home import Home
from byoc.local.kinds import KINDS
from byoc.local.server import Server
from tests.local.conftest import REGION, ROLE, Endpoint
from tests.local.hosted import IMAGE, Hosted

INVOCATIONS = ("InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream")
OUTPUT = {"S3OutputPath": "s3://nowhere/out"}
NO_MANIFEST = "s3://no-manifests/none"
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}


def training(name: str, **changes: Any) -> dict[str, Any]:
    """A job that fails at once, since its manifest is none."""
    source = {"S3DataType": "ManifestFile", "S3Uri": NO_MANIFEST}
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "InputDataConfig": [
            {"ChannelName": "training", "DataSource": {"S3DataSource": source}},
        ],
        "OutputDataConfig": OUTPUT,
        "ResourceConfig": CLUSTER,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def processing(name: str, **changes: Any) -> dict[str, Any]:
    """A job that fails at once, since its data are not there."""
    given = {
        "S3Uri": "s3://nowhere/in",
        "LocalPath": "/opt/ml/processing/in",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    return {
        "ProcessingJobName": name,
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        "ProcessingResources": {"ClusterConfig": CLUSTER},
        "ProcessingInputs": [{"InputName": "in", "S3Input": given}],
        **changes,
    }


def transform(name: str, model: str, uri: str = "", **changes: Any) -> dict[str, Any]:
    """A job that fails at once, unless it is given data."""
    kind = "S3Prefix" if uri else "ManifestFile"
    source = {"S3DataType": kind, "S3Uri": uri or NO_MANIFEST}
    return {
        "TransformJobName": name,
        "ModelName": model,
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": "text/csv",
        },
        "TransformOutput": OUTPUT,
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **changes,
    }


def put_no_manifest(hosted: Hosted) -> None:
    """Store what the jobs above want."""
    bucket, _, key = NO_MANIFEST.removeprefix("s3://").partition("/")
    hosted.s3.create_bucket(Bucket=bucket)
    hosted.s3.put_object(Bucket=bucket, Key=key, Body=b"no manifest")


class Inside(Hosted):
    """A server in this process, over HTTP as any: its store can be filled, its limits lowered."""

    def __init__(self, home: Path) -> None:
        self.http = Server(Home(home), 0, REGION, "process")
        self.store = self.http._store
        for work in (self.http._objects.load, self.http._http.serve):
            threading.Thread(target=work, daemon=True).start()
        super().__init__(Endpoint(home, url=self.http.url))
        put_no_manifest(self)

    def close(self) -> None:
        self.http._http.stop()
        for resource in self.http._resources:
            resource.close()
        self.store.close()
        # moto's state is the process's; the next server here has its own.
        from moto.iam.models import iam_backends
        from moto.s3.models import s3_backends

        iam_backends.reset()
        s3_backends.reset()

    def keep(self, kind: str, **document: Any) -> None:
        """Put a resource into the store, as if something had made it."""
        (found,) = [one for one in KINDS if one.store == kind]
        name = document[found.name]
        arn = f"arn:aws:sagemaker:{REGION}:123456789012:{found.arn}/{name}"
        self.store.create(kind, name, {found.arn_member: arn, **document})

    def serving(self, name: str) -> None:
        """An endpoint that says that it serves, without anything that does."""
        plan = {"VariantName": "one", "Weight": 1.0, "Count": 1}
        self.keep(
            "endpoint", EndpointName=name, EndpointStatus="InService", EndpointConfigName="all",
            Plans=[plan],
        )  # fmt: skip
