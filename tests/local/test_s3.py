"""Objects read slowly: a connection that is cut is taken up where it broke."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from botocore.exceptions import IncompleteReadError, ResponseStreamingError

from byoc.local import s3

CONTENT = bytes(range(256)) * 40


class Cut:
    """A client whose connections are cut after so many bytes.

    Args:
        most: Bytes that a connection lasts.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[dict[str, str]] = []

    def get_object(self, *, Bucket: str, Key: str, **more: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        self.asked.append(more)
        begin = int(more.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.rest = CONTENT[begin:]
        return {"Body": self, "ETag": '"tag"'}

    def iter_chunks(self, _: int):
        yield from (self.rest[n : n + 100] for n in range(0, min(self.most, len(self.rest)), 100))
        if self.most < len(self.rest):
            raise IncompleteReadError(actual_bytes=self.most, expected_bytes=len(self.rest))


def test_an_object_is_read_on_where_the_connection_was_cut():
    client = Cut(3000)
    assert b"".join(s3.stream(client, s3.Item("b", "k", "k"))) == CONTENT
    assert client.asked == [
        {},
        *({"Range": f"bytes={n}-", "IfMatch": '"tag"'} for n in (3000, 6000, 9000)),
    ]


def test_a_connection_that_brings_nothing_is_an_error():
    client = Cut(0)
    with pytest.raises(s3.S3Error, match="s3://b/k cannot be read"):
        list(s3.stream(client, s3.Item("b", "k", "k")))
    assert len(client.asked) == 2


def test_a_server_that_is_gone_is_an_error():
    class Gone(Cut):
        def get_object(self, **more: str) -> NoReturn:
            raise ResponseStreamingError(error="gone")

    with pytest.raises(s3.S3Error, match="gone"):
        list(s3.stream(Gone(0), s3.Item("b", "k", "k")))
