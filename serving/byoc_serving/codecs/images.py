"""image/png and image/jpeg, through Pillow, with a bound on the pixels."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from byoc_serving.codecs.encodings import compressed
from byoc_serving.errors import BadBodyError, BodyTooLargeError, DependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A picture of 8,000 by 8,000; three bytes each are 192 MB.
MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG")


def decode(body: bytes) -> NDArray[Any]:
    """A picture as uint8: ``[H, W]`` when grey, ``[H, W, 3]`` when in colour; alpha is dropped.

    Raises:
        BadBodyError: no PNG or JPEG, or a broken one.
        BodyTooLargeError: more than 64 million pixels.
    """
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - image requests alone pay
    except ImportError:
        raise DependencyError("pillow is not installed, so images cannot be read") from None

    try:
        with warnings.catch_warnings():
            # Our own bound comes first; Pillow would only warn.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(body), formats=_FORMATS)
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise _bomb(f"{width} x {height}")
            grey = picture.mode in {"1", "L", "LA", "I", "I;16", "F"}
            return np.asarray(picture.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, SyntaxError):
        raise BadBodyError(compressed(body) or "not an image: neither PNG nor JPEG data") from None
    except Image.DecompressionBombError:
        raise _bomb() from None
    except (OSError, ValueError, EOFError) as error:
        raise BadBodyError(f"a broken image: {error}") from None


def _bomb(size: str = "too many") -> BodyTooLargeError:
    error = BodyTooLargeError("", MAX_PIXELS)
    error.args = (f"an image of {size} pixels; the limit is {MAX_PIXELS} pixels",)
    return error
