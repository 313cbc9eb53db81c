"""What every worker needs anyway, imported once before they are forked.

On a machine without GPUs: CUDA does not survive a fork, and importing torch alone starts neither
CUDA nor threads. The workers then share most of torch's memory, and one that is replaced is back
without importing it again.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from byoc_serving.machine import Machine
    from byoc_serving.settings import Settings

log = logging.getLogger(__name__)

_MODULES = ("torch", "numpy", "byoc_serving.codecs")


def preload(settings: Settings, machine: Machine) -> bool:
    """Import torch and what goes with it; False when that is better left to the workers.

    Whatever fails here fails there again, and is reported there.
    """
    if machine.gpus or settings.submit_directory or _brings_packages(settings.model_dir):
        return False
    thread_variables(settings.torch_threads or 1)
    try:
        for name in _MODULES:
            importlib.import_module(name)
    except Exception:
        log.debug("not preloaded", exc_info=True)
        return False
    # What is there now will not be garbage; looking at it again would unshare its pages.
    gc.collect()
    gc.freeze()
    return True


def thread_variables(threads: int) -> None:
    """Tell the native libraries, which read this once when they are loaded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def _brings_packages(model_dir: Path) -> bool:
    """Whether the archive may install other versions of what would be imported here."""
    return any((folder / "requirements.txt").exists() for folder in (model_dir, model_dir / "code"))
