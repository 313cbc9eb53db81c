"""AWS, or the local endpoint in its place: one way out for every request.

``call`` sends, ``ask`` sends what only reads. With ``dry_run`` neither does: both write down what
they would have sent, and ``ask`` answers None.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

from byoc.aws_errors import code_of, not_aws, told
from byoc.errors import (
    ByocError,
    CredentialsError,
    NotFoundError,
    SettingsError,
)
from byoc.partitions import ECR, Partition, image_uri, partition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: SageMaker answers an invocation within 60 s; a client waits ten more (contract section 7.1).
INVOCATION_SECONDS = 70
#: Of a question whose answer is not worth waiting for.
IMPATIENT_SECONDS = 4
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Of the local endpoint.
LOCAL_ACCOUNT = "123456789012"
#: Stands in printed requests for the account that only a call could tell.
UNKNOWN_ACCOUNT = "<account>"


class Aws:
    """A region of an account.

    Args:
        region: Such as ``eu-central-1``; default: AWS's own variables and configuration.
        profile: Of AWS's configuration files, in place of everything else that signs in; default:
            as botocore finds it, keys in the environment before ``AWS_PROFILE``.
        endpoint_url: In place of AWS; default: ``AWS_ENDPOINT_URL``.
        dry_run: Send nothing; ``planned`` has what would have been sent.
        impatient: Wait for an answer for some seconds only, and try once.

    Attributes:
        planned: ``{"service", "operation", "request"}`` of every request, with ``dry_run``.

    Raises:
        SettingsError: No region is set anywhere, or it is none.
        CredentialsError: There is no such profile.
    """

    def __init__(
        self,
        region: str | None = None,
        *,
        profile: str | None = None,
        endpoint_url: str | None = None,
        dry_run: bool = False,
        impatient: bool = False,
    ) -> None:
        import boto3  # noqa: PLC0415 - heavy
        import botocore.session  # noqa: PLC0415 - heavy
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - heavy

        # boto3 itself reads AWS_DEFAULT_REGION alone, AWS's other programs AWS_REGION first.
        region = region or os.environ.get("AWS_REGION")
        self.endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or None
        try:
            base = None
            if profile is None and self.local and os.environ.get("AWS_ACCESS_KEY_ID"):
                # What `byoc local env` exports is all there is to know: an AWS_PROFILE of the
                # surrounding account, which may not even be there, has no say in it.
                base = botocore.session.Session({"profile": (None, None, None, None)})
            self._session: Any = boto3.Session(
                profile_name=profile, region_name=region, botocore_session=base
            )
            found = region or self._session.region_name
        except BotoCoreError as error:
            raise told(error, "signing in", region or "AWS") from error
        if not found:
            raise SettingsError(
                "no region is set; give --region, set AWS_REGION, or write region = … in byoc.toml"
            )
        self.region = str(found)
        self.partition: Partition = partition(self.region)
        self.dry_run, self._impatient = dry_run, impatient
        self.planned: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._account: str | None = None

    @property
    def local(self) -> bool:
        """Whether the endpoint is on this machine, as that of ``byoc local`` is."""
        return on_loopback(self.endpoint_url)

    @property
    def account(self) -> str:
        """The account's twelve digits: of ``AWS_ACCOUNT_ID``, or asked for once.

        With ``dry_run`` nobody is asked, and a word stands for it.

        Raises:
            ByocError: AWS does not say.
        """
        named = os.environ.get("AWS_ACCOUNT_ID", "")
        if re.fullmatch(r"\d{12}", named):
            return named
        if self.dry_run:
            return LOCAL_ACCOUNT if self.local else UNKNOWN_ACCOUNT
        if self._account is None:
            self._account = str(self.call("sts", "GetCallerIdentity")["Account"])
        return self._account

    def client(self, service: str) -> Any:
        """boto3's client, for what `call` does not fit: transfers of files.

        Raises:
            ByocError: It cannot be made.
        """
        with self._lock:  # boto3's sessions are not safe to share, its clients are
            return self._client(service)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            from botocore.config import Config  # noqa: PLC0415 - heavy

            # What would be done twice is not tried again: an invocation is the model's time.
            once = service == "sagemaker-runtime" or self._impatient
            config = Config(
                connect_timeout=IMPATIENT_SECONDS if self._impatient else 10,
                read_timeout=IMPATIENT_SECONDS if self._impatient else INVOCATION_SECONDS,
                retries={"mode": "standard", "total_max_attempts": 1 if once else 4},
                s3={"addressing_style": "path"} if self.local else {},
                # A proxy knows nothing of this machine's loopback.
                proxies={} if self.local else None,
                max_pool_connections=16,
            )
            try:
                self._clients[service] = self._session.client(
                    service, region_name=self.region, endpoint_url=self.endpoint_url, config=config
                )
            except Exception as error:
                raise told(error, f"connecting to {service}", self.where) from error
        return self._clients[service]

    @property
    def where(self) -> str:
        """The endpoint, or AWS's region."""
        return self.endpoint_url or f"AWS in {self.region}"

    def image_uri(self, name: str) -> str:
        """The full name of an image; one without a registry's host is in the account's own.

        Raises:
            SettingsError: It is in another region's registry, which SageMaker does not pull from
                (contract section 15); the local endpoint runs what the engine has.
            ByocError: The account has to be asked for, and AWS does not say.
        """
        found = ECR.match(name)
        if found and found["region"] != self.region and not self.local:
            raise SettingsError(
                f"{name} is in {found['region']}, and SageMaker in {self.region} pulls from there "
                "alone; push it there (byoc push), or give another --region"
            )
        return name if found else image_uri(name, self.account, self.region)

    def call(
        self, service: str, operation: str, request: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send a request.

        Args:
            service: As boto3 calls it.
            operation: As the API calls it, such as ``CreateTrainingJob``.
            request: Its members.

        Returns:
            The answer; empty with ``dry_run``.

        Raises:
            ByocError: It was refused, or could not be sent.
        """
        request = dict(request or {})
        if self.dry_run:
            self._plan(service, operation, request)
            return {}
        from botocore import xform_name  # noqa: PLC0415 - heavy

        client = self.client(service)
        try:
            answer: dict[str, Any] = getattr(client, xform_name(operation))(**request)
        except Exception as error:
            raise self.told(error, f"{service}:{operation}") from error
        return answer

    def ask(
        self, service: str, operation: str, request: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Send a request that reads; None with ``dry_run``.

        Raises:
            ByocError: As `call`.
        """
        answer = self.call(service, operation, request)
        return None if self.dry_run else answer

    def find(
        self, service: str, operation: str, request: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """As `ask`, and None as well where there is nothing of that name."""
        try:
            return self.ask(service, operation, request)
        except NotFoundError:
            return None

    def pages(
        self,
        service: str,
        operation: str,
        member: str,
        request: Mapping[str, Any] | None = None,
        most: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page.

        Args:
            service: As boto3 calls it.
            operation: As the API calls it.
            member: Of the answers, with the items.
            request: Of the first page.
            most: How many items at most.

        Raises:
            ByocError: As `call`.
        """
        request, count = dict(request or {}), 0
        while True:
            answer = self.call(service, operation, request)
            for item in answer.get(member, ()):
                yield item
                count += 1
                if count == most:
                    return
            token = answer.get("NextToken") or answer.get("nextToken")
            if not token:
                return
            request["NextToken" if "NextToken" in answer else "nextToken"] = token

    def told(self, error: Exception, doing: str) -> ByocError:
        """An error of boto3's in our words; ours and bugs go through unchanged."""
        from boto3.exceptions import Boto3Error  # noqa: PLC0415 - heavy
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy
        from botocore.parsers import ResponseParserError  # noqa: PLC0415 - heavy

        if isinstance(error, ByocError):
            return error
        if isinstance(error, Boto3Error):  # of a transfer; the cause is in its context
            cause = error.__context__
            error = cause if isinstance(cause, (BotoCoreError, ClientError)) else error
        if isinstance(error, ResponseParserError):
            return not_aws(doing, self.where)
        if not isinstance(error, (BotoCoreError, ClientError, Boto3Error)):
            raise error
        said = told(error, doing, self.where)
        if self.local and isinstance(said, CredentialsError) and not code_of(said):
            return CredentialsError(f'{said}; for byoc local: eval "$(byoc local env)"')
        return said

    def plan(self, service: str, operation: str, request: Mapping[str, Any], **more: Any) -> None:
        """Write down a request that `call` does not send itself, such as an upload's."""
        self.planned.append(
            {"service": service, "operation": operation, "request": dict(request), **more}
        )

    def _plan(self, service: str, operation: str, request: dict[str, Any]) -> None:
        """Write down a request, once the service's model has found nothing wrong with it."""
        from botocore.validate import ParamValidator  # noqa: PLC0415 - heavy

        model = _service_model(service).operation_model(operation)
        if model.input_shape is not None:
            wrong = ParamValidator().validate(request, model.input_shape)
            if wrong.has_errors():
                lines = "; ".join(wrong.generate_report().splitlines())
                raise SettingsError(f"{service}:{operation} would be refused: {lines}")
        self.plan(service, operation, request)


def on_loopback(url: str | None) -> bool:
    """Whether an address is one of this machine, as that of ``byoc local`` is."""
    return urllib.parse.urlsplit(url or "").hostname in LOOPBACK


@functools.cache
def _service_model(service: str) -> Any:
    from botocore import session  # noqa: PLC0415 - heavy

    return session.get_session().get_service_model(service)
