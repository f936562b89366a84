"""Pictures as arrays: nested numbers, or PNG and JPEG as bytes or base64.

Legend: H height, W width, C channels (1 grey, 3 colour, 2 or 4 with opacity).
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eagleray import errors

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 50_000_000
"""Larger pictures are refused before they are unpacked."""

LEAST_LIMIT, SIDES = 1_048_576, 32
"""A request's picture may have a million pixels, or 32 times the model's height and width."""

LARGEST = 1e30
"""Larger numbers are no brightness; their squares would not be finite in float32."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DEEP = ("I", "I;16", "F")
_STARTS = ("iVBORw0KGgo", "/9j/", "data:image/")


@dataclass
class Allowance:
    """Pixels that may still be unpacked for one request.

    Attributes:
        left: of all its pictures together, as their headers say.
    """

    left: int = MOST_PIXELS

    def take(self, width: int, height: int) -> None:
        """Count a picture.

        Raises:
            DataError: the pictures of the request have too many pixels together.
        """
        self.left -= width * height
        if self.left < 0:
            raise errors.DataError(
                f"at most {MOST_PIXELS:,} pixels are taken in one request, but got more"
            )


def most_pixels(shape: tuple[int, ...]) -> int:
    """How large a picture may be that a request has for a model's (C, H, W)."""
    return max(LEAST_LIMIT, SIDES**2 * shape[1] * shape[2])


def is_encoded(value: object) -> bool:
    """Whether this is text that holds a PNG or a JPEG in base64, or a `data:image/` address."""
    return isinstance(value, str) and value.lstrip().startswith(_STARTS)


def decode(value: object, channels: int | None = None) -> np.ndarray:
    """A picture (C, H, W), float32, from whatever form it came in.

    Args:
        value: nested numbers, bytes, or text in base64.
        channels: what a PNG or JPEG is converted to, where given.

    Raises:
        ValueError: it is no picture.
        DataError: it has too many pixels.
    """
    if isinstance(value, str | bytes):
        return _planes(_open(value, channels, MOST_PIXELS, None))
    try:
        with np.errstate(over="ignore"):
            return _channels_first(np.asarray(_lists(value), dtype=np.float32))
    except (TypeError, OverflowError) as cause:
        raise ValueError("no picture") from cause


def fit(value: object, shape: tuple[int, ...], allowance: Allowance | None = None) -> np.ndarray:
    """A picture at the channels, height and width (C, H, W) that a model takes, float32.

    Args:
        value: as `decode` takes it.
        shape: what it is brought to, by bilinear interpolation.
        allowance: bounds of a request; without it a picture has `MOST_PIXELS` at most.

    Raises:
        ValueError: it is no picture, or has another number of channels.
        DataError: it has too many pixels.
    """
    if isinstance(value, str | bytes):
        most = MOST_PIXELS if allowance is None else most_pixels(shape)
        return _planes(_open(value, shape[0], most, allowance), shape[1:])
    picture = decode(value, shape[0])
    if picture.shape[0] != shape[0]:
        raise ValueError("another number of channels")
    return np.stack([_resized(plane, shape[1:]) for plane in picture])


def nested(picture: np.ndarray) -> list[object]:
    """A picture (C, H, W) as nested lists (H, W) or (H, W, C), which `decode` reads back."""
    last = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    lists: list[object] = last.tolist()
    return lists


def _open(
    value: str | bytes, channels: int | None, most: int, allowance: Allowance | None
) -> Image.Image:
    """A PNG or JPEG in the mode to read it in; only its header is read before it is refused."""
    from PIL import Image

    data = _from_base64(value) if isinstance(value, str) else value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        _bound(picture, most, allowance)
        mode = _mode(picture.mode, channels)
        picture.load()
        return picture if picture.mode == mode else picture.convert(mode)
    except Image.DecompressionBombError as cause:
        raise errors.DataError(f"at most {most:,} pixels are taken, but got more") from cause
    except (OSError, SyntaxError) as cause:
        raise ValueError("neither PNG nor JPEG") from cause


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.rpartition("base64,")[2].strip(), validate=True)
    except binascii.Error as cause:
        raise ValueError("no base64") from cause


def _bound(picture: Image.Image, most: int, allowance: Allowance | None) -> None:
    """Refuse what is too large; a JPEG that is gets unpacked at a half to an eighth instead."""
    width, height = picture.size
    if allowance is not None:
        allowance.take(width, height)
    scale = 1
    while width * height > most * scale**2 and scale < 8:
        scale *= 2
    if scale > 1:
        picture.draft(None, (width // scale, height // scale))  # does nothing to a PNG
    if picture.width * picture.height > most or width * height > MOST_PIXELS:
        raise errors.DataError(
            f"at most {most:,} pixels are taken, but got {width} x {height}; make it smaller"
        )


def _planes(picture: Image.Image, size: tuple[int, ...] | None = None) -> np.ndarray:
    """(C, H, W), float32, at another height and width where given; a channel at a time."""
    size = size or (picture.height, picture.width)
    bands = picture.split()
    return np.stack([_resized(np.asarray(band, dtype=np.float32), size) for band in bands])


def _resized(plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    if plane.shape == size:
        return plane
    resized = Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _mode(found: str, channels: int | None) -> str:
    """Pillow's mode to convert to: as asked, or as found, palettes as colour and bits as grey."""
    if found in _DEEP and channels in (None, 1):
        return found
    if channels is not None:
        return _MODES[channels]
    if found in _MODES.values():
        return found
    return "L" if found == "1" else "RGB"


def _lists(value: object) -> object:
    """Arrays of arrays, as Parquet gives them, made lists all the way down."""
    if isinstance(value, np.ndarray):
        return value if value.dtype != object else [_lists(item) for item in value]
    return value


def _channels_first(picture: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) as (C, H, W); the last axis is tried for channels first."""
    if picture.ndim == 2:
        picture = picture[None]
    elif picture.ndim == 3 and 1 <= picture.shape[2] <= 4:
        picture = picture.transpose(2, 0, 1)
    elif picture.ndim != 3 or not 1 <= picture.shape[0] <= 4:
        raise ValueError("no picture")
    if 0 in picture.shape or not np.abs(picture).max() <= LARGEST:
        raise ValueError("empty, or not finite")
    return picture
