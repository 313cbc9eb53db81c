"""``byoc build``: both images, their sizes layer by layer, and the budget."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from byoc import engine as engines
from byoc.errors import BudgetError
from byoc.images import KINDS, LANES, BuildOptions, build

if TYPE_CHECKING:
    from byoc.buildkit import Progress
    from byoc.images import BuiltImage, Kind

#: Variables that commonly name the CA bundle of a private network, in this order.
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def default_ca_bundle() -> Path | None:
    """The CA bundle that this shell's programs use, when a variable names one that exists."""
    named = (os.environ.get(name) for name in CA_VARIABLES)
    return next((Path(name) for name in named if name and Path(name).is_file()), None)


@click.command("build")
@click.option("--only", type=click.Choice(KINDS), help="Build one image instead of both.")
@click.option(
    "--lane",
    type=click.Choice(list(LANES)),
    default="cu128",
    show_default=True,
    help="CUDA release: cu128 (driver 525 or newer) or cu130 (driver 580 or newer).",
)
@click.option(
    "--base-image",
    envvar="BYOC_BASE_IMAGE",
    show_envvar=True,
    help="Debian or Ubuntu image to build on, in place of the lane's nvidia/cuda base.",
)
@click.option("--tag", help="Tag, in place of the git revision.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--network", help="Network of the build steps, e.g. host.")
@click.option(
    "--ca-bundle",
    type=click.Path(path_type=Path),
    help=f"CA certificates for the package index; default: {' or '.join(CA_VARIABLES[:2])}.",
)
@click.option(
    "--pip-config",
    type=click.Path(path_type=Path),
    help="A pip.conf that names the package index to install from.",
)
@click.option("--keep-triton", is_flag=True, help="Keep Triton in the inference image (+0.8 GB).")
@click.option("--compressed", is_flag=True, help="Also measure the sizes in a registry (minutes).")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "quiet"]),
    default="auto",
    show_default=True,
    help="How the build is shown.",
)
def command(  # noqa: PLR0913 - a command has as many arguments as options
    *,
    only: str | None,
    lane: str,
    base_image: str | None,
    tag: str | None,
    no_cache: bool,
    network: str | None,
    ca_bundle: Path | None,
    pip_config: Path | None,
    keep_triton: bool,
    compressed: bool,
    progress: str,
) -> None:
    """Build the training and the inference image from this repository.

    Prints what each layer weighs and fails when an image is above its budget.
    """
    engine = engines.find()
    click.echo(f"building with {engine}")
    options = BuildOptions(
        kinds=(cast("Kind", only),) if only else KINDS,
        lane=lane,
        base_image=base_image or None,
        tag=tag,
        no_cache=no_cache,
        network=network,
        ca_bundle=ca_bundle or default_ca_bundle(),
        pip_config=pip_config,
        keep_triton=keep_triton,
        progress=cast("Progress", progress),
        compressed=compressed,
    )
    images = build(options, engine)
    excess: list[str] = []
    for image in images:
        click.echo("\n" + "\n".join(report(image)))
        try:
            image.check_budget()
        except BudgetError as error:
            excess.append(str(error))
    if excess:
        raise BudgetError("; ".join(excess))


def report(image: BuiltImage) -> list[str]:
    """The lines that say what an image weighs."""
    measured = image.compressed_bytes is not None
    lines = [f"{image.tags[0]}  built in {image.build_seconds:.0f} s"]
    lines.append(
        f"{'bytes':>15}  {'compressed':>14}  layer" if measured else f"{'bytes':>15}  layer"
    )
    for layer in image.layers:
        packed = f"  {layer.compressed_bytes:>14,}" if measured else ""
        lines.append(f"{layer.size_bytes:>15,}{packed}  {_short(layer.instruction)}")
    total = f"  {image.compressed_bytes:>14,}" if measured else ""
    lines.append(f"{image.size_bytes:>15,}{total}  in all")
    if image.budget_bytes is not None:
        lines.append(
            f"{image.added_bytes:>15,}  on top of the base image, "
            f"{image.added_bytes / image.budget_bytes:.1%} of the budget of "
            f"{image.budget_bytes:,}"
        )
    lines += [f"  {name}" for name in image.tags]
    return lines


def _short(instruction: str, width: int = 84) -> str:
    return instruction if len(instruction) <= width else f"{instruction[: width - 3]}..."
