"""The way out: errors of AWS as one line each, dry runs, pages; and the library's public names."""

from __future__ import annotations

import http.server
import io
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError

import byoc as package
from byoc import errors
from byoc.aws import Aws
from byoc.aws_errors import told
from byoc.local import exports
from byoc.settings import connect


def refused(code, message="no", status=400, **more: Any):
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return ClientError(response, "X")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (boto.NoCredentialsError(), errors.CredentialsError, "aws configure"),
        (boto.ProfileNotFound(profile="p"), errors.CredentialsError, "list-profiles"),
        (boto.UnauthorizedSSOTokenError(), errors.CredentialsError, "has ended"),
        (refused("ExpiredToken"), errors.CredentialsError, "have expired"),
        (refused("UnrecognizedClientException"), errors.CredentialsError, "does not know"),
        (refused("AccessDeniedException"), errors.CredentialsError, "is not allowed: no"),
        (
            boto.EndpointConnectionError(endpoint_url="u"),
            errors.UnreachableError,
            "no answer from W",
        ),
        (boto.ConnectTimeoutError(endpoint_url="u"), errors.UnreachableError, "AWS_ENDPOINT_URL"),
        (
            boto.SSLError(endpoint_url="u", error=OSError("bad")),
            errors.UnreachableError,
            "no answer",
        ),
        (boto.ParamValidationError(report="Missing a\nb"), errors.SettingsError, "Missing a; b"),
        (
            refused("ValidationException", 'Could not find model "x".'),
            errors.NotFoundError,
            "byoc list",
        ),
        (refused("ValidationException", "1 validation error"), errors.RequestError, "was refused"),
        (refused("404", "Not Found", 404), errors.NotFoundError, "404"),
        (refused("ResourceInUse"), errors.RequestError, "another --name"),
        (refused("ResourceLimitExceeded"), errors.RequestError, "Service Quotas"),
        (refused("ThrottlingException"), errors.RequestError, "try again"),
        (refused("ModelNotReadyException"), errors.InvocationError, "not ready yet"),
        (
            refused("InternalFailure", "Service does not exist", 500),
            errors.RequestError,
            "was refused",
        ),
    ],
)
def test_errors_are_one_line_with_a_hint_and_an_exit_code(error, kind, words):
    said = told(error, "s:Op", "W")
    assert type(said) is kind
    assert words in str(said)
    assert "\n" not in str(said)


def test_a_model_s_error_shows_its_own_sentence_and_where_its_log_is():
    body = '{"error": {"code": "bad_body", "message": "the body is no JSON", "request_id": "1"}}'
    arn = "arn:aws:logs:r:1:log-group:/aws/sagemaker/Endpoints/digits:log-stream:x"
    error = refused("ModelError", "x", 424, OriginalStatusCode=400, OriginalMessage=body,
                    LogStreamArn=arn)  # fmt: skip
    said = told(error, "s:Op", "W")
    assert type(said) is errors.InvocationError
    assert (
        str(said)
        == "the model answered 400: the body is no JSON; its log: byoc logs digits --kind endpoint"
    )


def test_no_answer_is_an_exit_code_and_says_where(byoc, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert byoc("list").code == errors.CredentialsError.exit_code
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    done = byoc("list", "models")
    assert done.code == errors.UnreachableError.exit_code
    assert "http://127.0.0.1:1" in done.err
    assert len(done.err.splitlines()) == 1


class Page(http.server.BaseHTTPRequestHandler):
    """Answers everything with pages, as any server but AWS does."""

    def do_POST(self) -> None:
        self.send_error(501)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("words", [("list", "models"), ("invoke", "e", "--body", "[]")])
def test_a_server_that_is_not_aws_is_one_line(byoc, moto, monkeypatch, words):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("time.sleep", lambda _: None)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    done = byoc(*words, "--endpoint-url", url)
    server.shutdown()
    server.server_close()
    assert done.code == errors.UnreachableError.exit_code, done
    assert done.err.startswith(f"byoc: what answers at {url} is not AWS (")
    assert len(done.err.splitlines()) == 1


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """AWS's configuration files, with a profile ``far``."""
    (tmp_path / "credentials").write_text(
        "[far]\naws_access_key_id = of-the-profile\naws_secret_access_key = x\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def key_of(aws) -> str:
    return str(aws._session.get_credentials().access_key)


@pytest.mark.parametrize("profile", ["far", "not-there"])
def test_the_exported_local_keys_win_over_a_profile_that_is_not_given_outright(
    profiles, profile, tmp_path, monkeypatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    (tmp_path / "byoc.toml").write_text(f'profile = "{profile}"')
    assert key_of(connect()) == "local"
    monkeypatch.setenv("AWS_PROFILE", profile)
    aws = connect()
    assert key_of(aws) == "local"
    aws.client("s3")  # which reads the profile's settings
    assert key_of(connect(profile="far")) == "of-the-profile"


def test_a_profile_signs_in_where_no_keys_are_exported(profiles, tmp_path, monkeypatch):
    (tmp_path / "byoc.toml").write_text('profile = "far"')
    assert key_of(connect()) == "of-the-profile"
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    with pytest.raises(errors.CredentialsError, match="not-there"):
        connect()
    monkeypatch.setenv("AWS_PROFILE", "far")
    (tmp_path / "byoc.toml").write_text('profile = "not-there"')
    assert key_of(connect()) == "of-the-profile"


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that does not answer, for everything."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_on_this_machine_is_not_asked_for_at_a_proxy(byoc, moto, proxy):
    done = byoc("list", "models", "--json")
    assert (done.code, done.out) == (0, "[]\n")


def test_aws_is_asked_through_the_proxy(proxy, far, monkeypatch):
    aws = Aws("eu-central-1", endpoint_url="http://elsewhere.example", impatient=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(errors.UnreachableError, match="proxy"):
        aws.call("sagemaker", "ListModels")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "a.example, localhost"}, "a.example,localhost,127.0.0.1"),
        ({"NO_PROXY": "a.example", "no_proxy": ".b.example"}, ".b.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_shells_are_told_what_no_proxy_can_reach_and_keep_what_they_had(
    proxy, given, expected, monkeypatch
):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    told = exports.shell("http://127.0.0.1:1", "us-east-1")
    assert (told["NO_PROXY"], told["no_proxy"]) == (expected, expected)
    assert next(iter(told)) == "AWS_ENDPOINT_URL"


def test_a_fault_of_ours_is_one_line_too(byoc, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr("byoc.commands.options.connect", fail)
    done = byoc("list")
    assert done.code == 70
    assert (
        done.err == "byoc: a fault of byoc's own: RuntimeError: oh no; BYOC_DEBUG=1 shows where\n"
    )


def test_a_dry_run_sends_nothing_and_refuses_what_the_api_does_not_know(monkeypatch):
    aws = Aws("eu-central-1", endpoint_url="http://127.0.0.1:1", dry_run=True)
    assert aws.ask("sagemaker", "DescribeModel", {"ModelName": "m"}) is None
    assert aws.account == "123456789012"
    assert aws.planned == [
        {"service": "sagemaker", "operation": "DescribeModel", "request": {"ModelName": "m"}}
    ]
    with pytest.raises(errors.SettingsError, match="ModelNaem"):
        aws.call("sagemaker", "DescribeModel", {"ModelNaem": "m"})
    monkeypatch.setenv("AWS_ACCOUNT_ID", "111122223333")
    assert Aws("eu-central-1", dry_run=True).account == "111122223333"


def test_lists_are_read_to_their_end(aws):
    for number in range(25):
        aws.call(
            "sagemaker",
            "CreateModel",
            {
                "ModelName": f"m{number:02}",
                "ExecutionRoleArn": "arn:aws:iam::123456789012:role/x",
                "PrimaryContainer": {"Image": "i"},
            },
        )
    names = [one["ModelName"] for one in aws.pages("sagemaker", "ListModels", "Models")]
    assert sorted(names) == [f"m{number:02}" for number in range(25)]
    some = [*aws.pages("sagemaker", "ListModels", "Models", {"MaxResults": 4}, most=6)]
    assert len(some) == 6


def test_every_public_name_is_there_and_none_is_loaded_before_it_is_used():
    for name in package._PUBLIC:
        assert getattr(package, name).__doc__, name
    with pytest.raises(AttributeError):
        _ = package.nonsense
    program = "import byoc, sys; print([m for m in sys.modules if m.startswith('byoc.')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_example_of_the_package_runs(moto, no_engine, tmp_path, monkeypatch):
    def call(self, service, operation, request=None) -> Any:
        if operation != "InvokeEndpoint":
            return through(self, service, operation, request)
        assert request["Body"] == b"\x89PNG"
        return {"Body": io.BytesIO(b"[[0.25, 0.75]]"), "ContentType": request["Accept"]}

    through = Aws.call
    monkeypatch.setattr(Aws, "call", call)
    (tmp_path / "data/mnist").mkdir(parents=True)
    for name in ("data/mnist/digits", "seven.png"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    example = [line for line in (package.__doc__ or "").splitlines() if line.startswith("    ")]
    names: dict[str, Any] = {}
    exec(textwrap.dedent("\n".join(example)), names)  # noqa: S102 - our own words
    assert names["endpoint"].name == "digits"
    assert names["answer"].scores == [[0.25, 0.75]]


def test_public_functions_are_not_their_modules():
    program = """
import byoc.commands.invoke, byoc.commands.push, byoc.commands.train, byoc.commands.transform
from byoc import invoke, process, push, stream, train, transform
print([callable(one) for one in (invoke, process, push, stream, train, transform)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{[True] * 6}\n"
