"""One training job, from its turn to its end."""

from __future__ import annotations

import contextlib
import time
import traceback
from typing import TYPE_CHECKING, Any

from byoc.errors import PackagingError
from byoc.local import channels, images, job_output, jobs, s3, training_files
from byoc.local import training_status as status
from byoc.local.hosts import Bind, Host, HostError
from byoc.local.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.hosts import Cluster
    from byoc.local.job_tools import Tools
    from byoc.local.jobs import Job, Outcome
    from byoc.local.journal import Journal
    from byoc.local.pipes import Feeder
    from byoc.local.shelf import Shelf

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CHECKPOINTS, TENSORBOARD = "/opt/ml/checkpoints", "/opt/ml/output/tensorboard"
DEFAULT_SECONDS = 24 * 3600
_ML = "/opt/ml/"


class JobError(Exception):
    """The job fails: ``FailureReason``."""


class Cancelled(Exception):  # noqa: N818 - no error: a client, or the endpoint's end, wants it
    """The job ends before its program has started."""


class TrainingRun:
    """The life of one job.

    Args:
        tools: Shared by all.
        shelf: The jobs' documents.
        job: Who may call it off.
        folder: Where its hosts have their files.
    """

    def __init__(self, tools: Tools, shelf: Shelf, job: Job, folder: Path) -> None:
        self._tools, self._shelf, self._job, self._folder = tools, shelf, job, folder
        self._logs: dict[str, Journal] = {}
        self._feeders: list[Feeder] = []
        self._mirrors: list[Mirror] = []
        self._cluster: Cluster | None = None

    def live(self) -> None:
        """Run the job; its document says how it ended."""
        try:
            finish = self._outcome()
            self._end_helpers()
            # Whoever sees the end of the job sees all of its log.
            for log in self._logs.values():
                log.close()
            self._shelf.update(self._job.name, finish)
        finally:
            if self._cluster is not None:
                self._cluster.close()
            job_output.remove(self._folder)

    def _outcome(self) -> Callable[[dict[str, Any]], None]:
        try:
            return self._run()
        except JobError as error:
            reason = str(error)
        except Cancelled:
            if not self._job.shut_down:
                return status.stop
            reason = jobs.ENDED
        except Exception as error:  # noqa: BLE001 - a fault of ours ends the job, clearly
            self._tools.log(f"training job {self._job.name}\n{traceback.format_exc()}")
            reason = f"InternalServerError: the local endpoint failed: {error}"
        return lambda document: status.fail(document, reason)

    def _run(self) -> Callable[[dict[str, Any]], None]:
        """From the image to the archives; the change of the document that tells the end."""
        document = self._shelf.update(self._job.name, status.prepare)
        self._request = _request(document)
        self._arn = document["TrainingJobArn"]
        self._client = self._tools.clients("s3")
        specification = self._request["AlgorithmSpecification"]
        self._metrics = job_output.Metrics(specification.get("MetricDefinitions", ()))
        cluster = self._cluster = self._place(specification["TrainingImage"])
        groups = training_files.instance_groups(self._request, cluster.names)
        self._check()
        self._to("Downloading", "Downloading input data", TrainingStartTime=time.time())
        try:
            hosts = [self._host(name, groups) for name in cluster.names]
            self._mirror(cluster.names)
        except s3.S3Error as error:
            raise JobError(f"ClientError: Data download failed:{error}") from error
        except OSError as error:
            raise JobError(
                f"ClientError: Data download failed:{error.filename}: {error.strerror}"
            ) from error
        self._check()
        self._to("Training", "Training image download completed. Training in progress.")
        for feeder in self._feeders:
            feeder.start()
        return self._finish(self._train(hosts))

    def _place(self, image: str) -> Cluster:
        """Choose what stands for the image, and say so in the log."""
        count = training_files.host_count(self._request)
        now = int(time.time())
        for number in range(1, count + 1):
            stream = f"{self._job.name}/algo-{number}-{now}"
            self._logs[f"algo-{number}"] = self._tools.journals.open(LOG_GROUP, stream)
        isolated = bool(self._request.get("EnableNetworkIsolation"))
        try:
            chosen = self._tools.choose(image)
            for log in self._logs.values():
                log.line(f"byoc: {chosen.words}")
            return self._tools.cluster(chosen, self._job.name, self._arn, count, isolated=isolated)
        except images.ImageError as error:
            self._logs["algo-1"].line(f"byoc: {error}")
            raise JobError(f"ClientError: Cannot access the training image: {error}") from error
        except HostError as error:
            self._logs["algo-1"].line(f"byoc: {error}")
            raise JobError(f"InternalServerError: {error}") from error

    def _host(self, name: str, groups: Mapping[str, list[str]]) -> Host:
        """Write and fetch what a host finds."""
        assert self._cluster is not None  # noqa: S101 - _place has made it
        root = self._folder / name / "ml"
        training_files.write(root, self._request, name, groups, self._cluster.interface)
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
        assert self._cluster is not None  # noqa: S101 - _place has made it
        reached = {} if self._request.get("EnableNetworkIsolation") else self._cluster.variables
        return {
            **reached,
            "AWS_REGION": self._tools.context.region,
            "TRAINING_JOB_NAME": self._job.name,
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
        folder = self._folder / host / "fast" / name if fast else root / "input/data" / name
        channels.bring(self._client, items, folder, fast=fast, cancelled=self._job.cancelled)
        return [Bind(folder, f"{_ML}input/data/{name}", read_only=True)] if fast else []

    def _mirror(self, names: list[str]) -> None:
        checkpoints = self._request.get("CheckpointConfig")
        board = self._request.get("TensorBoardOutputConfig")
        if checkpoints:
            path = checkpoints.get("LocalPath", CHECKPOINTS).rstrip("/")
            mirror = self._mirrored(names, path, checkpoints["S3Uri"])
            mirror.bring(self._job.cancelled)
            mirror.start()
        if board:
            path = board.get("LocalPath", TENSORBOARD).rstrip("/")
            uri = f"{board['S3OutputPath'].rstrip('/')}/{self._job.name}/tensorboard-output"
            self._mirrored(names, path, uri).start()

    def _mirrored(self, names: list[str], path: str, uri: str) -> Mirror:
        folders = [self._local(name, path) for name in names]
        mirror = Mirror(self._client, folders, uri, self._logs["algo-1"].line)
        self._mirrors.append(mirror)
        return mirror

    def _local(self, host: str, path: str) -> Path:
        """Where a folder of the container is here."""
        if path.startswith(_ML):
            return self._folder / host / "ml" / path.removeprefix(_ML)
        return self._folder / host / "beside" / path.strip("/").replace("/", "-")

    def _train(self, hosts: list[Host]) -> Outcome:
        assert self._cluster is not None  # noqa: S101 - _place has made it
        logs = dict(zip(self._cluster.names, self._logs.values(), strict=True))

        def on_line(host: str, line: str) -> None:
            logs[host].line(line)
            self._metrics.read(line)

        def stopping() -> None:
            self._to("Stopping", "Stopping the training job")

        condition = self._request.get("StoppingCondition", {})
        seconds = condition.get("MaxRuntimeInSeconds", DEFAULT_SECONDS)
        try:
            return jobs.run(self._job, self._cluster, hosts, on_line, seconds, stopping)
        except HostError as error:
            self._logs["algo-1"].line(f"byoc: {error}")
            raise JobError(f"ClientError: {error}"[: job_output.MOST_CHARACTERS]) from error

    def _finish(self, outcome: Outcome) -> Callable[[dict[str, Any]], None]:
        self._note(FinalMetricDataList=self._metrics.final)
        if outcome.why == "shut down":
            raise JobError(jobs.ENDED)
        if outcome.why == "" and (outcome.failed or self._missing(outcome)):
            with contextlib.suppress(s3.S3Error):
                self._end_mirrors()
            raise JobError(self._reason(outcome))
        self._to("Uploading", "Uploading generated training model")
        try:
            self._end_mirrors()
            self._upload()
        except (s3.S3Error, PackagingError) as error:
            raise JobError(f"ClientError: Artifact upload failed:{error}") from error
        except OSError as error:
            raise JobError(f"ClientError: Artifact upload failed:{error.strerror}") from error
        ends = {"stopped": status.stop, "time": status.exceed}
        return ends.get(outcome.why, status.complete)

    def _missing(self, outcome: Outcome) -> bool:
        assert self._cluster is not None  # noqa: S101 - _place has made it
        return len(outcome.ends) < len(self._cluster.names)

    def _reason(self, outcome: Outcome) -> str:
        """``FailureReason`` of the first host that failed."""
        host = outcome.failed
        if host is None:
            return "InternalServerError: a host could not be ended"
        end = outcome.ends[host]
        if end.code < 0:
            return f"InternalServerError: {end.words}"
        text = job_output.text_of(self._folder / host / "ml/output/failure")
        problems = [feeder.problem for feeder in self._feeders if feeder.problem]
        if problems and not text:
            return f"ClientError: Data download failed:{problems[0]}"
        return job_output.algorithm_error(text or end.words, end.code)

    def _upload(self) -> None:
        """Archives, or the files themselves, below ``S3OutputPath/JOB/output``."""
        assert self._cluster is not None  # noqa: S101 - _place has made it
        config = self._request["OutputDataConfig"]
        base = f"{config['S3OutputPath'].rstrip('/')}/{self._job.name}/output"
        roots = [self._folder / name / "ml" for name in self._cluster.names]
        log = self._logs["algo-1"].line
        for name, inside in (("model", "model"), ("output", "output/data")):
            folders = [root / inside for root in roots if (root / inside).is_dir()]
            if not folders:
                continue
            folder = job_output.merged(folders, self._folder / f"all-{name}", log)
            if name == "output" and not job_output.has_files(folder):
                continue
            if config.get("CompressionType") == "NONE":
                s3.store_folder(self._client, folder, f"{base}/{name}")
                continue
            archive = self._folder / f"{name}.tar.gz"
            job_output.pack(folder, archive)
            s3.store(self._client, archive, f"{base}/{archive.name}")

    def _end_mirrors(self) -> None:
        mirrors, self._mirrors = self._mirrors, []
        for mirror in mirrors:
            mirror.close()

    def _end_helpers(self) -> None:
        for feeder in self._feeders:
            feeder.close()
        with contextlib.suppress(s3.S3Error):
            self._end_mirrors()

    def _check(self) -> None:
        if self._job.cancelled():
            raise Cancelled

    def _to(self, secondary: str, message: str, **members: Any) -> None:
        def change(document: dict[str, Any]) -> None:
            status.to(document, secondary, message)
            document.update(members)

        self._shelf.update(self._job.name, change)

    def _note(self, **members: Any) -> None:
        self._shelf.set(self._job.name, **members)


def _request(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a document that the request had."""
    return {key: value for key, value in document.items() if key in document["_request"]}
