from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoc_serving.errors import NotAcceptableError
from byoc_serving.negotiation import choose, media_type, preferred

TYPES = ("application/json", "text/csv", "application/x-npy")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.6", "application/json"),
        ("application/*, text/csv;q=0.9", "application/json"),
        ("application/json;q=0, */*", "text/csv"),
        ("TEXT/CSV ; Q=1.0", "text/csv"),
        ("text/csv;q=high", "text/csv"),
        ("text/csv;q=nan", "text/csv"),
        # strip takes this character for a space, float does not.
        ("text/csv;q=\x1d0.9, application/json;q=0.5", "text/csv"),
        (",,text/csv,", "text/csv"),
    ],
)
def test_closest_range_and_highest_weight_win(accept, chosen):
    assert choose(accept, TYPES, "application/json") == chosen


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "application/json;q=0"])
def test_nothing_acceptable_is_refused_with_the_choice(accept):
    with pytest.raises(NotAcceptableError, match="text/csv"):
        choose(accept, TYPES[:2] if accept != "application/json;q=0" else TYPES, "application/json")


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_header_gives_a_type_or_a_refusal(accept):
    with contextlib.suppress(NotAcceptableError):
        assert choose(accept, TYPES, "application/json") in TYPES


@pytest.mark.parametrize(
    ("accept", "handed"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/x-own", "application/x-own"),
        ("a/b;q=0.1, c/d", "c/d"),
        ("a/b;q=0.1, */*", "application/json"),
    ],
)
def test_output_fn_is_handed_the_best_liked_concrete_type(accept, handed):
    assert preferred(accept, "application/json") == handed


def test_parameters_case_and_aliases_do_not_matter():
    assert media_type("Application/JSON; charset=utf-8") == "application/json"
    assert media_type("application/x-ndjson") == "application/jsonlines"
