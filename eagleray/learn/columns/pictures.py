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
from eagleray.learn.features.scales import LARGEST

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 50_000_000  # larger pictures are refused before they are unpacked

LEAST_LIMIT, SIDES = 1_048_576, 32
"""A request's picture may have a million pixels, or 32 times the model's height and width."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DEEP = ("I", "I;16", "F")
_STARTS = ("iVBORw0KGgo", "/9j/", "data:image/")


class File(bytes):
    """The bytes of a picture's file; `name` is its path as the table gives it."""

    name: str = ""


@dataclass
class PixelBudget:
    """Pixels left for the pictures of one request, counted by their headers."""

    left: int = MOST_PIXELS

    def spend(self, width: int, height: int) -> None:
        """Count a picture; DataError where the request has too many pixels."""
        self.left -= width * height
        if self.left < 0:
            law = f"at most {MOST_PIXELS:,} pixels are taken in one request"
            raise errors.DataError(f"{law}, but got more")


def is_encoded(value: object) -> bool:
    """Whether the value is a PNG or JPEG in base64, or a `data:image/` URL."""
    return isinstance(value, str) and value.lstrip().startswith(_STARTS)


def decode(value: object) -> np.ndarray:
    """A picture (C, H, W), float32; ValueError if it is none, DataError if it is too large."""
    if isinstance(value, str | bytes):
        return _planes(_open(value, None, MOST_PIXELS, None))
    try:
        with np.errstate(over="ignore"):
            return _channels_first(np.asarray(_lists(value), dtype=np.float32))
    except (TypeError, OverflowError) as cause:
        raise ValueError("no picture") from cause


def fit(value: object, shape: tuple[int, ...], budget: PixelBudget | None = None) -> np.ndarray:
    """Decode a picture and scale it to `shape` (C, H, W); outside requests, `budget` is None.

    Raises as `decode` does, and ValueError for nested numbers with another number of channels.
    """
    if isinstance(value, str | bytes):
        request = max(LEAST_LIMIT, SIDES**2 * shape[1] * shape[2])
        most = MOST_PIXELS if budget is None else request
        return _planes(_open(value, shape[0], most, budget), shape[1:])
    picture = decode(value)
    if picture.shape[0] != shape[0]:
        raise ValueError("another number of channels")
    return np.stack([_resized(plane, shape[1:]) for plane in picture])


def nested(picture: np.ndarray) -> list[object]:
    """A picture (C, H, W) as nested lists (H, W) or (H, W, C), which `decode` reads."""
    last = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    lists: list[object] = last.tolist()
    return lists


def _open(
    value: str | bytes, channels: int | None, most: int, budget: PixelBudget | None
) -> Image.Image:
    """A PNG or JPEG in the mode for `channels`; one that is too large is not unpacked."""
    from PIL import Image

    try:
        if isinstance(value, str):
            value = base64.b64decode(value.rpartition("base64,")[2].strip(), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(value), formats=("PNG", "JPEG"))
        _bound(picture, most, budget)
        mode = _mode(picture.mode, channels)
        picture.load()
        return picture if picture.mode == mode else picture.convert(mode)
    except Image.DecompressionBombError as cause:
        raise errors.DataError(f"at most {most:,} pixels are taken, but got more") from cause
    except (OSError, SyntaxError, binascii.Error) as cause:
        raise ValueError("neither PNG nor JPEG") from cause


def _bound(picture: Image.Image, most: int, budget: PixelBudget | None) -> None:
    """Refuse a picture that is too large; a JPEG is first scaled to a half, quarter or eighth."""
    width, height = picture.size
    if budget is not None:
        budget.spend(width, height)
    scale = 1
    while width * height > most * scale**2 and scale < 8:
        scale *= 2
    if scale > 1:
        picture.draft(None, (width // scale, height // scale))  # does nothing to a PNG
    if picture.width * picture.height > most or width * height > MOST_PIXELS:
        got = f"{width} x {height}; make it smaller"
        raise errors.DataError(f"at most {most:,} pixels are taken, but got {got}")


def _planes(picture: Image.Image, size: tuple[int, ...] | None = None) -> np.ndarray:
    """(C, H, W), float32, scaled to `size`; one channel at a time."""
    size = size or (picture.height, picture.width)
    bands = picture.split()
    return np.stack([_resized(np.asarray(band, dtype=np.float32), size) for band in bands])


def _resized(plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    if plane.shape == size:
        return plane
    resized = Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _mode(own: str, channels: int | None) -> str:
    """Pillow's mode for `channels`; by default the picture's own, or the nearest one."""
    if own in _DEEP and channels in (None, 1):
        return own
    if channels is not None:
        return _MODES[channels]
    if own in _MODES.values():
        return own
    return "L" if own == "1" else "RGB"


def _lists(value: object) -> object:
    """Parquet's arrays of arrays as lists of arrays."""
    if isinstance(value, np.ndarray):
        return value if value.dtype != object else [_lists(item) for item in value]
    return value


def _channels_first(picture: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) as (C, H, W); if both fit, the last axis is channels."""
    if picture.ndim == 2:
        picture = picture[None]
    elif picture.ndim == 3 and 1 <= picture.shape[2] <= 4:
        picture = picture.transpose(2, 0, 1)
    elif picture.ndim != 3 or not 1 <= picture.shape[0] <= 4:
        raise ValueError("no picture")
    if 0 in picture.shape or not np.abs(picture).max() <= LARGEST:
        raise ValueError("empty, or not finite")
    return picture
