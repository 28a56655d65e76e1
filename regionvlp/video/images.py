"""Still images as videos of one frame, read with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from regionvlp.errors import VideoError
from regionvlp.video.decoded import MAX_PIXELS, DecodedVideo, check_enough
from regionvlp.video.failures import out_of_memory, read_head
from regionvlp.video.window import Window

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_image(path: Path, window: Window | None = None) -> DecodedVideo:
    """Reads a picture as a video of one frame at time 0; of an animation, its first picture.

    Turned as its EXIF tag says; grey, palette and CMYK become RGB, transparency is dropped, 16 bits are scaled to 8.

    Args:
        path: the file.
        window: a stretch that begins later holds no frame.

    Raises:
        VideoError: the file is missing, empty, cut off, no picture, or too large.
    """
    read_head(path)
    if window and window.start > 0:
        check_enough(path, 0, 0, 0.0, window=window)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(
                    f"'{path}' is a picture of {image.width}x{image.height}", stage="open", reason="too-large"
                )
            picture = _rgb(ImageOps.exif_transpose(image))
    except VideoError:
        raise
    except _BOMBS as error:
        raise VideoError(f"'{path}': {error}", stage="open", reason="too-large") from error
    except UnidentifiedImageError as error:
        raise VideoError(f"'{path}' is not a picture", stage="open", reason="not-an-image") from error
    except MemoryError as error:
        raise out_of_memory(path, stage="decode") from error
    except Exception as error:  # Pillow's parsers raise SyntaxError, struct.error, ValueError, ... on damaged files
        raise VideoError(f"'{path}' is damaged: {error}", stage="decode", reason="damaged") from error
    return DecodedVideo(
        frames=[picture],
        frame_index=np.zeros(1, dtype=np.int64),
        frame_time=np.zeros(1, dtype=np.float64),
        frames_announced=1,
        frames_decoded=1,
        packets_skipped=0,
        frames_read=1,
        reader="pillow",
    )


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Converts a picture of any mode to uint8 ``[height, width, 3]``."""
    if image.mode.startswith(("I", "F")):
        return _rgb_of_deep_grey(np.asarray(image))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns
    return np.array(image.convert("RGB"))


def _rgb_of_deep_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scales grey of 16 bits to 8; Pillow's own conversion would clip everything above 255 to white."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError("grey values beyond 16 bits have no known range")
    grey = np.round(values.astype(np.float32) / 257).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
