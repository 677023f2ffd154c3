"""From a decoded frame to upright RGB arrays and JPEG thumbnails.

A frame is scaled once by libswscale, from its own pixels to a picture that is just large enough; the square that an
encoder reads, the thumbnail and what shots are told apart by are made of that picture.
"""

from __future__ import annotations

from typing import cast

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from avrec_spark.media.records import FRAME_SIZE, MOTION_HEIGHT, MOTION_WIDTH

Picture = NDArray[np.uint8]

MAX_THUMBNAIL_BYTES = 64 * 1024
# Writing can be read in pictures of this width.
SCREEN_WIDTH = 960
_TALLEST = 4  # A thumbnail is at most so many times as high as it is wide.
_LONGEST = 32 * FRAME_SIZE  # A picture of a few pixels by thousands is squeezed rather than blown up.


class Scaler:
    """Scales the frames of one stream to pictures uint8[h, w, 3], RGB, not turned upright.

    The short side has at least 224 pixels and the width as shown at least `width`; to read writing in, as many as the
    frame has, up to 960. One scaler a stream: it keeps the tables that libswscale would compute for every frame.
    """

    def __init__(self, width: int, readable: bool = False, pixel_aspect: float = 1.0) -> None:
        self._width = width
        self._readable = readable
        self._aspect = pixel_aspect
        self._large, self._small = VideoReformatter(), VideoReformatter()

    def picture(self, frame: av.VideoFrame) -> Picture:
        width, height = frame.width * self._aspect, float(frame.height)
        shown = height if quarter_turns(frame) % 2 else width
        wanted = max(self._width, min(SCREEN_WIDTH, shown)) if self._readable else self._width
        scale = max(FRAME_SIZE / min(width, height), wanted / shown)
        size = [min(_LONGEST, max(FRAME_SIZE, round(side * scale))) for side in (width, height)]
        return _scaled(self._large, frame, size[0], size[1], "rgb24")

    def tiny(self, frame: av.VideoFrame, width: int, height: int) -> Picture:
        """uint8[height, width, 3]: the whole frame squeezed into that size."""
        return _scaled(self._small, frame, width, height, "rgb24")

    def motion(self, frame: av.VideoFrame) -> Picture:
        """uint8[90, 160]: the frame in grey, squeezed into the size that motion is measured on."""
        return motion(_scaled(self._small, frame, MOTION_WIDTH, MOTION_HEIGHT, "rgb24"))


def square(picture: Picture, turns: int = 0) -> Picture:
    """uint8[224, 224, 3]: the short side scaled to 224, the centre square cut out, turned upright."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre = picture[top : top + side, left : left + side]
    if side != FRAME_SIZE:
        centre = _resize(centre, FRAME_SIZE, FRAME_SIZE)
    return np.ascontiguousarray(np.rot90(centre, turns))


def thumbnail(picture: Picture, width: int, turns: int = 0) -> Picture:
    """uint8[h, width, 3]: the whole picture at that width, upright, in its own proportions."""
    upright = np.ascontiguousarray(np.rot90(picture, turns))
    height = round(upright.shape[0] * width / upright.shape[1])
    return _resize(upright, width, max(1, min(width * _TALLEST, height)))


def screen(picture: Picture, turns: int = 0) -> Picture:
    """uint8[h, w, 3]: the whole picture, upright, at most 960 wide."""
    upright = np.ascontiguousarray(np.rot90(picture, turns))
    return thumbnail(upright, SCREEN_WIDTH) if upright.shape[1] > SCREEN_WIDTH else upright


def motion(picture: Picture) -> Picture:
    """uint8[90, 160]: the picture in grey, not turned, squeezed into the size that motion is measured on."""
    if picture.shape[:2] != (MOTION_HEIGHT, MOTION_WIDTH):
        picture = _resize(picture, MOTION_WIDTH, MOTION_HEIGHT)
    return cast(Picture, cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def jpeg(picture: Picture) -> bytes:
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


def _resize(picture: Picture, width: int, height: int) -> Picture:
    return cast(Picture, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def _scaled(reformatter: VideoReformatter, frame: av.VideoFrame, width: int, height: int, format: str) -> Picture:
    # One thread: the cores belong to the other tasks of the machine.
    scaled = reformatter.reformat(frame, width, height, format, interpolation=Interpolation.AREA, threads=1)
    return cast(Picture, scaled.to_ndarray())
