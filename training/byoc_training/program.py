"""Which program a job runs, and where its source is."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_training import source as source_module
from byoc_training.errors import ProgramNotFoundError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc_training.console import Console
    from byoc_training.environment import Environment


class Kind(enum.Enum):
    """How a program is started."""

    SCRIPT = "Python script"
    PACKAGE = "Python package"
    COMMAND = "command"


@dataclass(frozen=True)
class Program:
    """The user's program.

    Attributes:
        name: As the job names it, relative to the source.
        directory: Its working directory, first on ``PYTHONPATH``.
        kind: How to start it.
        interpreter: What runs a command: the words of its ``#!`` line, ``/bin/sh`` for other
            text, nothing for a binary.
        module_dir: Where the source came from, for ``SM_MODULE_DIR``.
        user_source: Whether it came with the job; requirements.txt counts only then.
    """

    name: str
    directory: Path
    kind: Kind
    interpreter: tuple[str, ...] = ()
    module_dir: str = ""
    user_source: bool = True

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.directory / self.name


def resolve(
    environment: Environment, environ: Mapping[str, str], example: Path | None, console: Console
) -> Program:
    """Find the program, bringing its source if need be.

    The name: ``SAGEMAKER_PROGRAM``, else the hyperparameter ``sagemaker_program``, else the
    image's own example. The source: ``<root>/code`` when something is in it, else the
    hyperparameter ``sagemaker_submit_directory``, else the variable
    ``SAGEMAKER_SUBMIT_DIRECTORY``, else the channel ``code``.

    Raises:
        ProgramNotFoundError: No program is named, or it is not there.
        SourceError: The source cannot be had or the program cannot run.
    """
    name = environ.get("SAGEMAKER_PROGRAM") or environment.reserved_text("sagemaker_program")
    if name is None:
        return _example(example)
    if name.startswith("/") and _is_file(Path(name)):
        path = Path(name)
        return _classify(path.name, path.parent, str(path.parent))
    directory, module_dir = _directory(name, environment, environ, console)
    return _classify(name, directory, module_dir)


def _example(example: Path | None) -> Program:
    if example is None:
        raise ProgramNotFoundError(
            "the job names no program; expected the hyperparameter sagemaker_program or the "
            "variable SAGEMAKER_PROGRAM (with sagemaker_submit_directory), or an image with its "
            "own program in BYOC_PROGRAM"
        )
    if not example.is_file():
        raise ProgramNotFoundError(f"BYOC_PROGRAM names {example}, which is not a file")
    return _classify(example.name, example.parent, str(example.parent), user_source=False)


def _directory(
    name: str, environment: Environment, environ: Mapping[str, str], console: Console
) -> tuple[Path, str]:
    """Where the source is, and where it came from."""
    code = environment.paths.code
    submitted = environment.reserved_text("sagemaker_submit_directory") or environ.get(
        "SAGEMAKER_SUBMIT_DIRECTORY"
    )
    if source_module.is_provided(code):
        if submitted and submitted != str(code):
            console.info(f"{code} is not empty: using the source there, not {submitted}")
        return code, submitted or str(code)
    if not submitted:
        submitted = _code_channel(name, environment)
    if submitted is None:
        raise ProgramNotFoundError(
            f"the job names the program {name!r} but no source: {code} is empty, and there is "
            "neither sagemaker_submit_directory nor a channel 'code' with it"
        )
    console.info(f"source: {submitted}")
    source_module.bring(submitted, code, environ)
    return code, submitted


def _code_channel(name: str, environment: Environment) -> str | None:
    """The channel that brings source to jobs without a network."""
    channel = environment.paths.channel("code")
    if _is_file(channel / name):
        return str(channel)
    packed = channel / "sourcedir.tar.gz"
    return str(packed) if packed.is_file() else None


def _classify(name: str, directory: Path, module_dir: str, *, user_source: bool = True) -> Program:
    _check_name(name, directory)
    path = directory / name
    package = user_source and (directory / "setup.py").is_file()
    if not _is_file(path) and not (package and _is_file(path / "__main__.py")):
        raise ProgramNotFoundError(f"{name} not found in {directory}; {_contents(directory)}")
    interpreter: tuple[str, ...] = ()
    if package and not name.endswith(".sh"):
        # As the toolkit has it: a pyproject.toml alone makes no package, since building one
        # needs the network; its modules are importable from the working directory anyway.
        kind = Kind.PACKAGE
    elif name.endswith(".py"):
        kind = Kind.SCRIPT
    else:
        kind, interpreter = Kind.COMMAND, _interpreter(path)
    return Program(name, directory, kind, interpreter, module_dir, user_source)


def _is_file(path: Path) -> bool:
    """As ``Path.is_file``, but False for a name too long or a folder that cannot be entered."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def _check_name(name: str, directory: Path) -> None:
    target = Path(os.path.realpath(directory / name))
    if name.startswith("/") or not target.is_relative_to(os.path.realpath(directory)):
        raise ProgramNotFoundError(
            f"{name!r} lies outside of the source {directory}; expected a path inside it"
        )


def _contents(directory: Path) -> str:
    try:
        names = sorted(
            entry.name + ("/" if entry.is_dir() else "")
            for entry in directory.iterdir()
            if entry.name != source_module.MARKER
        )
    except OSError:
        names = []
    if not names:
        return "it is empty"
    shown = ", ".join(names[:20])
    return f"there are: {shown}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _interpreter(path: Path) -> tuple[str, ...]:
    """What runs a file that is not Python; the execute bit is not needed for scripts."""
    try:
        with path.open("rb") as file:
            head = file.read(64 * 1024)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if head.startswith(b"\x7fELF"):
        if not os.access(path, os.X_OK):
            raise SourceError(f"{path} is a binary without execute permission; chmod +x it")
        return ()
    if b"\r\n" in head:
        raise SourceError(
            f"{path.name} has Windows line endings (CRLF), which no shell runs; "
            "convert it to LF, for instance with dos2unix, and submit it again"
        )
    first = head.split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return ("/bin/sh",)
    # The kernel's rule: the interpreter, and all the rest as one argument.
    words = first[2:].decode("utf-8", "surrogateescape").strip().split(None, 1)
    return tuple(word.strip() for word in words) or ("/bin/sh",)
