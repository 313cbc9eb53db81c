"""What a request names and must be there when it comes: images, and objects in S3.

SageMaker refuses such requests at once, and so do we; what is deleted after that fails the job or
the endpoint when its turn comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc.local import images, s3
from byoc.local.faults import invalid
from byoc.local.hosting import model_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from byoc.local.objects import Objects


class References:
    """Looks up what requests name.

    Args:
        objects: S3's.
        region: Of the endpoint.
        runner: ``auto``, ``docker`` or ``process``; with the last an image is but a name.
    """

    def __init__(self, objects: Objects, region: str, runner: str) -> None:
        self._objects, self._region, self._runner = objects, region, runner

    def check_image(self, image: str) -> None:
        """Of a training or processing job.

        Raises:
            AwsError: The engine does not have it. Whether one answers shows when the job runs.
        """
        if why := self._no_image(image):
            raise invalid(f"Cannot find the requested image: {image}. Locally, {why}.")

    def check_source(self, source: Mapping[str, Any]) -> None:
        """Of a channel of a training job, or the input of a transform job.

        Args:
            source: An ``S3DataSource`` whose URI has been checked.

        Raises:
            AwsError: There is no object.
        """
        uri = source["S3Uri"]
        bucket, key = s3.split(uri)
        prefix = source["S3DataType"] == "S3Prefix"  # the other types are manifests: one object
        if not (self._objects.holds_below if prefix else self._objects.holds)(bucket, key):
            raise invalid(s3.nothing(uri, bucket, self._region))

    def check_containers(self, containers: Sequence[Mapping[str, Any]]) -> None:
        """Of a model.

        Raises:
            AwsError: The engine does not have an image, or S3 not the data. Below the prefix of a
                multi-model container models come and go.
        """
        for container in containers:
            if container.get("Mode") != "MultiModel":
                self._check_data(container)
        for image in {container.get("Image", ""): None for container in containers}:
            if image and (why := self._no_image(image)):
                raise invalid(f"Requested image {image} not found. Locally, {why}.")

    def _check_data(self, container: Mapping[str, Any]) -> None:
        source = container.get("ModelDataSource", {}).get("S3DataSource")
        uri = source["S3Uri"] if source else container.get("ModelDataUrl", "")
        if not uri:
            return
        try:
            bucket, key = s3.split(uri)
        except s3.S3Error as error:
            raise invalid(f"Locally, model data are taken from S3 URIs only: {error}.") from None
        if model_data.is_object(container):
            found = self._objects.holds(bucket, key)
        else:
            found = self._objects.holds_below(bucket, model_data.folder_of(key))
        if not found:
            raise invalid(f"Could not find model data at {uri}.")

    def _no_image(self, name: str) -> str:
        """Why there is no such image; empty where that is not known before it is to run."""
        if self._runner == "process":
            return ""
        try:
            images.choose(name, self._runner)
        except images.MissingImageError as error:
            return str(error)
        except images.ImageError:
            pass
        return ""
