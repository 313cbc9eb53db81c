from __future__ import annotations

import re

import botocore.session
import numpy as np
import pytest
import torch

from byoc_training import metrics

VALUES = {
    "1": 1,
    "0": 0,
    "-3": -3,
    "-0.5": -0.5,
    "1e-05": 1e-05,
    "-2.5e-07": -2.5e-07,
    "1e+20": 1e20,
    "0.123457": 0.123456789,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
}


def read(name: str, text: str) -> list[str]:
    (definition,) = metrics.metric_definitions([name])
    return re.findall(definition["Regex"], text)


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_every_number_that_is_printed_is_read(text, value):
    printed = metrics.line("step", 7, {"first": 1.5, "loss": value, "last": 2})
    assert printed == f"step=7; first=1.5; loss={text}; last=2;"
    assert read("loss", printed) == [text]
    assert read("first", printed) == ["1.5"]
    assert read("last", printed) == ["2"]
    assert read("step", printed) == ["7"]


def test_a_name_is_not_read_out_of_another():
    printed = metrics.line(
        "epoch", 1, {"train_loss": 1.0, "loss": 2.0, "a/loss": 3.0, "a.loss": 4.0, "a-loss": 5.0}
    )
    assert read("loss", printed) == ["2"]
    assert read("train_loss", printed) == ["1"]
    assert read("a/loss", printed) == ["3"]
    assert read("a.loss", printed) == ["4"]
    assert read("a-loss", printed) == ["5"]
    # A dot stands for itself.
    assert read("a.loss", "aXloss=9;") == []


def test_a_line_after_another_logger_s_words_is_read():
    assert read("loss", "2026-11-27 INFO train: loss=0.5;") == ["0.5"]
    assert read("loss", "xloss=0.5; loss=wrong; loss=0.5") == []


def test_definitions_are_within_the_limits_of_the_service():
    shapes = botocore.session.get_session().get_service_model("sagemaker")
    names = [f"{'a.-/' * 48}z-.-{number:04}" for number in range(40)]
    definitions = metrics.metric_definitions(names)
    assert [one["Name"] for one in definitions] == names
    assert len(definitions) == shapes.shape_for("MetricDefinitionList").metadata["max"]
    for key, shape in (("Name", "MetricName"), ("Regex", "MetricRegex")):
        limits = shapes.shape_for(shape).metadata
        assert all(limits["min"] <= len(one[key]) <= limits["max"] for one in definitions)
    required = shapes.shape_for("MetricDefinition").metadata["required"]
    assert all(list(one) == required for one in definitions)
    assert read(names[0], f"{names[0]}=1e-05;") == ["1e-05"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"m{number}" for number in range(41)], "41 metrics; a job takes at most 40"),
        (["a", "b", "a"], "'a' is named twice"),
        (["a b"], "'a b' is no name"),
        (["a=b"], "is no name"),
        (["a\nb"], "is no name"),
        ([""], "is no name"),
        (["a//b"], "is no name"),
        (["a/../b"], "is no name"),
        (["/a"], "is no name"),
        (["a" * 201], "200 characters at most"),
    ],
)
def test_wrong_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        metrics.metric_definitions(names)


def test_what_float_takes_is_a_number():
    assert metrics.number("x", torch.tensor([0.5])) == 0.5
    for value in (2**60, np.int64(2**60), torch.tensor(2**60)):
        number = metrics.number("x", value)
        assert (type(number), number) == (int, 2**60)
    for value in ("fast", None, torch.zeros(2), [1]):
        with pytest.raises(TypeError, match=r"the metric 'x' is .*; expected a number"):
            metrics.number("x", value)
