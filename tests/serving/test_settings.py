from __future__ import annotations

import logging
from pathlib import Path

import pytest

from byoc_serving.errors import SettingsError
from byoc_serving.settings import MIB, Settings


def test_empty_environment_means_the_platforms_defaults():
    settings = Settings.from_environ({})
    assert (settings.host, settings.port, settings.front) == ("0.0.0.0", 8080, "asgi")  # noqa: S104
    assert settings.model_dir == Path("/opt/ml/model")
    assert settings.max_body_bytes >= 100 * MIB
    assert settings.default_accept == "application/json"


def test_platforms_variables_are_honoured():
    settings = Settings.from_environ(
        {
            "SAGEMAKER_BIND_TO_PORT": "9001",
            "SAGEMAKER_SAFE_PORT_RANGE": "9100-9200",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2000",
            "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
            "SAGEMAKER_CONTAINER_LOG_LEVEL": "10",
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv",
            "SAGEMAKER_PROGRAM": "",
        }
    )
    assert (settings.port, settings.workers, settings.max_body_bytes) == (9001, 3, 2000 * MIB)
    assert settings.log_level == logging.DEBUG
    assert settings.default_accept == "text/csv"
    assert settings.program is None


def test_smaller_platform_payload_does_not_lower_the_limit():
    settings = Settings.from_environ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"})
    assert settings.max_body_bytes >= 100 * MIB


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "70000"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "9200-9100"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "9200"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "²-³"),
        ("SAGEMAKER_SAFE_PORT_RANGE", f"1-{'9' * 70}"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "two"),
        ("BYOC_FRONT", "nginx"),
        ("BYOC_QUEUE_SIZE", "-1"),
        ("BYOC_ACCESS_LOG", "maybe"),
        ("BYOC_HANDLER", "relative.py"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "loud"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "²"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "9" * 70),
        ("BYOC_LOG_FORMAT", "xml"),
        ("BYOC_METRICS", "perhaps"),
        ("BYOC_EMF_NAMESPACE", "AWS/Mine"),
        ("BYOC_EMF_NAMESPACE", "no blanks"),
        ("BYOC_EMF_DIMENSIONS", "EndpointName"),
        ("BYOC_EMF_DIMENSIONS", "a=1,a=2"),
        ("BYOC_EMF_INTERVAL_SECONDS", "0"),
        ("BYOC_OTEL", "perhaps"),
    ],
)
def test_bad_value_is_named_with_what_was_expected(name, value):
    with pytest.raises(SettingsError, match="expected") as caught:
        Settings.from_environ({name: value})
    assert len(caught.value.problems) == 1
    assert f"{name}={value!r}" in caught.value.problems[0]


@pytest.mark.parametrize("name", ["SAGEMAKER_SAFE_PORT_RANGE", "SAGEMAKER_CONTAINER_LOG_LEVEL"])
def test_more_digits_than_python_reads_are_a_bad_value_like_any_other(name):
    digits = "9" * 5000
    with pytest.raises(SettingsError, match="expected") as caught:
        Settings.from_environ({name: f"1-{digits}" if "RANGE" in name else digits})
    assert len(caught.value.problems) == 1


def test_all_problems_are_reported_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"BYOC_FRONT": "x", "SAGEMAKER_BIND_TO_PORT": "y"})
    assert len(caught.value.problems) == 2
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "BYOC_OTEL": "0"}, False),
        ({"BYOC_OTEL": "1"}, True),
    ],
)
def test_spans_are_made_where_a_collector_is_named(environ, expected):
    assert Settings.from_environ(environ).otel is expected


def test_observability_as_it_is_by_default():
    settings = Settings.from_environ({})
    assert (settings.metrics, settings.access_log, settings.emf) == (True, "off", False)
    assert Settings.from_environ({"BYOC_ACCESS_LOG": "ALL"}).access_log == "all"
    assert Settings.from_environ({"BYOC_ACCESS_LOG": "1"}).access_log == "on"
    dimensions = Settings.from_environ({"BYOC_EMF_DIMENSIONS": "a=1, b=x y"}).emf_dimensions
    assert dimensions == (("a", "1"), ("b", "x y"))
