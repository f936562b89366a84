"""Pictures as arrays: nested numbers, or PNG and JPEG as bytes or base64.

Legend: H height, W width, C channels (1 grey, 3 colour, 2 or 4 with opacity).
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings

import numpy as np

MOST_PIXELS = 50_000_000
"""Larger pictures are refused before they are unpacked."""

LARGEST = 1e30
"""Larger numbers are no brightness; their squares would not be finite in float32."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DEEP = ("I", "I;16", "F")
_STARTS = ("iVBORw0KGgo", "/9j/", "data:image/")


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
    """
    if isinstance(value, str):
        try:
            value = base64.b64decode(value.rpartition("base64,")[2].strip(), validate=True)
        except binascii.Error as cause:
            raise ValueError("no base64") from cause
    if isinstance(value, bytes):
        return _channels_first(_unpack(value, channels))
    try:
        with np.errstate(over="ignore"):
            return _channels_first(np.asarray(_lists(value), dtype=np.float32))
    except (TypeError, OverflowError) as cause:
        raise ValueError("no picture") from cause


def resize(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The picture (C, H, W) at another height and width, by bilinear interpolation.

    Raises:
        ValueError: it has another number of channels.
    """
    from PIL import Image

    if picture.shape == shape:
        return picture
    if picture.shape[0] != shape[0]:
        raise ValueError("another number of channels")
    size = (shape[2], shape[1])
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR) for plane in picture]
    return np.stack([np.asarray(plane, dtype=np.float32) for plane in planes])


def nested(picture: np.ndarray) -> list[object]:
    """A picture (C, H, W) as nested lists (H, W) or (H, W, C), which `decode` reads back."""
    last = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    lists: list[object] = last.tolist()
    return lists


def _unpack(data: bytes, channels: int | None) -> np.ndarray:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError("too large")
        mode = _mode(picture.mode, channels)
        return np.asarray(picture.convert(mode), dtype=np.float32)
    except (OSError, SyntaxError, Image.DecompressionBombError) as cause:
        raise ValueError("neither PNG nor JPEG") from cause


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
