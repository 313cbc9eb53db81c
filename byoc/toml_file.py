"""The small TOML files: ``byoc.toml`` with what is true of all commands, and one for a job.

region = "eu-central-1"

[train]
image = "sagemaker-byoc-training:latest"
instance-type = "ml.g5.xlarge"

[train.data]
training = "data/mnist"

[train.hyperparameters]
epochs = 14
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import TYPE_CHECKING, Any

from byoc.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

#: What stands above the tables, and is true of all commands.
COMMON = ("region", "profile", "role", "bucket")
TABLES = ("train", "deploy")


def read(path: Path) -> dict[str, Any]:
    """The file's content, its keys known.

    Raises:
        SettingsError: It cannot be read, is no TOML, or has a key that nobody reads.
    """
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content: dict[str, Any] = toml.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"cannot read {path}: {words}") from error
    except toml.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is no TOML ({error}); expected a file of options, as --help shows it"
        ) from error
    known(content, (*COMMON, *TABLES), str(path))
    for name in COMMON:
        if not isinstance(content.get(name, ""), str):
            raise SettingsError(f"{path}: {name} is {content[name]!r}; expected text")
    for name in TABLES:
        if not isinstance(content.get(name, {}), dict):
            raise SettingsError(f"{path}: {name} is {content[name]!r}; expected a table [{name}]")
    return content


def known(content: dict[str, Any], names: Collection[str], where: str) -> None:
    """Raise when there is a key that is none of the names.

    Raises:
        SettingsError: Says which name may have been meant.
    """
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
            raise SettingsError(f"{where}: {key} means nothing here; {meant}")
