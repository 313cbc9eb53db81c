"""``byoc invoke``: bodies, answers, bars."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest

from byoc import invocations
from byoc.aws import Aws
from byoc.digits import random_digit
from byoc.errors import FailedError, InvocationError, SettingsError
from byoc.invocations import Answer, content_type_of, probabilities


@pytest.fixture
def answers(monkeypatch):
    """Every question gets the same answer; what was asked is kept."""
    asked = []

    def answer_with(body, kind="application/json") -> Any:
        def invoke(aws, endpoint, question) -> Answer:
            asked.append((endpoint, question))
            return Answer(body, kind, 12.3, "AllTraffic")

        monkeypatch.setattr(invocations, "invoke", invoke)
        return asked

    return answer_with


def scores(best, count=10):
    return [math.log(0.91 if n == best else 0.09 / (count - 1)) for n in range(count)]


def test_a_random_digit_is_asked_and_the_answer_shown_with_bars(byoc, answers, digits):
    asked = answers(json.dumps([scores(8)]).encode())
    done = byoc("invoke", "digits", "--random-digit", str(digits), "--seed", "3")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "Most likely answer: 8" in lines
    bar = next(line for line in lines if line.strip().startswith("8 "))
    assert bar.endswith("91.00 %")
    assert len(bar) - len(bar.replace("█", "").replace("#", "")) == 36
    ((endpoint, question),) = asked
    assert (endpoint, question.content_type) == ("digits", "application/json")
    tensor = json.loads(question.body)
    (label,) = [row for row, values in enumerate(tensor[0][0]) if max(values) > 2]
    assert f"it is a {label}" in done.out
    assert tensor[0][0][label][0] == pytest.approx((1 - 0.1307) / 0.3081, abs=1e-5)
    assert tensor[0][0][27][0] == pytest.approx(-0.1307 / 0.3081, abs=1e-5)


def test_json_has_everything(byoc, answers, digits):
    answers(json.dumps([scores(8)]).encode())
    words = ("invoke", "digits", "--random-digit", str(digits), "--seed", "3", "--json")
    found = byoc(*words).json
    assert found["most_likely"] == [8]
    assert found["scores"][0][8] == pytest.approx(0.91)
    assert found["variant"] == "AllTraffic"
    assert found["digit"]["label"] == found["digit"]["number"]


def test_json_is_json_whatever_the_model_says(byoc, answers):
    def none(word: str) -> None:
        raise AssertionError(word)

    answers(b'{"loss": NaN, "rows": [[Infinity, -Infinity, 1.5]]}')
    done = byoc("invoke", "e", "--body", "[]", "--json")
    found = json.loads(done.out, parse_constant=none)
    assert found["answer"] == {"loss": None, "rows": [[None, None, 1.5]]}


def test_json_and_a_file_and_a_stream(byoc, answers, tmp_path):
    answers(b"a,b\n", "text/csv")
    done = byoc("invoke", "e", "--body", "[]", "-o", "answer", "--json")
    assert done.json == {"file": "answer", "bytes": 4, "content_type": "text/csv"}
    assert (tmp_path / "answer").read_bytes() == b"a,b\n"
    done = byoc("invoke", "e", "--body", "[]", "--stream", "--json")
    assert (done.code, done.out) == (SettingsError.exit_code, "")
    assert "leave --stream or --json out" in done.err
    assert byoc("invoke", "e", "--body", "[]", "--stream", "--dry-run").code == 0


def test_several_rows_are_a_table_and_other_answers_are_printed_as_they_are(byoc, answers):
    answers(json.dumps([scores(3), scores(4)]).encode())
    out = byoc("invoke", "e", "--body", "[]").out
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["0", "3"], ["1", "4"]]
    answers(b'{"words": "na\xc3\xafve"}')
    assert json.loads(byoc("invoke", "e", "--body", "[]").out) == {"words": "naïve"}
    answers(b"a,b\n", "text/csv")
    assert byoc("invoke", "e", "--body", "[]").out == "a,b\n"


def test_bodies_come_from_files_and_from_the_standard_input(byoc, answers, tmp_path):
    asked = answers(b"{}")
    (tmp_path / "seven.png").write_bytes(b"\x89PNG...")
    (tmp_path / "rows.csv").write_text("1,2")
    byoc("invoke", "e", "seven.png")
    byoc("invoke", "e", "rows.csv", "--accept", "text/csv", "--variant", "v")
    byoc("invoke", "e", "-", stdin=b"[1]")
    byoc("invoke", "e", "-", "--content-type", "text/plain", stdin=b"hello")
    assert [(one.content_type, one.body) for _, one in asked] == [
        ("image/png", b"\x89PNG..."),
        ("text/csv", b"1,2"),
        ("application/json", b"[1]"),
        ("text/plain", b"hello"),
    ]
    assert (asked[1][1].accept, asked[1][1].variant) == ("text/csv", "v")


def test_an_answer_can_be_written_to_a_file(byoc, answers, tmp_path):
    answers(b"\x00\xff", "application/octet-stream")
    assert byoc("invoke", "e", "--body", "x", "-o", "answer").code == 0
    assert (tmp_path / "answer").read_bytes() == b"\x00\xff"
    assert byoc("invoke", "e", "--body", "x", "-o", "no/such").code == SettingsError.exit_code


@pytest.mark.parametrize(
    "words", [(), ("a.json", "--body", "x"), ("nowhere.json",), ("--random-digit", ".")]
)
def test_a_wrong_body_is_one_line(byoc, words):
    done = byoc("invoke", "e", *words, "--dry-run")
    assert done.code == SettingsError.exit_code
    assert len(done.err.splitlines()) == 1


def test_dry_run_shows_the_request(byoc, digits):
    (planned,) = byoc.planned("invoke", "e", "--random-digit", str(digits), "--inference-id", "i")
    assert planned["service"] == "sagemaker-runtime"
    request = planned["request"]
    assert (request["EndpointName"], request["InferenceId"]) == ("e", "i")
    assert json.loads(request["Body"])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.25, 0.75], [0.25, 0.75]),
        ([math.log(0.25), math.log(0.75)], [0.25, 0.75]),
        ([1000.0, 1000.0], [0.5, 0.5]),
        ([-1e9, 0.0], [0.0, 1.0]),
    ],
)
def test_scores_become_probabilities(row, expected):
    assert probabilities(row) == pytest.approx(expected)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"[1]",
        b"[[1, 2], [1]]",
        b'["a", "b"]',
        b"[true, false]",
        b"[[[1, 2]]]",
        b"{",
        b"[NaN, 1]",
    ],
)
def test_what_is_no_score_is_none(body):
    assert Answer(body, "application/json", 1.0).scores == []


@pytest.fixture
def runtime(aws, monkeypatch):
    """SageMaker Runtime answers what it is told to; the rest is the stand-in's."""
    told: dict[str, Any] = {}
    through = Aws.call

    def call(self, service, operation, request=None) -> Any:
        if service != "sagemaker-runtime":
            return through(self, service, operation, request)
        told["request"] = request
        answer = told[operation]
        return answer(request) if callable(answer) else answer

    monkeypatch.setattr(Aws, "call", call)
    aws.client("s3").create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return told


@pytest.mark.parametrize(("place", "code"), [("out", 0), ("fail", InvocationError.exit_code)])
def test_an_asynchronous_answer_is_waited_for_in_s3(byoc, aws, runtime, place, code):
    s3 = aws.client("s3")

    def answer(request) -> Any:
        bucket, _, key = request["InputLocation"].removeprefix("s3://").partition("/")
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        s3.put_object(
            Bucket="bucket", Key=place, Body=b'{"got": %s}' % body, ContentType="application/json"
        )
        return {"OutputLocation": "s3://bucket/out", "FailureLocation": "s3://bucket/fail"}

    runtime["InvokeEndpointAsync"] = answer
    done = byoc("invoke", "e", "--body", "[1]", "--async", "--bucket", "bucket", "--json")
    assert done.code == code, done
    if code == 0:
        assert done.json["answer"] == {"got": [1]}
    else:
        assert '{"got": [1]}' in done.err


def test_no_asynchronous_answer_in_time_says_where_it_may_still_come(aws, runtime):
    runtime["InvokeEndpointAsync"] = {"OutputLocation": "s3://bucket/out"}
    with pytest.raises(FailedError, match="it may still come to s3://bucket/out"):
        invocations.invoke_async(aws, "e", invocations.Question(b"1"), bucket="bucket", seconds=0.3)


def test_a_stream_is_handed_on_piece_by_piece_and_its_break_is_an_error(aws, runtime):
    parts = [{"PayloadPart": {"Bytes": b"a"}}, {"PayloadPart": {"Bytes": b"b"}}]
    runtime["InvokeEndpointWithResponseStream"] = {"Body": iter(parts)}
    assert [*invocations.stream(aws, "e", invocations.Question(b"1"))] == [b"a", b"b"]
    broken = [*parts, {"ModelStreamError": {"Message": "told to break"}}]
    runtime["InvokeEndpointWithResponseStream"] = {"Body": iter(broken)}
    pieces = invocations.stream(aws, "e", invocations.Question(b"1"))
    assert [next(pieces), next(pieces)] == [b"a", b"b"]
    with pytest.raises(InvocationError, match="ModelStreamError: told to break"):
        next(pieces)


def test_types_of_bodies():
    assert content_type_of("a.NPY", b"") == "application/x-npy"
    assert content_type_of(None, b"\xff\xd8\xff...") == "image/jpeg"
    assert content_type_of(None, b"[1]") == "application/json"
    assert content_type_of("noname", b"\x93NUMPY") == "application/x-npy"


def test_digits_are_read_as_the_files_have_them(digits):
    for seed in range(20):
        digit = random_digit(digits, seed)
        assert [row for row in range(28) if max(digit.pixels[row])] == [digit.label]
    assert random_digit(digits, 7) == random_digit(digits, 7)
    name = digits / "t10k-images-idx3-ubyte"
    whole = name.read_bytes()
    name.with_suffix(".gz").write_bytes(gzip.compress(whole))
    name.unlink()
    assert random_digit(digits, 7).label in range(5)
    for damaged in (whole[:-1], b"", whole[:3] + b"\x01" + whole[4:]):
        name.write_bytes(damaged)
        with pytest.raises(SettingsError):
            random_digit(digits)
