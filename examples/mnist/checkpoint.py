"""Checkpoints that are either complete or absent, so that an interrupted job goes on."""

import io
import os
import re
from pathlib import Path
from typing import Any

import torch

NAME = re.compile(r"checkpoint-(\d+)-(\d+)\.pt")


def write_atomically(path: Path, content: Any) -> None:
    """``torch.save`` that appears under its name only when it is complete on disk.

    Serialised in memory first: a full disk is then an ``OSError`` that says so.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SystemExit(f"cannot save {path}: {error.strerror}") from None


def newest_first(folder: Path) -> list[Path]:
    """The checkpoint files of ``folder``, newest training position first."""
    found = [(m, p) for p in folder.iterdir() if (m := NAME.fullmatch(p.name))]
    found.sort(key=lambda entry: (int(entry[0][1]), int(entry[0][2])), reverse=True)
    return [path for _, path in found]


def save(folder: Path, state: dict[str, Any], keep: int = 2) -> None:
    """Write the state; older files go only after the new one is complete."""
    write_atomically(folder / f"checkpoint-{state['epoch']}-{state['step']}.pt", state)
    for old in newest_first(folder)[keep:]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """The newest state that can be read, or ``None``."""
    for path in newest_first(folder):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the one before may do
            print(f"Skipping unreadable checkpoint {path.name}: {str(error).splitlines()[0]}")
            continue
        print(f"Resuming from {path.name}")
        return state
    return None
