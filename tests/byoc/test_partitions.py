"""Registries of every partition."""

from __future__ import annotations

import pytest

from byoc.errors import SettingsError
from byoc.partitions import ECR, image_uri, partition


@pytest.mark.contract(101)
@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "111122223333.dkr.ecr.eu-central-1.amazonaws.com"),
        ("cn-north-1", "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "111122223333.dkr.ecr.us-gov-west-1.amazonaws.com"),
    ],
)
def test_short_names_are_in_the_account_s_registry(region, host):
    assert image_uri("mine", "111122223333", region) == f"{host}/mine:latest"
    assert image_uri("team/mine:7", "111122223333", region) == f"{host}/team/mine:7"
    uri = image_uri(f"mine@sha256:{'0' * 64}", "111122223333", region)
    found = ECR.fullmatch(uri)
    assert found
    assert (found["account"], found["region"], found["repository"], found["tag"]) == (
        "111122223333", region, "mine", None,
    )  # fmt: skip


def test_full_names_stay():
    for name in ("registry.example.com/a:1", "localhost:5000/a", "localhost/a:1"):
        assert image_uri(name, "111122223333", "eu-central-1") == name


def test_partitions_are_those_of_botocore():
    import boto3

    session = boto3.Session()
    for name in session.get_available_partitions():
        for region in session.get_available_regions("sagemaker", name):
            assert partition(region).name == name


def test_suffixes_are_those_of_botocore():
    from botocore.loaders import Loader

    for one in Loader().load_data("partitions")["partitions"]:
        for region in one["regions"]:
            if not region.endswith("-global"):
                assert partition(region).suffix == one["outputs"]["dnsSuffix"], region


@pytest.mark.parametrize("region", ["", "eu", "EU-central-1", "eu-central-1.evil.example"])
def test_what_is_no_region_is_refused(region):
    with pytest.raises(SettingsError, match="is no region"):
        partition(region)
