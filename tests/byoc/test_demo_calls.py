"""The calls of the demo, against a stand-in for AWS in any region."""

from __future__ import annotations

import pytest

from byoc.local import exports
from examples.demo.calls import Calls


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_channel_is_uploaded_in_any_region(moto, tmp_path, region):
    (tmp_path / "channel").mkdir()
    (tmp_path / "channel/digits").write_text("x")
    calls = Calls(exports.variables(moto, region))
    assert calls.upload(tmp_path / "channel") == f"s3://sagemaker-{region}-123456789012/digits"
    found = calls.s3.list_objects_v2(Bucket=calls.bucket)["Contents"]
    assert [one["Key"] for one in found] == ["digits/digits"]
