"""Every list of boto3's paginators is paged to its end."""

import json
from typing import Any

import pytest

from byoc.local.kinds import KINDS
from tests.clients.inside import (
    Inside,
)
from tests.local.conftest import REGION
from tests.local.hosted import ACTIONS

LISTS = {
    "list_training_jobs": ("training-job", "TrainingJobSummaries", ("Completed", "Failed")),
    "list_processing_jobs": ("processing-job", "ProcessingJobSummaries", ("Completed", "Failed")),
    "list_transform_jobs": ("transform-job", "TransformJobSummaries", ("Completed", "Stopped")),
    "list_endpoints": ("endpoint", "Endpoints", ("InService", "Failed")),
    "list_endpoint_configs": ("endpoint-config", "EndpointConfigs", ()),
    "list_models": ("model", "Models", ()),
}
COUNT = 23


@pytest.fixture(scope="module")
def filled(inside: Inside) -> Inside:
    """Resources of every kind, an order of names that is not that of their making."""
    for kind, _, states in LISTS.values():
        (words,) = [one for one in KINDS if one.store == kind]
        state = words.name.replace("Name", "Status")
        for number in range(COUNT):
            name = f"page-{(number * 7) % COUNT:02}-{'odd' if number % 2 else 'even'}"
            document = {words.name: name}
            if states:
                document[state] = states[number % 3 == 0]
            if kind == "training-job":
                document["SecondaryStatus"] = document[state]
            inside.keep(kind, **document)
    return inside


def test_every_list_is_paged_here():
    import botocore.session

    model: Any = botocore.session.Session().get_paginator_model("sagemaker")
    asked = {name for name in model._paginator_config if name in ACTIONS}
    lists = {"".join(part.title() for part in name.split("_")) for name in LISTS}
    assert asked == {*lists, "ListTags"}


@pytest.mark.parametrize("paginator", LISTS)
def test_a_list_is_paged_to_its_end_filtered_and_sorted(filled, paginator):
    kind, member, states = LISTS[paginator]
    (words,) = [one for one in KINDS if one.store == kind]
    made = [one for one in filled.store.all(kind) if one[words.name].startswith("page-")]
    client = filled.sagemaker

    def names(**filters: Any) -> list[str]:
        filters = {"NameContains": "page-", "MaxResults": 5, **filters}
        pages = [*client.get_paginator(paginator).paginate(**filters)]
        sizes = [len(page[member]) for page in pages]
        assert all(size == filters["MaxResults"] for size in sizes[:-1]), sizes
        assert [("NextToken" in page) for page in pages] == [True] * (len(pages) - 1) + [False]
        return [one[words.name] for page in pages for one in page[member]]

    by_time = [one[words.name] for one in made]
    by_name = sorted(by_time)
    assert len(by_time) == COUNT
    assert names() == by_time[::-1]  # the newest first
    assert names(SortBy="CreationTime", SortOrder="Ascending") == by_time
    assert names(SortBy="Name", SortOrder="Ascending") == by_name
    assert names(SortBy="Name", SortOrder="Descending", MaxResults=100) == by_name[::-1]
    assert names(NameContains="ODD", SortBy="Name", SortOrder="Ascending") == [
        name for name in by_name if name.endswith("odd")
    ]
    middle = made[COUNT // 2]["CreationTime"]
    after, before = names(CreationTimeAfter=middle), names(CreationTimeBefore=middle)
    # boto3 sends whole milliseconds, so what was made in the same one is on either side.
    assert set(by_time[COUNT // 2 + 3 :]) <= set(after)
    assert set(by_time[: COUNT // 2 - 3]) <= set(before)
    assert set(after) & set(before) <= set(by_time[COUNT // 2 - 3 : COUNT // 2 + 3])
    if states:
        state = words.name.replace("Name", "Status")
        for one in states:
            found = [document[words.name] for document in made if document[state] == one]
            assert names(StatusEquals=one) == found[::-1]
        by_state = names(SortBy="Status", SortOrder="Ascending")
        order = {document[words.name]: document[state] for document in made}
        assert [order[name] for name in by_state] == sorted(order.values())
    for wrong in ("x", "bm9uZQ==", json.dumps({})):
        told = filled.error(getattr(client, paginator), NextToken=wrong)
        assert told["Code"] == "ValidationException"


def test_tags_are_one_page_since_a_resource_has_at_most_fifty(inside):
    inside.keep("model", ModelName="tagged")
    arn = f"arn:aws:sagemaker:{REGION}:123456789012:model/tagged"
    tags = [{"Key": f"key-{number}", "Value": str(number)} for number in range(50)]
    inside.sagemaker.add_tags(ResourceArn=arn, Tags=tags)
    pages = [*inside.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn, MaxResults=50)]
    assert [page["Tags"] for page in pages] == [tags]
    told = inside.error(inside.sagemaker.list_tags, ResourceArn=arn, NextToken="x")
    assert told["Code"] == "ValidationException"
    more = {"Key": "one more", "Value": ""}
    told = inside.error(inside.sagemaker.add_tags, ResourceArn=arn, Tags=[more])
    assert told["Code"] == "ValidationException"
