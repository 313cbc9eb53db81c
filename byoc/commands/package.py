"""``byoc package``: a folder as ``model.tar.gz``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from byoc.packaging import pack


@click.command("package")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument(
    "archive",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("model.tar.gz"),
    required=False,
)
@click.option(
    "--code",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Put it into the archive as code/: inference.py and others.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def command(*, folder: Path, archive: Path, code: Path | None, as_json: bool) -> None:
    """Pack FOLDER as ARCHIVE (model.tar.gz), in the form that SageMaker takes.

    Links and special files are refused, as SageMaker would refuse them when it deploys; the same
    files give the same bytes.

    \b
      byoc package model
      byoc package model digits.tar.gz --code examples/mnist
    """  # noqa: D301 - click's mark
    size = pack(folder, archive, code=code)
    if as_json:
        click.echo(json.dumps({"archive": str(archive), "bytes": size}))
    else:
        click.echo(f"{archive}  {size / 1e6:.1f} MB")
        click.echo(f"serve it: byoc deploy --model-data {archive}")
