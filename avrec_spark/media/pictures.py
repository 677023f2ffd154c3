"""From a decoded frame to upright RGB arrays and JPEG thumbnails."""

from __future__ import annotations

from typing import cast

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from avrec_spark.media.records import FRAME_SIZE

MAX_THUMBNAIL_BYTES = 64 * 1024
_TALLEST = 4  # A thumbnail is at most so many times as high as it is wide.


def square(frame: av.VideoFrame, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
    """uint8[224, 224, 3]: the short side scaled to 224, the centre square cut out, turned upright."""
    width, height = frame.width * pixel_aspect, float(frame.height)
    scale = FRAME_SIZE / min(width, height)
    picture = _rgb(frame, max(FRAME_SIZE, round(width * scale)), max(FRAME_SIZE, round(height * scale)))
    top, left = (picture.shape[0] - FRAME_SIZE) // 2, (picture.shape[1] - FRAME_SIZE) // 2
    return np.ascontiguousarray(_upright(picture[top : top + FRAME_SIZE, left : left + FRAME_SIZE], frame))


def thumbnail(frame: av.VideoFrame, width: int, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
    """uint8[h, width, 3]: the whole picture at that width, upright, in its own proportions."""
    shape = frame.width * pixel_aspect, float(frame.height)
    if quarter_turns(frame) % 2:
        scale = width / shape[1]
        size = min(width * _TALLEST, round(shape[0] * scale)), width
    else:
        scale = width / shape[0]
        size = width, min(width * _TALLEST, round(shape[1] * scale))
    return np.ascontiguousarray(_upright(_rgb(frame, max(1, size[0]), max(1, size[1])), frame))


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """The picture as a JPEG of at most 64 KiB; quality, then size, give way."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    while True:
        for quality in (85, 60, 35):
            data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(data) <= MAX_THUMBNAIL_BYTES:
                return data
        bgr = cv2.resize(bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that set the frame upright, from the container's display matrix."""
    return round(frame.rotation / 90) % 4


def _rgb(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    # One thread: the cores belong to the other tasks of the machine.
    scaled = frame.reformat(width, height, "rgb24", interpolation=Interpolation.AREA, threads=1)
    return cast(NDArray[np.uint8], scaled.to_ndarray())


def _upright(picture: NDArray[np.uint8], frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.rot90(picture, quarter_turns(frame))
