"""``byoc push``: images to ECR, and a look at what has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from byoc import pushing
from byoc.commands.options import aws_command
from byoc.errors import SettingsError
from byoc.lanes import KINDS, LANES
from byoc.lanes import tags as names_of
from byoc.partitions import image_name

if TYPE_CHECKING:
    from byoc.commands.options import Call


@click.command("push")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option(
    "--lane",
    type=click.Choice([*LANES]),
    default="cu128",
    show_default=True,
    help="Of the two images, where none is named.",
)
@click.option("--repository", metavar="NAME", help="In ECR. Default: the image's own name.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="In ECR; again for each. Default: those that it has in the engine.",
)
@click.option(
    "--immutable",
    is_flag=True,
    help="Make repositories whose tags can be given once; no tag latest then.",
)
@aws_command()
def command(
    call: Call,
    *,
    images: tuple[str, ...],
    lane: str,
    repository: str | None,
    tags: tuple[str, ...],
    immutable: bool,
) -> None:
    """Push images to ECR: both of this repository, or those named.

    Makes the repository if it is missing (scan on push, a rule that removes untagged images after
    a month), signs in, pushes, and reads the manifest back: SageMaker takes Docker's schema 2 with
    gzip layers for linux/amd64 alone. Prints the image_uri of each.

    \b
      byoc push
      byoc push my-image:1.0 --immutable
      byoc push sagemaker-byoc-training:latest --tag v7 --json
    """  # noqa: D301 - click's mark
    if repository and len(images) != 1:
        raise SettingsError("--repository goes with one IMAGE")
    wanted = [(image, [*tags]) for image in images] or [
        (image, [*tags] or _usual_tags(image, immutable=immutable)) for image in _both(lane)
    ]
    pushed: list[pushing.Pushed] = []
    for image, chosen in wanted:
        pushed += pushing.push(
            call.aws, image, repository=repository, tags=chosen, immutable=immutable,
            report=call.console,
        )  # fmt: skip
    if call.dry_run:
        return
    if call.console.machine:
        call.console.result([{"image_uri": one.image_uri, "digest": one.digest} for one in pushed])
        return
    for one in pushed:
        print(f"image_uri {one.image_uri}" + (f"\n          @{one.digest}" if one.digest else ""))


def _both(lane: str) -> list[str]:
    return [names_of(kind, lane, "latest")[1] for kind in KINDS]


def _usual_tags(image: str, *, immutable: bool) -> list[str]:
    """The tags that the engine has; a tag that moves on with each build only where it may."""
    found = pushing.tags_of(image)
    kept = [tag for tag in found if not (immutable and tag == image_name(image).tag)]
    if not kept:
        raise SettingsError(f"{image} has no other tag, and an immutable one is not to be moved; "
                            "give --tag")  # fmt: skip
    return kept
