"""Packages that the submitted source asks for: requirements.txt, and the source as a package."""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

from byoc_training import cause
from byoc_training.errors import Interrupted, UnavailableError
from byoc_training.launch import Launcher, Plan
from byoc_training.program import Kind, Program
from byoc_training.supervise import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from byoc_training.console import Console
    from byoc_training.signals import StopSignals

REQUIREMENTS = "requirements.txt"
#: pip's own error lines and those of a build that it runs, but not its names for their kinds.
_ERROR = re.compile(r"\s*error: (?!subprocess-exited|metadata-generation)(.+)", re.IGNORECASE)
_RAISED = re.compile(r"\s*((?:\w+\.)*\w*(?:Error|Exception): .+)")
#: pip leaves nothing half installed that anybody would use, so it need not be waited for long.
STOP_GRACE_SECONDS = 5.0
#: pip's own settings, each overridden by the job's variables. Its defaults wait minutes for an
#: index that cannot be reached, which is the normal case with network isolation.
PIP_VARIABLES: Mapping[str, str] = {
    "PIP_RETRIES": "2",
    "PIP_DEFAULT_TIMEOUT": "10",
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_PROGRESS_BAR": "off",
    "PIP_NO_COLOR": "1",
}


def install(
    program: Program, environ: Mapping[str, str], stops: StopSignals, console: Console
) -> None:
    """Install what the source asks for, with the interpreter that runs it.

    A package is installed itself, with its requirements. Requirements that are met already are
    found out here, without pip and without a network.

    Raises:
        UnavailableError: pip failed; carries its last error line.
        Interrupted: A stop signal came meanwhile.
    """
    if not program.user_source:
        return
    arguments: list[str] = []
    path = program.directory / REQUIREMENTS
    if path.is_file() and not _met(path, console):
        arguments += ["-r", REQUIREMENTS]
    if program.kind is Kind.PACKAGE:
        arguments.append(".")
    if not arguments:
        return
    what = " and ".join("the package" if one == "." else one for one in arguments if one != "-r")
    console.info(f"installing {what} with pip")
    if environ.get("CA_REPOSITORY_ARN"):
        console.warning(
            "CA_REPOSITORY_ARN is not understood here; give pip the repository in PIP_INDEX_URL"
        )
    plan = Plan(
        launcher=Launcher.DIRECT,
        command=(sys.executable, "-m", "pip", "install", *arguments),
        directory=program.directory,
        variables={name: v for name, v in PIP_VARIABLES.items() if name not in environ},
        label="pip",
    )
    outcome = run(plan, environ, stops, STOP_GRACE_SECONDS, console)
    if outcome.stopped_by is not None:
        raise Interrupted(outcome.stopped_by)
    stops.raise_again()
    if outcome.code:
        raise UnavailableError(
            f"pip could not install {what} (exit code {outcome.code}): {_reason(outcome.stderr)}"
        )


def _reason(stderr: bytes) -> str:
    """Pip's last error line, before its advice."""
    lines = [text for _, text in cause.clean_lines(stderr) if text.strip()]
    if any(line.endswith("ERROR: Exception:") for line in lines):
        return cause.find(stderr).text.split("\n", 1)[0]  # pip itself fell over a line
    errors = [found[1] for line in lines if (found := _ERROR.match(line))]
    raised = [found[1] for line in lines if (found := _RAISED.match(line))]
    return (errors or raised or lines or ["no error output"])[-1].strip()


def _met(path: Path, console: Console) -> bool:
    """Whether every line is a plain requirement that the environment meets.

    Lines with options, URLs or extras are pip's business, and so is everything when no parser
    of requirements is installed.
    """
    parser = _parser()
    if parser is None:
        return False
    from importlib import metadata  # noqa: PLC0415 - 20 ms, only for sources with requirements

    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return False
    for raw in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        try:
            wanted = parser.Requirement(line)
            if wanted.marker is not None and not wanted.marker.evaluate():
                continue
            if wanted.url or wanted.extras:
                return False
            if not wanted.specifier.contains(metadata.version(wanted.name), prereleases=True):
                return False
        except (ValueError, TypeError, metadata.PackageNotFoundError):
            # Malformed in one of many ways, unknown, or with broken metadata.
            return False
    console.info(f"{path.name}: everything is installed already")
    return True


def _parser() -> Any | None:
    """The standard parser: the library packaging, or pip's own copy of it."""
    for name in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            return importlib.import_module(name)
        except ImportError:  # noqa: PERF203 - two names
            continue
    return None
