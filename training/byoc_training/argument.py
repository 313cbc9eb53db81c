"""What the kernel takes as an argument or a variable of a process."""

from __future__ import annotations


def can_be_handed_on(text: str) -> bool:
    r"""Whether a process can be given a text: no NUL and no half of a surrogate pair.

    JSON can carry both (``"\u0000"``, ``"\ud800"``), so every text of a configuration file that
    ends up in a command line or a variable is asked this.
    """
    return "\0" not in text and text == text.encode("utf-8", "replace").decode()
