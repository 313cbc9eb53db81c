"""SageMaker on this machine, for as long as the story lasts."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from examples.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def sagemaker(home: Path, runner: str) -> Iterator[dict[str, str]]:
    """Start ``byoc local`` as a shell does; stop it, and all that it runs, in any case.

    Args:
        home: The folder for its state.
        runner: ``process`` or ``docker``, see ``byoc local up --help``.

    Returns:
        The variables that point every AWS client at it.

    Raises:
        DemoError: It does not start.
    """
    try:
        started = _byoc(home, "up", "--detach", "--runner", runner)
        if started.returncode != 0:
            words = started.stderr.strip().removeprefix("byoc: ")
            raise DemoError(words or "byoc local up failed", f"its folder is {home}")
        exported = shlex.split(started.stdout)  # export NAME=VALUE, as a shell reads it
        yield dict(word.split("=", 1) for word in exported if word != "export")
    finally:
        _byoc(home, "down")


def _byoc(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Nothing of a surrounding AWS session, such as a profile, may reach the endpoint.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "byoc.main", "local", *words],
        env={**kept, "BYOC_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,  # Ctrl-C ends the story, and the story ends the endpoint
        text=True,
        check=False,
    )
