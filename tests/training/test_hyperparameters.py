from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoc_training import hyperparameters
from byoc_training.errors import ContractError


def parsed(raw: object):
    return hyperparameters.parse("x", raw)


@pytest.mark.contract(16)
@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("1e-3", 0.001),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ("['a', 'b']", ["a", "b"]),
        ("{'a': 1, 'b': None}", {"a": 1, "b": None}),
        ("adam", "adam"),
        ("", ""),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("[1, NaN]", "[1, NaN]"),
        ("[" * 2400, "[" * 2400),
        ("9" * 2500, int("9" * 2500)),
    ],
)
def test_text_becomes_its_typed_value(raw, value):
    found = parsed(raw).value
    assert found == value
    assert type(found) is type(value)


@pytest.mark.contract(17)
@pytest.mark.parametrize(("raw", "text"), [('"adam"', "adam"), ('"007"', "007"), ('"1e5"', "1e5")])
def test_one_more_layer_of_json_quotes_is_taken_off_and_says_text(raw, text):
    found = parsed(raw)
    assert (found.argument, found.variable, found.value) == (text, text, text)


@pytest.mark.contract(18)
@pytest.mark.parametrize("raw", ["true", "True", '"true"', '"True"', True])
def test_every_spelling_of_true_is_true(raw):
    found = parsed(raw)
    assert (found.value, found.argument, found.variable) == (True, "True", "true")


@pytest.mark.contract(18)
@pytest.mark.parametrize("raw", ["false", "False", '"false"', False])
def test_every_spelling_of_false_is_false(raw):
    found = parsed(raw)
    assert (found.value, found.argument, found.variable) == (False, "False", "false")


@pytest.mark.contract(19)
@pytest.mark.parametrize("raw", ["007", "1e5", "null", "None", "0.10", "1_000", " 5 ", "+1", "NaN"])
def test_scalars_keep_their_text_where_programs_declare_types(raw):
    found = parsed(raw)
    assert (found.argument, found.variable) == (raw, raw)


@pytest.mark.parametrize(
    ("raw", "argument"),
    [("[1, 2]", "[1, 2]"), ("[1,2]", "[1, 2]"), ('{"b": 2, "a": 1}', "a=1,b=2")],
)
def test_lists_and_objects_look_as_under_the_toolkit(raw, argument):
    assert parsed(raw).argument == argument


@pytest.mark.contract(20)
@pytest.mark.parametrize(
    "name",
    ["sagemaker_program", "sagemaker_anything", "mp_parameters", "_tuning_objective_metric"],
)
def test_reserved_names_are_known(name):
    assert hyperparameters.parse(name, "1").reserved


def test_arguments_are_sorted_and_one_letter_names_take_one_dash():
    parameters = [hyperparameters.parse(name, "1") for name in ("lr", "b", "batch-size")]
    assert hyperparameters.to_arguments(parameters) == ("-b", "1", "--batch-size", "1", "--lr", "1")


@pytest.mark.parametrize(
    ("name", "raw"),
    [("x", "a\0b"), ("a\0", "b"), ("x", "\ud800"), ("x", r'{"k": "\u0000"}'),
     ("x", r'{"k": "\ud800"}'), ("x", {"\0": 1})],
)  # fmt: skip
def test_what_no_process_can_be_given_is_refused(name, raw):
    with pytest.raises(ContractError, match="no process can be given"):
        hyperparameters.parse(name, raw)


@pytest.mark.contract(22)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2500))
def test_any_json_encoded_text_arrives_as_it_was(text):
    found = parsed(json.dumps(text))
    if text not in ("true", "True", "false", "False"):
        assert found.argument == text
        assert found.value == text


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser_and_every_value_is_json(text):
    try:
        found = parsed(text)
    except ContractError:
        return
    json.loads(hyperparameters.compact(found.value), parse_constant=pytest.fail)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).filter(lambda value: isinstance(value, list | dict))
)
def test_json_lists_and_objects_keep_their_value(value):
    try:
        assert parsed(json.dumps(value, allow_nan=False)).value == value
    except ValueError:  # an infinite float is no JSON
        return
    except ContractError:  # half of a surrogate pair
        return
