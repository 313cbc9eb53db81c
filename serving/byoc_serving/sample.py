"""A request that the model's author has put beside the model, to try it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc_serving.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

#: What a file's name says of its content.
TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".csv": "text/csv",
    ".npy": "application/x-npy",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
#: A sample is shown in a document; nothing larger than this is.
SHOWN_BYTES = 64 * 1024


@dataclass(frozen=True)
class Sample:
    """A body with its type."""

    path: Path
    content_type: str
    body: bytes

    @classmethod
    def find(cls, model_dir: Path) -> Sample | None:
        """``code/sample.*`` or ``sample.*`` of a model directory; None when there is none."""
        for folder in (model_dir / "code", model_dir):
            for suffix, content_type in TYPES.items():
                path = folder / f"sample{suffix}"
                if path.is_file():
                    return cls(path, content_type, path.read_bytes())
        return None

    @classmethod
    def read(cls, path: Path, content_type: str | None) -> Sample:
        """A file that was named.

        Raises:
            UsageError: it cannot be read, or its type is not known.
        """
        kind = content_type or TYPES.get(path.suffix.lower())
        if kind is None:
            raise UsageError(
                f"the type of {path.name} is not known from its name; give it with "
                f"--content-type, or use one of {', '.join(TYPES)}"
            )
        try:
            return cls(path, kind, path.read_bytes())
        except OSError as error:
            raise UsageError(f"the sample {path} cannot be read: {error.strerror}") from None

    @property
    def text(self) -> str | None:
        """The body where a document can show it; None when it is long or no text."""
        if len(self.body) > SHOWN_BYTES:
            return None
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError:
            return None
