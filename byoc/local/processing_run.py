"""One processing job, from its turn to its end."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from byoc.local import channels, job_output, s3
from byoc.local import processing_status as states
from byoc.local.hosts import Host
from byoc.local.job_life import JobError, JobLife, reached, reason
from byoc.local.mirror import Mirror, close_all
from byoc.local.processing_request import host_count, instance_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc.local.job_tools import Tools
    from byoc.local.jobs import Job, Outcome
    from byoc.local.shelf import Shelf
    from byoc.local.store import Document

LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
DEFAULT_SECONDS = 24 * 3600
_ML = "/opt/ml/"


class ProcessingRun(JobLife):
    """The life of one processing job."""

    group, status = LOG_GROUP, states

    def __init__(self, tools: Tools, shelf: Shelf, job: Job, folder: Path) -> None:
        super().__init__(tools, shelf, job, folder)
        self._mirrors: list[Mirror] = []

    def run(self) -> Callable[[Document], None]:
        """From the image to the outputs."""
        document = self.shelf.update(self.job.name, states.prepare)
        self._request = {key: document[key] for key in document["_request"]}
        self._arn = document["ProcessingJobArn"]
        self._client = self.tools.clients("s3")
        network = self._request.get("NetworkConfig", {})
        self._isolated = bool(network.get("EnableNetworkIsolation"))
        self.place(
            self._request["AppSpecification"]["ImageUri"],
            self._arn,
            host_count(self._request),
            isolated=self._isolated,
        )
        self.check()
        try:
            hosts = [self._host(name) for name in self.cluster.names]
        except s3.S3Error as error:
            raise JobError(f"ClientError: Data download failed:{error}") from error
        except OSError as error:
            raise JobError(
                f"ClientError: Data download failed:{error.filename}: {error.strerror}"
            ) from error
        self.check()
        for target in self._targets("Continuous"):
            folders = self.host_folders(target["LocalPath"].removeprefix(_ML))
            self._mirrors.append(Mirror(self._client, folders, target["S3Uri"], self.log))
        for mirror in self._mirrors:
            mirror.start()
        condition = self._request.get("StoppingCondition", {})
        seconds = condition.get("MaxRuntimeInSeconds", DEFAULT_SECONDS)
        return self._finish(self.start(hosts, seconds, lambda _: None, lambda: None))

    def end_helpers(self) -> None:
        """Mirrors."""
        with contextlib.suppress(s3.S3Error):
            self._end_mirrors()

    def _host(self, name: str) -> Host:
        """Write and fetch what a host finds."""
        root = self.folder / name / "ml"
        for folder in ("config", "output", "processing"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._write(root / "config/processingjobconfig.json", self._config())
        resources = {
            "current_host": name,
            "current_instance_type": instance_type(self._request),
            "hosts": sorted(self.cluster.names),
            "network_interface_name": self.cluster.interface,
        }
        self._write(root / "config/resourceconfig.json", resources)
        for one in self._request.get("ProcessingInputs", ()):
            if not one.get("AppManaged"):
                self._input(one["S3Input"], name, root)
        for mode in ("Continuous", "EndOfJob"):
            for target in self._targets(mode):
                path = root / target["LocalPath"].removeprefix(_ML)
                path.mkdir(parents=True, exist_ok=True)
        application = self._request["AppSpecification"]
        return Host(
            name,
            root,
            environment={
                **reached(self.cluster, isolated=self._isolated),
                "AWS_REGION": self.tools.context.region,
                **self._request.get("Environment", {}),
            },
            entrypoint=tuple(application.get("ContainerEntrypoint", ())),
            arguments=tuple(application.get("ContainerArguments", ())),
            instance_type=instance_type(self._request),
        )

    def _input(self, source: dict[str, Any], host: str, root: Path) -> None:
        items = channels.listed(self._client, source)
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            hosts = sorted(self.cluster.names)
            items = items[hosts.index(host) :: len(hosts)]
        folder = root / source["LocalPath"].removeprefix(_ML)
        channels.bring(self._client, items, folder, fast=False, cancelled=self.job.cancelled)

    def _config(self) -> dict[str, Any]:
        """``processingjobconfig.json``: the request and the ARN."""
        left_out = ("Tags", "ExperimentConfig")
        request = {key: value for key, value in self._request.items() if key not in left_out}
        return {"ProcessingJobArn": self._arn, **request}

    def _targets(self, mode: str) -> list[dict[str, Any]]:
        """``S3Output`` of the outputs that are ours to store."""
        outputs = self._request.get("ProcessingOutputConfig", {}).get("Outputs", ())
        return [
            one["S3Output"]
            for one in outputs
            if not one.get("AppManaged") and one["S3Output"]["S3UploadMode"] == mode
        ]

    def _finish(self, outcome: Outcome) -> Callable[[Document], None]:
        messages = [self._text(name) for name in sorted(self.cluster.names)]
        if message := next(filter(None, messages), ""):
            self.note(ExitMessage=message)
        if why := reason(outcome, self.cluster.names, self._text):
            raise JobError(why)
        try:
            self._end_mirrors()
            if not outcome.why:
                self._upload()
        except s3.S3Error as error:
            raise JobError(f"ClientError: Artifact upload failed:{error}") from error
        ends = {"stopped": states.stop, "time": states.exceed}
        return ends.get(outcome.why, states.complete)

    def _upload(self) -> None:
        for target in self._targets("EndOfJob"):
            for folder in self.host_folders(target["LocalPath"].removeprefix(_ML)):
                s3.store_folder(self._client, folder, target["S3Uri"])

    def _text(self, host: str) -> str:
        return job_output.text_of(self.folder / host / "ml/output/message")

    def _end_mirrors(self) -> None:
        mirrors, self._mirrors = self._mirrors, []
        close_all(mirrors)

    @staticmethod
    def _write(path: Path, content: object) -> None:
        path.write_text(json.dumps(content, separators=(",", ":")), "utf-8")
