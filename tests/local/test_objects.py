"""Buckets and objects: kept on the disk, whatever happens to the endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from byoc.repositories import lifecycle_policy
from tests.local.conftest import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "kept"
PART = 5 * 2**20
KEYS = ["plain", "a/b/c", "with space+plus%25", "ünï", "../up", ".hidden", "dot/./.", "k" * 1000]


def again(endpoint: Endpoint) -> None:
    endpoint.kill()
    endpoint.start()


def test_objects_survive_a_kill_with_their_names_types_and_metadata(own_endpoint):
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for key in KEYS:
        s3.put_object(
            Bucket=BUCKET,
            Key=key,
            Body=key.encode(),
            ContentType="text/csv",
            Metadata={"owner": "me"},
        )
    s3.put_object(Bucket=BUCKET, Key="gone", Body=b"x")
    s3.put_object(Bucket=BUCKET, Key="gone as well", Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key="gone")
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "gone as well"}]})
    s3.create_bucket(Bucket="removed")
    s3.delete_bucket(Bucket="removed")
    before = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    again(own_endpoint)
    s3 = own_endpoint.client("s3")
    found = {one["Key"]: one for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert set(found) == set(KEYS)
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == [BUCKET]
    for one in before:
        key = one["Key"]
        assert found[key]["ETag"] == one["ETag"]
        answer = s3.get_object(Bucket=BUCKET, Key=key)
        assert answer["Body"].read() == key.encode()
        assert answer["ContentType"] == "text/csv"
        assert answer["Metadata"] == {"owner": "me"}


def test_a_copy_and_an_upload_in_parts_survive_with_what_was_said_of_them(own_endpoint):
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="one", Body=b"1", Metadata={"of": "one"})
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/one")
    s3.copy_object(
        Bucket=BUCKET,
        Key="renamed",
        CopySource=f"{BUCKET}/one",
        MetadataDirective="REPLACE",
        Metadata={"of": "another"},
    )
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", Metadata={"of": "parts"})
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(
                Bucket=BUCKET,
                Key="parts",
                UploadId=made["UploadId"],
                PartNumber=number,
                Body=bytes([number]) * PART,
            )["ETag"],
        }
        for number in (1, 2)
    ]
    s3.complete_multipart_upload(
        Bucket=BUCKET, Key="parts", UploadId=made["UploadId"], MultipartUpload={"Parts": parts}
    )
    tag = s3.head_object(Bucket=BUCKET, Key="parts")["ETag"]
    again(own_endpoint)
    s3 = own_endpoint.client("s3")
    kept = {
        key: s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]
        for key in ("one", "copy", "renamed", "parts")
    }
    assert kept == {
        "one": {"of": "one"},
        "copy": {"of": "one"},
        "renamed": {"of": "another"},
        "parts": {"of": "parts"},
    }
    answer = s3.get_object(Bucket=BUCKET, Key="parts")
    assert answer["ETag"] == tag
    assert answer["Body"].read() == b"\1" * PART + b"\2" * PART


def test_times_storage_classes_and_tags_survive_a_kill(own_endpoint):
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(
        Bucket=BUCKET, Key="put", Body=b"1", Tagging="a=1&b=2", StorageClass="STANDARD_IA"
    )
    s3.put_object(Bucket=BUCKET, Key="tagged", Body=b"2")
    s3.put_object(Bucket=BUCKET, Key="bare", Body=b"3", Tagging="a=1")
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/bare")

    def facts() -> dict[str, tuple[Any, Any, Any]]:
        s3 = own_endpoint.client("s3")
        return {
            one["Key"]: (
                one["LastModified"],
                one["StorageClass"],
                {
                    tag["Key"]: tag["Value"]
                    for tag in s3.get_object_tagging(Bucket=BUCKET, Key=one["Key"])["TagSet"]
                },
            )
            for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        }

    # In a start of its own: a change of tags alone is written too.
    again(own_endpoint)
    s3 = own_endpoint.client("s3")
    tags = {"TagSet": [{"Key": "later", "Value": "x"}]}
    s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging=tags)
    s3.delete_object_tagging(Bucket=BUCKET, Key="bare")
    before = facts()
    time.sleep(1.1)  # times of S3 are whole seconds
    again(own_endpoint)
    assert facts() == before
    assert {key: found[1:] for key, found in before.items()} == {
        "put": ("STANDARD_IA", {"a": "1", "b": "2"}),
        "tagged": ("STANDARD", {"later": "x"}),
        "bare": ("STANDARD", {}),
        "copy": ("STANDARD", {"a": "1"}),
    }


def test_objects_of_an_earlier_version_have_the_time_of_their_files(own_endpoint):
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="old", Body=b"1")
    own_endpoint.kill()
    (beside,) = (own_endpoint.home / "objects" / BUCKET).glob(".old-*.json")
    known = json.loads(beside.read_text())
    for name in ("modified", "storage", "tags"):
        del known[name]
    beside.write_text(json.dumps(known))
    os.utime(beside.parent / known["file"], (1e9, 1e9))
    own_endpoint.start()
    found = own_endpoint.client("s3").head_object(Bucket=BUCKET, Key="old")
    assert found["LastModified"].timestamp() == 1e9


def test_repositories_survive_a_kill(own_endpoint):
    own_endpoint.start()
    ecr = own_endpoint.client("ecr")
    ecr.create_repository(
        repositoryName="mine/one",
        imageTagMutability="IMMUTABLE",
        imageScanningConfiguration={"scanOnPush": True},
    )
    ecr.create_repository(repositoryName="changed", imageTagMutability="IMMUTABLE")
    ecr.create_repository(repositoryName="gone")
    again(own_endpoint)
    ecr = own_endpoint.client("ecr")
    ecr.put_image_tag_mutability(repositoryName="changed", imageTagMutability="MUTABLE")
    scan = {"scanOnPush": True}
    ecr.put_image_scanning_configuration(repositoryName="changed", imageScanningConfiguration=scan)
    policy = json.dumps(lifecycle_policy())
    ecr.put_lifecycle_policy(repositoryName="changed", lifecyclePolicyText=policy)
    ecr.delete_repository(repositoryName="gone")
    before = ecr.describe_repositories()["repositories"]
    again(own_endpoint)
    ecr = own_endpoint.client("ecr")
    assert ecr.describe_repositories()["repositories"] == before
    assert {
        one["repositoryName"]: (
            one["imageTagMutability"],
            one["imageScanningConfiguration"]["scanOnPush"],
        )
        for one in before
    } == {"mine/one": ("IMMUTABLE", True), "changed": ("MUTABLE", True)}
    kept = ecr.get_lifecycle_policy(repositoryName="changed")["lifecyclePolicyText"]
    assert json.loads(kept) == json.loads(policy)
    with pytest.raises(ecr.exceptions.RepositoryAlreadyExistsException):
        ecr.create_repository(repositoryName="mine/one")


def test_what_a_kill_left_half_made_is_passed_over(own_endpoint):
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="whole", Body=b"whole")
    s3.put_object(Bucket=BUCKET, Key="halved", Body=b"x")
    own_endpoint.kill()
    objects = own_endpoint.home / "objects"
    (objects / "half-made-bucket").mkdir()
    (objects / BUCKET / ".part-abc").write_bytes(b"begun")
    (objects / BUCKET / "no-facts").write_bytes(b"its facts were not written yet")
    (halved,) = (objects / BUCKET).glob("halved-*")
    halved.unlink()
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == [BUCKET]
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["whole"]
    s3.create_bucket(Bucket="half-made-bucket")
    s3.put_object(Bucket="half-made-bucket", Key="now", Body=b"x")
    again(own_endpoint)
    s3 = own_endpoint.client("s3")
    assert s3.get_object(Bucket="half-made-bucket", Key="now")["Body"].read() == b"x"


def test_many_clients_put_and_delete_at_once_and_the_disk_says_the_same(own_endpoint):
    own_endpoint.start()
    s3 = own_endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)

    def work(number: int) -> None:
        key = f"key-{number % 7}"
        s3.put_object(Bucket=BUCKET, Key=key, Body=str(number).encode())
        if number % 5 == 0:
            s3.delete_object(Bucket=BUCKET, Key=key)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(140)))

    def content() -> dict[str, bytes]:
        s3 = own_endpoint.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {
            one["Key"]: s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
            for one in listed
        }

    before = content()
    again(own_endpoint)
    assert content() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_was_stored_before_stays(small_disk):
    endpoint = Endpoint(small_disk / "home")
    endpoint.start()
    try:
        s3 = endpoint.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="before", Body=b"kept")
        with pytest.raises(ClientError) as told:
            s3.put_object(Bucket=BUCKET, Key="large", Body=bytes(16 * 2**20))
        assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert told.value.response["Error"]["Code"] == "InternalError"
        assert "No space left" in told.value.response["Error"]["Message"]
        s3.put_object(Bucket=BUCKET, Key="after", Body=b"small")
        again(endpoint)
        s3 = endpoint.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        assert [one["Key"] for one in listed] == ["after", "before"]
    finally:
        endpoint.stop()
