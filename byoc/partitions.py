"""AWS's partitions: what registries and resource names end and begin with (contract section 15)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from byoc.errors import SettingsError

_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d+")
#: The name of an image in ECR; its parts are the groups.
ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z0-9.-]+)"
    r"/(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: The second part of its ARNs.
        suffix: What its hosts' names end with.
    """

    name: str
    suffix: str


#: By what the names of a partition's regions begin with; the longest that fits holds.
PARTITIONS = {
    "": Partition("aws", "amazonaws.com"),
    "cn-": Partition("aws-cn", "amazonaws.com.cn"),
    "us-gov-": Partition("aws-us-gov", "amazonaws.com"),
    "eusc-": Partition("aws-eusc", "amazonaws.eu"),
    "us-iso-": Partition("aws-iso", "c2s.ic.gov"),
    "us-isob-": Partition("aws-iso-b", "sc2s.sgov.gov"),
    "eu-isoe-": Partition("aws-iso-e", "cloud.adc-e.uk"),
    "us-isof-": Partition("aws-iso-f", "csp.hci.ic.gov"),
    "eu-isof-": Partition("aws-iso-f", "csp.hci.ic.gov"),
}


def partition(region: str) -> Partition:
    """The partition that a region is in.

    Raises:
        SettingsError: That is no name of a region.
    """
    if not _REGION.fullmatch(region):
        raise SettingsError(f"{region!r} is no region; expected one such as eu-central-1")
    found = max((start for start in PARTITIONS if region.startswith(start)), key=len)
    return PARTITIONS[found]


def registry(account: str, region: str) -> str:
    """The host of an account's registry in a region."""
    return f"{account}.dkr.ecr.{region}.{partition(region).suffix}"


def image_uri(name: str, account: str, region: str) -> str:
    """The full name of an image: one without a registry's host is in the account's own.

    Args:
        name: ``repository``, ``repository:tag``, ``repository@sha256:…`` or a full name.
        account: Twelve digits.
        region: Of the registry, and so of the job.
    """
    if image_name(name).host:
        return name
    if ":" not in name and "@" not in name:
        name += ":latest"
    return f"{registry(account, region)}/{name}"


class ImageName(NamedTuple):
    """The parts of an image's name; empty where it has none."""

    host: str
    repository: str
    tag: str
    digest: str


def image_name(name: str) -> ImageName:
    """Take an image's name apart as Docker does.

    A host is what stands before the first slash and could not be a part of a repository; a tag is
    what stands behind the last slash's colon, as a colon before it begins a port.
    """
    name, _, digest = name.partition("@")
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = path + slash + last
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return ImageName(first, rest, tag, digest)
    return ImageName("", repository, tag, digest)
