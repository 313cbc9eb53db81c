"""The command line of ``serve``; the platform gives it no arguments at all."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from byoc_serving.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Arguments:
    """What was asked for.

    Attributes:
        check: load the model, try a sample, end.
        sample: the file to try; None: the one beside the model.
        content_type: its type; None: by its name.
        accept: the type to answer in; "": the default.
        as_json: report the check as one line of JSON.
    """

    check: bool = False
    sample: Path | None = None
    content_type: str | None = None
    accept: str = ""
    as_json: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see serve --help")


def parse(words: Sequence[str]) -> Arguments:
    """Read the arguments behind the command's name.

    An image whose entry point is ``serve`` is started as ``serve serve``: the word may be given.

    Raises:
        UsageError: an unknown argument, or one without its value.
        SystemExit: after ``--help`` and ``--version``.
    """
    parser = _Parser(
        prog="serve",
        description="Serve the model below /opt/ml/model: GET /ping and POST /invocations.",
        epilog="Settings come from the environment; the README lists them. "
        "Exit codes: 0 done, 1 the sample failed, 2 bad arguments or settings, 3 no model.",
        allow_abbrev=False,
    )
    parser.add_argument("command", nargs="?", choices=["serve"], help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument(
        "--check", action="store_true", help="load the model, try a sample, and end; opens no port"
    )
    group = parser.add_argument_group("with --check")
    group.add_argument(
        "--sample", type=Path, metavar="FILE", help="a request's body (default: code/sample.*)"
    )
    group.add_argument("--content-type", metavar="TYPE", help="its type (default: by its name)")
    group.add_argument("--accept", metavar="TYPE", default="", help="the type to answer in")
    group.add_argument(
        "--json", dest="as_json", action="store_true", help="report as one line of JSON"
    )
    found = parser.parse_args(words)
    if not found.check and (found.sample or found.content_type or found.accept or found.as_json):
        parser.error("--sample, --content-type, --accept and --json belong to --check")
    return Arguments(found.check, found.sample, found.content_type, found.accept, found.as_json)


def _version() -> str:
    try:
        return f"serve {metadata.version('sagemaker-byoc')}"
    except metadata.PackageNotFoundError:
        return "serve (not installed as a package)"
