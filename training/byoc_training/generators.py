"""The states of the random number generators, as checkpoints keep them."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def state() -> dict[str, Any]:
    """The generators that the program has in use, as plain numbers and tensors."""
    import torch  # noqa: PLC0415 - the program has imported it

    found: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state(legacy=True)
        found["numpy"] = (name, torch.tensor(keys.astype("int64")), *rest)
    return found


def restore(saved: Mapping[str, Any]) -> None:
    """Let the generators go on from where they stood.

    Args:
        saved: What ``state`` has given, perhaps on a machine with another number of GPUs.
    """
    import torch  # noqa: PLC0415 - the program has imported it

    torch.set_rng_state(saved["torch"].cpu())
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in saved and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(
            [one.cpu() for one in saved["cuda"]][: torch.cuda.device_count()]
        )
    numpy = sys.modules.get("numpy")
    if "numpy" in saved and numpy is not None:
        name, keys, *rest = saved["numpy"]
        numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
