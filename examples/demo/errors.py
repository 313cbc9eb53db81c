"""The demo's one error."""


class DemoError(Exception):
    """What was seen, and what to do about it."""

    def __init__(self, seen: str, hint: str) -> None:
        super().__init__(seen)
        self.hint = hint
