"""How the picture moves: dense optical flow, split into what the camera does and what things in front of it do.

The flow of a pair is that of Kroeger et al., Fast Optical Flow using Dense Inverse Search (2016). A similarity (shift,
zoom, turn) fitted robustly to it (RANSAC) is the camera's part, the rest is motion of objects. Speeds are in picture
widths a second, on a logarithmic scale: log2(1 + speed / .02), so that 1 can just be seen and .1 widths a second are
2.6. Zoom (natural logarithm of the scale) and turn (radians) a second are scaled alike, with their sign.

| block | features | meaning |
|---|---|---|
| direction | 8 | speed of the whole picture by direction: right, right down, down, … clockwise by 45° |
| camera | 2 | that speed, and its deviation from pair to pair |
| zoom | 2 | mean zoom, positive when the picture grows, and mean size of it |
| turn | 2 | mean turn, positive clockwise, and mean size of it |
| objects | 2 | speed of what moves against the picture, averaged over it, and its deviation from pair to pair |
| area | 1 | share of the picture that moves so |
| where | 9 | that speed in a grid of 3 × 3, row by row |
| still | 1 | share of pairs in which nothing moves |

The direction is that of the picture: a camera that turns right moves it left.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders.layout import Block, deviation, layout, standardised
from avrec_spark.encoders.port import Encoder, Summary
from avrec_spark.media.records import MOTION_HEIGHT, MOTION_WIDTH, Motion

Floats = NDArray[np.floating[Any]]

_DIRECTIONS = 8
_GRID = 3
_VISIBLE_SPEED = 0.02  # widths a second
_SHORTEST_SECONDS = 1e-3
_GRID_STEP = 8  # pixels between the flow vectors that the camera's part is fitted to
_FIT_PIXELS = 1.0
_FIT_SHARE = 0.4  # of those vectors must agree, or nothing in the picture moves as a whole
_OBJECT_PIXELS = 0.5  # flow that differs less from the camera's part is its error
_CAMERA_PIXELS = 0.2  # at the picture's edge: less is the error of the fit
_CAMERA_GAIN = 0.8  # of the difference of the pictures may remain when the camera's part is undone, or it is none
_SAME_GREY = 3.0
_PAN_PIXELS, _PAN_RESPONSE = 6.0, 0.1
_BORDER = 4
_STILL_AREA = 0.002

# Centres and scales are rounded means and deviations over mixed clips: fixed and moving cameras, film, cartoon.
_BLOCKS = {
    "direction": Block(_DIRECTIONS, 0.05, 0.2),
    "camera": Block(2, (0.4, 0.2), (0.9, 0.4)),
    "zoom": Block(2, (0.0, 0.25), (0.6, 0.65)),
    "turn": Block(2, (0.0, 0.25), (0.6, 0.65)),
    "objects": Block(2, (0.65, 0.5), (0.65, 0.4)),
    "area": Block(1, 0.15, 0.15),
    "where": Block(_GRID**2, 0.5, 0.6),
    "still": Block(1, 0.2, 0.3),
}
LAYOUT = layout(_BLOCKS)
# Columns of a pair's measures after its count, 1; they add up to the total.
_COLUMNS = layout({**_BLOCKS, "squares": Block(2, 0.0, 1.0)})


class Camera(NamedTuple):
    """What the camera did from one picture to the next: shift in pixels (right, down), scale, turn in radians."""

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    turn: float = 0.0


class OpticalFlowEncoder(Encoder[Motion]):
    """One vector a file; a file whose picture stands still has one that says so, one without pairs has none."""

    name = "optical-flow"
    version = "1"
    modality = "motion"
    dimension = sum(block.width for block in _BLOCKS.values())
    reads = "motion"

    def __init__(self, max_key_frames: int = 8) -> None:
        size = [MOTION_WIDTH, MOTION_HEIGHT]
        super().__init__({"flow": "dis-medium", "size": size, "max_key_frames": max_key_frames})

    def _summarise(self, batch: list[Motion]) -> list[Summary]:
        return [self._summary(motion) for motion in batch]

    def _summary(self, motion: Motion) -> Summary:
        rows = [
            measured(first, second, seconds)
            for (first, second), seconds in zip(motion.pairs, motion.seconds.tolist(), strict=True)
        ]
        return Summary(np.sum(rows, axis=0))

    def _vectors(self, totals: NDArray[np.float64]) -> NDArray[np.float32]:
        return standardised(described(totals), _BLOCKS)


def described(totals: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """The features by block, float64[n, width], in the units of the table above, from totals float64[n, m]."""
    means = totals[:, 1:] / np.maximum(totals[:, :1], 1.0)
    features: dict[str, NDArray[Any]] = {name: means[:, place] for name, place in _COLUMNS.items()}
    squares = features.pop("squares")
    for column, name in enumerate(("camera", "objects")):
        mean = features[name][:, :1]
        features[name] = np.hstack([mean, deviation(mean, squares[:, [column]])])
    return features


def measured(first: NDArray[np.uint8], second: NDArray[np.uint8], seconds: float) -> NDArray[np.float64]:
    """The measures of one pair of grey pictures, float64[m]: a row that adds up to the total."""
    flow = _flow(first, second)
    camera = _camera(flow)
    error = _difference(first, second, camera)
    if camera != Camera() and error.mean() > _CAMERA_GAIN * (unmoved := _difference(first, second, Camera())).mean():
        camera, error = Camera(), unmoved
    width, seconds = float(first.shape[1]), max(float(seconds), _SHORTEST_SECONDS)

    right, down = (pixels / width / seconds for pixels in camera.shift)
    speed = _scaled(np.hypot(right, down))
    zoom, turn = _scaled(np.log(camera.scale) / seconds), _scaled(camera.turn / seconds)
    residual, inside = _residual(flow, camera)
    # A flat background takes on the flow of what moves before it; where the pictures agree, nothing moved.
    residual[error < _SAME_GREY] = 0.0
    objects = residual / width / seconds
    energy = _scaled(_mean(objects, inside))
    area = _mean(residual > 0, inside)
    still = camera == Camera() and area < _STILL_AREA

    row = np.zeros(1 + _COLUMNS["squares"].stop)
    row[0] = 1.0
    values: dict[str, Any] = {
        "direction": speed * _direction(right, down),
        "camera": (speed, 0.0),
        "zoom": (zoom, abs(zoom)),
        "turn": (turn, abs(turn)),
        "objects": (energy, 0.0),
        "area": area,
        "where": [_scaled(_mean(*cell)) for cell in zip(_cells(objects), _cells(inside), strict=True)],
        "still": float(still),
        "squares": (speed**2, energy**2),
    }
    for name, value in values.items():
        row[1:][_COLUMNS[name]] = value
    return row


def _flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    """float32[h, w, 2]: how many pixels right and down each pixel of the first picture moves.

    The search finds shifts of up to about a twentieth of the picture; a faster pan it is told, by phase correlation.
    """
    first, second = np.ascontiguousarray(first), np.ascontiguousarray(second)
    shift, response = cv2.phaseCorrelate(first.astype(np.float32), second.astype(np.float32), _window(first.shape))
    flow = None
    if response > _PAN_RESPONSE and np.hypot(*shift) > _PAN_PIXELS:
        flow = np.full((*first.shape, 2), shift, np.float32)
    return np.asarray(_search().calc(first, second, flow))


@lru_cache(maxsize=1)
def _search() -> Any:
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


@lru_cache(maxsize=1)
def _window(shape: tuple[int, int]) -> Floats:
    return np.asarray(cv2.createHanningWindow(shape[::-1], cv2.CV_32F))


def _camera(flow: Floats) -> Camera:
    """The similarity that most flow vectors follow; none where fewer than `_FIT_SHARE` of them agree."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[_BORDER : height - _BORDER : _GRID_STEP, _BORDER : width - _BORDER : _GRID_STEP]
    rows, columns = rows.ravel(), columns.ravel()
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    start = np.stack([columns, rows], axis=1) - centre
    matrix, agree = cv2.estimateAffinePartial2D(
        start, start + flow[rows, columns], method=cv2.RANSAC, ransacReprojThreshold=_FIT_PIXELS, maxIters=500
    )
    if matrix is None or agree.mean() < _FIT_SHARE:
        return Camera()
    cosine, sine = matrix[0, 0], matrix[1, 0]
    shift, scale, turn = matrix[:, 2], float(np.hypot(cosine, sine)), float(np.arctan2(sine, cosine))
    return Camera(
        (float(shift[0]), float(shift[1])) if np.hypot(*shift) > _CAMERA_PIXELS else (0.0, 0.0),
        scale if width / 2 * abs(scale - 1.0) > _CAMERA_PIXELS else 1.0,
        turn if width / 2 * abs(turn) > _CAMERA_PIXELS else 0.0,
    )


def _difference(first: NDArray[np.uint8], second: NDArray[np.uint8], camera: Camera) -> Floats:
    """Grey levels between the first picture and the second with the camera's part undone, float32[h, w], smoothed."""
    cosine, sine = camera.scale * np.cos(camera.turn), camera.scale * np.sin(camera.turn)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([(first.shape[1] - 1) / 2, (first.shape[0] - 1) / 2])
    matrix = np.column_stack([turn, centre + camera.shift - turn @ centre])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    undone = cv2.warpAffine(second, matrix, second.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.blur(cv2.absdiff(first, undone).astype(np.float32), (5, 5)))


def _residual(flow: Floats, camera: Camera) -> tuple[Floats, NDArray[np.bool_]]:
    """Pixels that each one moves against the camera's part, 0 below the error; and which ones stay in the picture."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    cosine, sine = camera.scale * np.cos(camera.turn), camera.scale * np.sin(camera.turn)
    to_x, to_y = cosine * x - sine * y + camera.shift[0], sine * x + cosine * y + camera.shift[1]
    distance = np.hypot(flow[..., 0] - (to_x - x), flow[..., 1] - (to_y - y))
    inside = (np.abs(to_x) <= (width - 1) / 2 - _BORDER) & (np.abs(to_y) <= (height - 1) / 2 - _BORDER)
    return np.where(distance > _OBJECT_PIXELS, distance, 0.0), inside


def _direction(right: float, down: float) -> NDArray[np.float64]:
    """Shares of the eight directions, of which the two nearest have some."""
    place = (np.arctan2(down, right) / (2 * np.pi) * _DIRECTIONS) % _DIRECTIONS
    share = np.zeros(_DIRECTIONS)
    share[int(place) % _DIRECTIONS] = 1 - place % 1
    share[(int(place) + 1) % _DIRECTIONS] = place % 1
    return share


def _cells(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [cell for row in np.array_split(values, _GRID) for cell in np.array_split(row, _GRID, axis=1)]


def _mean(values: NDArray[Any], where: NDArray[np.bool_]) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def _scaled(speed: float) -> float:
    """The logarithmic scale, with the sign of the speed.

    >>> _scaled(0.02), _scaled(-0.06)
    (1.0, -2.0)
    """
    return float(np.sign(speed) * np.log2(1.0 + abs(speed) / _VISIBLE_SPEED))
