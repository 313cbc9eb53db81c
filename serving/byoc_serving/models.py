"""Models that describe themselves: TorchScript and exported programs."""

from __future__ import annotations

import warnings
import zipfile
from typing import TYPE_CHECKING, Any

from byoc_serving.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIXES = (".pt", ".pth", ".ts", ".pt2")


def self_describing(model_dir: Path) -> list[Path]:
    """TorchScript and ``.pt2`` files in the model directory, or in its only subdirectory.

    Archives made by hand often have one directory at the top (contract, section 8.3).
    """
    for folder in (model_dir, _only_subdirectory(model_dir)):
        if folder is None or not folder.is_dir():
            continue
        found = [
            path
            for path in sorted(folder.iterdir())
            if path.is_file() and path.suffix in _SUFFIXES and kind_of(path)
        ]
        if found:
            return found
    return []


def _only_subdirectory(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    inside = [path for path in folder.iterdir() if path.is_dir() and path.name != "code"]
    return inside[0] if len(inside) == 1 else None


def kind_of(path: Path) -> str | None:
    """``torchscript``, ``exported``, or None: something else, such as a pickled state_dict.

    Both are zip files: TorchScript's has ``<name>/constants.pkl`` and ``<name>/code/``, an
    exported program's has ``serialized_exported_program.json`` or ``<name>/models/*.json``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    inner = [name.split("/", 1)[-1] for name in names]
    if any(name.startswith("code/") for name in inner) and "constants.pkl" in inner:
        return "torchscript"
    exported = any(
        name == "serialized_exported_program.json"
        or (name.startswith("models/") and name.endswith(".json"))
        for name in inner
    )
    return "exported" if exported else None


def load(model_dir: Path, device: str) -> Any:
    """The default model_fn: the only self-describing model, or the one called ``model.*``.

    Raises:
        ModelError: none, several, or a broken one.
    """
    import torch  # noqa: PLC0415 - only the worker's model thread may pay for torch

    found = self_describing(model_dir)
    if len(found) > 1:
        found = [path for path in found if path.stem == "model"] or found
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise ModelError(
            f"expected one TorchScript or .pt2 model in {model_dir}, found {listed}; keep one, "
            "call it model.pt, or write a model_fn in code/inference.py"
        )
    path = found[0]
    try:
        with warnings.catch_warnings():
            # torch.jit.load is deprecated in favour of torch.export; archives are not.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            if kind_of(path) == "torchscript":
                model = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call] # torch's own
                model.eval()
                return model
            program = torch.export.load(path)
            return program.module().to(device)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"{path.name} cannot be loaded: {type(error).__name__}: {lines[-1] if lines else ''}; "
            "make sure that this torch is not older than the one that saved it"
        ) from error
