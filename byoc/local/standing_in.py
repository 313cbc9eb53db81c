"""What this environment needs to stand for the two images: the example that they hold."""

from __future__ import annotations

from byoc import checkout
from byoc.errors import BuildError


def defaults() -> dict[str, str]:
    """The images' own program and handler, from the checkout; nothing where there is none.

    The Dockerfiles set the same variables to the example's place in the images.
    """
    try:
        example = checkout.repository() / "examples" / "mnist"
    except BuildError:
        return {}
    return {
        "BYOC_PROGRAM": str(example / "train.py"),
        "BYOC_HANDLER": str(example / "inference.py"),
    }
