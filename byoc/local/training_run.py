"""One training job, from its turn to its end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from byoc.errors import PackagingError
from byoc.local import channels, job_output, s3, training_files
from byoc.local import training_status as states
from byoc.local.hosts import Bind, Host
from byoc.local.job_life import JobError, JobLife, reached, reason
from byoc.local.mirror import Mirror, close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.job_tools import Tools
    from byoc.local.jobs import Job, Outcome
    from byoc.local.pipes import Feeder
    from byoc.local.shelf import Shelf
    from byoc.local.store import Document

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CHECKPOINTS, TENSORBOARD = "/opt/ml/checkpoints", "/opt/ml/output/tensorboard"
_ML = "/opt/ml/"


class TrainingRun(JobLife):
    """The life of one training job."""

    group, status = LOG_GROUP, states

    def __init__(self, tools: Tools, shelf: Shelf, job: Job, folder: Path) -> None:
        super().__init__(tools, shelf, job, folder)
        self._feeders: list[Feeder] = []
        self._mirrors: list[Mirror] = []

    def run(self) -> Callable[[Document], None]:
        """From the image to the archives."""
        document = self.shelf.update(self.job.name, states.prepare)
        self._request = _request(document)
        self._arn = document["TrainingJobArn"]
        self._client = self.tools.clients("s3")
        specification = self._request["AlgorithmSpecification"]
        self._metrics = job_output.Metrics(specification.get("MetricDefinitions", ()))
        self.place(
            specification["TrainingImage"],
            self._arn,
            training_files.host_count(self._request),
            isolated=bool(self._request.get("EnableNetworkIsolation")),
        )
        names = self.cluster.names
        groups = training_files.instance_groups(self._request, names)
        self.check()
        self._to("Downloading", "Downloading input data", TrainingStartTime=time.time())
        try:
            hosts = [self._host(name, groups) for name in names]
            self._mirror(names)
        except s3.S3Error as error:
            raise JobError(f"ClientError: Data download failed:{error}") from error
        except OSError as error:
            raise JobError(
                f"ClientError: Data download failed:{error.filename}: {error.strerror}"
            ) from error
        self.check()
        self._to("Training", "Training image download completed. Training in progress.")
        for feeder in self._feeders:
            feeder.start()
        condition = {**states.DEFAULT_CONDITION, **document["StoppingCondition"]}
        seconds = condition["MaxRuntimeInSeconds"]
        return self._finish(self.start(hosts, seconds, self._metrics.read, self._stopping))

    def end_helpers(self) -> None:
        """Pipes and mirrors."""
        for feeder in self._feeders:
            feeder.close()
        with contextlib.suppress(s3.S3Error):
            self._end_mirrors()

    def _stopping(self) -> None:
        self._to("Stopping", "Stopping the training job")

    def _host(self, name: str, groups: Mapping[str, list[str]]) -> Host:
        """Write and fetch what a host finds."""
        root = self.folder / name / "ml"
        training_files.write(root, self._request, name, groups, self.cluster.interface)
        binds = []
        for channel in training_files.channels_of(self._request, groups, name):
            binds += self._channel(channel, name, groups, root)
        for option, default in (
            ("CheckpointConfig", CHECKPOINTS),
            ("TensorBoardOutputConfig", TENSORBOARD),
        ):
            if option in self._request:
                path = self._request[option].get("LocalPath", default).rstrip("/")
                folder = self._local(name, path)
                folder.mkdir(parents=True, exist_ok=True)
                if not path.startswith(_ML):
                    binds.append(Bind(folder, path))
        specification = self._request["AlgorithmSpecification"]
        entrypoint = tuple(specification.get("ContainerEntrypoint", ()))
        arguments = tuple(specification.get("ContainerArguments", ()))
        group = next(one for one, hosts in groups.items() if name in hosts)
        return Host(
            name,
            root,
            environment=self._environment(),
            entrypoint=entrypoint,
            arguments=arguments or (() if entrypoint else ("train",)),
            binds=tuple(binds),
            instance_type=training_files.instance_types(self._request)[group],
        )

    def _environment(self) -> dict[str, str]:
        """Contract section 3.1."""
        isolated = self._request.get("EnableNetworkIsolation")
        return {
            **reached(self.cluster, isolated=bool(isolated)),
            "AWS_REGION": self.tools.context.region,
            "TRAINING_JOB_NAME": self.job.name,
            "TRAINING_JOB_ARN": self._arn,
            **self._request.get("Environment", {}),
        }

    def _channel(
        self, channel: dict[str, Any], host: str, groups: Mapping[str, list[str]], root: Path
    ) -> list[Bind]:
        name = channel["ChannelName"]
        items = channels.listed(self._client, channel["DataSource"]["S3DataSource"])
        items = items[training_files.share(channel, groups, host)]
        mode = training_files.mode_of(self._request, channel)
        if mode == "Pipe":
            path = root / "input/data" / name
            self._feeders.append(channels.feeder(self._client, channel, items, path))
            return []
        fast = mode == "FastFile"
        # What is mounted read-only is not in the root, where the program could reach it.
        folder = self.folder / host / "fast" / name if fast else root / "input/data" / name
        channels.bring(self._client, items, folder, fast=fast, cancelled=self.job.cancelled)
        return [Bind(folder, f"{_ML}input/data/{name}", read_only=True)] if fast else []

    def _mirror(self, names: list[str]) -> None:
        checkpoints = self._request.get("CheckpointConfig")
        board = self._request.get("TensorBoardOutputConfig")
        if checkpoints:
            path = checkpoints.get("LocalPath", CHECKPOINTS).rstrip("/")
            mirror = self._mirrored(names, path, checkpoints["S3Uri"])
            mirror.bring(self.job.cancelled)
            mirror.start()
        if board:
            path = board.get("LocalPath", TENSORBOARD).rstrip("/")
            uri = f"{board['S3OutputPath'].rstrip('/')}/{self.job.name}/tensorboard-output"
            self._mirrored(names, path, uri).start()

    def _mirrored(self, names: list[str], path: str, uri: str) -> Mirror:
        folders = [self._local(name, path) for name in names]
        mirror = Mirror(self._client, folders, uri, self.log)
        self._mirrors.append(mirror)
        return mirror

    def _local(self, host: str, path: str) -> Path:
        """Where a folder of the container is here."""
        if path.startswith(_ML):
            return self.folder / host / "ml" / path.removeprefix(_ML)
        return self.folder / host / "beside" / path.strip("/").replace("/", "-")

    def _finish(self, outcome: Outcome) -> Callable[[Document], None]:
        self.note(FinalMetricDataList=self._metrics.final)
        if why := reason(outcome, self.cluster.names, self._text):
            raise JobError(why)
        if not outcome.why and (broken := self._broken_pipe()):
            raise JobError(f"ClientError: Data download failed:{broken}")
        self._to("Uploading", "Uploading generated training model")
        try:
            self._end_mirrors()
            self._upload()
        except (s3.S3Error, PackagingError) as error:
            raise JobError(f"ClientError: Artifact upload failed:{error}") from error
        except OSError as error:
            raise JobError(f"ClientError: Artifact upload failed:{error.strerror}") from error
        ends = {"stopped": states.stop, "time": states.exceed}
        return ends.get(outcome.why, states.complete)

    def _text(self, host: str) -> str:
        """What a host gives as its reason; a pipe that broke is one too."""
        text = job_output.text_of(self.folder / host / "ml/output/failure")
        return text or self._broken_pipe()

    def _broken_pipe(self) -> str:
        """Why a Pipe channel ended early; whoever read it saw an end like any other."""
        return next((feeder.problem for feeder in self._feeders if feeder.problem), "")

    def _upload(self) -> None:
        """Archives, or the files themselves, below ``S3OutputPath/JOB/output``."""
        config = self._request["OutputDataConfig"]
        base = f"{config['S3OutputPath'].rstrip('/')}/{self.job.name}/output"
        for name, inside in (("model", "model"), ("output", "output/data")):
            folders = self.host_folders(inside)
            if not folders:
                continue
            place = f"{_ML}{inside}"
            folder = job_output.gathered(folders, self.folder / f"all-{name}", place, self.log)
            if name == "output" and not job_output.has_files(folder):
                continue
            if config.get("CompressionType") == "NONE":
                s3.store_folder(self._client, folder, f"{base}/{name}")
                continue
            archive = self.folder / f"{name}.tar.gz"
            job_output.pack(folder, archive, place)
            s3.store(self._client, archive, f"{base}/{archive.name}")

    def _end_mirrors(self) -> None:
        mirrors, self._mirrors = self._mirrors, []
        close_all(mirrors)

    def _to(self, secondary: str, message: str, **members: Any) -> None:
        def change(document: dict[str, Any]) -> None:
            states.to(document, secondary, message)
            document.update(members)

        self.shelf.update(self.job.name, change)


def _request(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a document that the request had."""
    return {key: value for key, value in document.items() if key in document["_request"]}
