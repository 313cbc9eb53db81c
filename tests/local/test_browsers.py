"""Web pages cannot use the endpoint: they could run programs here."""

from __future__ import annotations

import http.client

import pytest

TARGET = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}


def ask(endpoint, method: str, path: str, headers: dict[str, str], body: bytes = b"{}"):
    connection = http.client.HTTPConnection(endpoint.url.removeprefix("http://"), timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer, content


@pytest.mark.parametrize(
    "said",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8080"},
        {"Host": "localhost.evil.example"},
        {"Host": "notlocalhost"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/", TARGET),
        ("OPTIONS", "/", {"Access-Control-Request-Method": "POST"}),
        ("GET", "/", {}),
        ("PUT", "/bucket/key", {}),
        ("POST", "/endpoints/one/invocations", {}),
    ],
)
def test_what_a_web_page_asks_is_refused(endpoint, said, method, path, headers):
    answer, content = ask(endpoint, method, path, {**headers, **said})
    assert answer.status == 403, content
    assert "The local endpoint refuses this request: it" in content
    assert answer.headers.get("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Host": "localhost:1234"},
        {"Host": "[::1]:1234"},
        {"Host": "172.17.0.1:1234"},
        {"Host": "host.docker.internal:1234"},
        {"Host": "api.sagemaker.us-east-1.amazonaws.com"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_clients_and_containers_are_served(endpoint, said):
    answer, content = ask(endpoint, "POST", "/", {**TARGET, **said})
    assert (answer.status, content) == (200, '{"Models": []}')
