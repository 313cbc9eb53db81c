"""Words of the command line, values of files, definitions of metrics, TOML files."""

from __future__ import annotations

import json

import pytest

from byoc import metrics, toml_file, words
from byoc.errors import SettingsError
from byoc_training.metrics import metric_definitions as of_the_training_image


@pytest.mark.parametrize("names", [metrics.EXAMPLE_METRICS, ("a.b/c-d", "loss")])
def test_definitions_are_those_of_the_training_package(names):
    assert metrics.metric_definitions(names) == of_the_training_image(names)


@pytest.mark.parametrize("names", [["a"] * 2, ["a b"], [f"m{n}" for n in range(41)], ["x" * 600]])
def test_wrong_metrics_are_refused(names):
    with pytest.raises(SettingsError):
        metrics.metric_definitions(names)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), (0.1, "0.1"), (True, "true"), ([1, 2], "[1, 2]"), ("adam", "adam"),
        ("1e5", '"1e5"'), ("null", '"null"'), ("True", '"True"'), ("007", "007"), ("", ""),
    ],
)  # fmt: skip
def test_typed_hyperparameters_keep_their_types(value, text):
    assert words.hyperparameters({"x": value}) == {"x": text}


def test_what_json_has_no_form_for_is_refused():
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(SettingsError, match="hyperparameter x"):
            words.hyperparameters({"x": value})


def test_pairs():
    assert words.pairs(["a=1", "b=x=y"], "thing", "a=1") == {"a": "1", "b": "x=y"}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(SettingsError):
            words.pairs(bad, "thing", "a=1")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)]
)
def test_lengths_of_time(text, seconds):
    assert words.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "1w", "-5", "1.5h"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(SettingsError, match="is no length of time"):
        words.seconds(text)


def test_fresh_names_are_names():
    for stem in ("mnist", "x" * 80, "a_b.c", "---", ""):
        assert words.checked_name(words.fresh_name(stem))
    for bad in ("", "-a", "a-", "a_b", "x" * 64):
        with pytest.raises(SettingsError):
            words.checked_name(bad)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("region = ", "is no TOML"),
        ("regoin = 'x'", "did you mean region"),
        ("region = 5", "expected text"),
        ("train = 5", "expected a table"),
        (b"\xff", "it is not UTF-8"),
    ],
)
def test_wrong_toml_is_one_line(tmp_path, content, said):
    path = tmp_path / "job.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=said):
        toml_file.read(path)
    with pytest.raises(SettingsError, match="cannot read"):
        toml_file.read(tmp_path / "none.toml")


def test_values_of_a_file_arrive_with_their_types():
    sent = words.hyperparameters({"n": 3, "lr": 0.5, "on": False, "id": "1e5", "sizes": [1, 2]})
    assert {key: json.loads(value) for key, value in sent.items()} == {
        "n": 3, "lr": 0.5, "on": False, "id": "1e5", "sizes": [1, 2],
    }  # fmt: skip
