"""Where the user's handler is.

The search order, first match wins:

1. ``SAGEMAKER_PROGRAM`` in ``SAGEMAKER_SUBMIT_DIRECTORY`` (a directory, a ``file://`` one, a
   local tar.gz, or an ``s3://`` one, which is what SDK v2's ``Model`` sends),
2. ``code/`` in the model directory: ``SAGEMAKER_PROGRAM``, else ``inference.py``, else the only
   module that defines a handler function,
3. the model directory itself: ``SAGEMAKER_PROGRAM``, else ``inference.py``,
4. no handler, but a model that describes itself (TorchScript, ``.pt2``): the default functions,
5. the image's own handler (``BYOC_HANDLER``).
"""

from __future__ import annotations

import ast
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_serving.archives import unpack
from byoc_serving.errors import ArchiveError, DependencyError, HandlerError, ModelError
from byoc_serving.models import self_describing

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")
DEFAULT_PROGRAM = "inference.py"


@dataclass(frozen=True)
class Source:
    """The handler that was found.

    Attributes:
        module: its file; None: the default functions alone.
        requirements: its requirements.txt, if there is one.
        origin: for the log.
    """

    module: Path | None
    requirements: Path | None
    origin: str


def locate(settings: Settings, workspace: Path) -> Source:
    """Find the handler; fetch and unpack it below ``workspace`` when it is in an archive.

    Raises:
        HandlerError: a program was asked for and is nowhere, or which one is meant is unclear.
        ModelError: there is no handler and no model that describes itself.
        ArchiveError: the submit directory's archive is unusable.
    """
    model_dir, program = settings.model_dir, settings.program
    places: list[Path] = []
    if settings.submit_directory:
        places.append(_submit_directory(settings, settings.submit_directory, workspace))
    places += [model_dir / "code", model_dir]
    if program:
        return _named(program, places, settings)
    for folder in places:
        if (folder / DEFAULT_PROGRAM).is_file():
            return _source(folder / DEFAULT_PROGRAM, settings)
        if folder != model_dir and (only := _only_handler(folder)):
            return _source(only, settings)
    if self_describing(model_dir):
        return Source(None, None, "default functions")
    if settings.handler:
        if not settings.handler.is_file():
            raise HandlerError(f"BYOC_HANDLER={settings.handler} is no file; correct the image")
        return _source(settings.handler, settings)
    raise ModelError(
        f"no model that can be served: {describe(model_dir)}; expected code/inference.py with a "
        "model_fn, or a TorchScript (.pt, .pth) or .pt2 file; weights alone (a state_dict, "
        "safetensors) need code/inference.py, which builds the architecture"
    )


def _named(program: str, places: list[Path], settings: Settings) -> Source:
    """The program that was asked for: a bare name, as SDKs send it, a relative or absolute path."""
    for folder in places:
        if (folder / program).is_file():
            return _source(folder / program, settings)
    if settings.handler and settings.handler.name == program and settings.handler.is_file():
        return _source(settings.handler, settings)
    raise HandlerError(
        f"SAGEMAKER_PROGRAM={program!r} was not found in "
        f"{', '.join(str(place) for place in places)}; {describe(settings.model_dir)}; "
        "put it into code/ of the model archive, or correct the variable"
    )


def _source(module: Path, settings: Settings) -> Source:
    requirements = module.parent / "requirements.txt"
    try:
        origin = str(module.relative_to(settings.model_dir))
    except ValueError:
        origin = str(module)
    return Source(module, requirements if requirements.is_file() else None, origin)


def _only_handler(folder: Path) -> Path | None:
    """The only module in ``folder`` with a handler function.

    Raises:
        HandlerError: several have one.
    """
    if not folder.is_dir():
        return None
    found = [path for path in sorted(folder.glob("*.py")) if _defines_handler(path)]
    if len(found) > 1:
        raise HandlerError(
            f"{', '.join(path.name for path in found)} in {folder} all define handler functions; "
            "name one in SAGEMAKER_PROGRAM, or call it inference.py"
        )
    return found[0] if found else None


def _defines_handler(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return False
    return any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in FUNCTIONS
        for node in tree.body
    )


def _submit_directory(settings: Settings, text: str, workspace: Path) -> Path:
    """The directory that holds the program."""
    if text.startswith("s3://"):
        return _unpacked(_download(text, workspace), text, workspace)
    path = Path(text.removeprefix("file://"))
    if not path.exists() and path.is_relative_to("/opt/ml"):
        # What the SDK sends means the container's paths, wherever BYOC_ROOT has put them.
        path = settings.root / path.relative_to("/opt/ml")
    if path.is_file():
        return _unpacked(path, text, workspace)
    if not path.is_dir() and path != settings.model_dir / "code":
        raise HandlerError(
            f"SAGEMAKER_SUBMIT_DIRECTORY={text!r} does not exist; expected a directory, a tar.gz "
            f"or an s3:// address of one; {describe(settings.model_dir)}"
        )
    return path


def _unpacked(archive: Path, text: str, workspace: Path) -> Path:
    target = workspace / "code"
    if target.is_dir():
        return target
    # Unpacked aside and renamed, so that half a directory is never taken for a whole one.
    part = Path(tempfile.mkdtemp(prefix="code-", dir=workspace))
    try:
        unpack(archive, part)
    except ArchiveError as error:
        raise ArchiveError(f"SAGEMAKER_SUBMIT_DIRECTORY={text}: {error}") from error
    part.rename(target)
    return target


def _download(address: str, workspace: Path) -> Path:
    """An S3 object as a local file; endpoint and credentials come from AWS's own variables."""
    try:
        import boto3  # noqa: PLC0415 - heavy, and needed by few
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError:
        raise DependencyError(
            f"boto3 is not installed, so {address} cannot be fetched; install boto3 in the image"
        ) from None

    bucket, _, key = address[len("s3://") :].partition("/")
    if not bucket or not key:
        raise ArchiveError(f"{address!r} is no s3://bucket/key address")
    target = workspace / "sourcedir.tar.gz"
    if target.exists():
        return target
    part = workspace / f"sourcedir.{os.getpid()}.part"
    region = os.environ.get("AWS_REGION") or os.environ.get("SAGEMAKER_REGION")
    try:
        boto3.client("s3", region_name=region).download_file(bucket, key, str(part))
    except (BotoCoreError, ClientError, OSError) as error:
        raise ArchiveError(
            f"cannot fetch {address}: {error}; check the address, the role's s3:GetObject and the "
            "network"
        ) from error
    part.rename(target)
    return target


def describe(model_dir: Path, most: int = 20) -> str:
    """What is in the model directory, for a message."""
    if not model_dir.is_dir():
        return f"{model_dir} does not exist"
    names = sorted(
        str(path.relative_to(model_dir)) for path in model_dir.rglob("*") if path.is_file()
    )
    if not names:
        return f"{model_dir} is empty"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{model_dir} holds {', '.join(names[:most])}{more}"
