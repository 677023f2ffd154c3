"""Shot boundaries between key frames, by colour.

Encoders place key frames at hard cuts, so that comparing key frames finds most cuts at a hundredth of the cost of
reading every frame; the precision is the distance of the frames that were decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from avrec_spark.media.pictures import jpeg
from avrec_spark.media.records import Shot

# A cut changes the colours of the picture: Bhattacharyya distance of HSV histograms, 0 for equal colours, 1 for none in
# common; two moments of one shot usually stay below .35, a hard cut usually exceeds .5.
CUT_DISTANCE = 0.45
# And it changes the picture itself, by so many of 255 levels in the mean: near black and near grey, hue is only noise.
CUT_LEVELS = 12.0


def find_shots(pictures: Sequence[NDArray[np.uint8]], times: NDArray[np.float64], duration: float) -> list[Shot]:
    """Shots from pictures uint8[h, w, 3] (RGB) taken at `times`, in order.

    A shot begins at its first picture (the first one at 0) and ends where the next begins (the last one at
    `duration`); its thumbnail is its middle picture.
    """
    if not len(pictures):
        return []
    firsts = [0, *(n for n in range(1, len(pictures)) if _is_cut(pictures[n - 1], pictures[n]))]
    starts = [0.0] + [float(times[first]) for first in firsts[1:]]
    ends = [*starts[1:], max(duration, float(times[-1]))]
    shots = []
    for first, after, start, end in zip(firsts, [*firsts[1:], len(pictures)], starts, ends, strict=True):
        middle = (first + after) // 2
        shots.append(Shot(start, end, float(times[middle]), jpeg(pictures[middle])))
    return shots


def _is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    colours = cv2.compareHist(_histogram(before), _histogram(after), cv2.HISTCMP_BHATTACHARYYA)
    levels = np.abs(_coarse(before) - _coarse(after)).mean()
    return bool(colours > CUT_DISTANCE and levels > CUT_LEVELS)


def _histogram(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [12, 4, 6], [0, 180, 0, 256, 0, 256])
    return np.asarray(counts / counts.sum(), np.float32)


def _coarse(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA), np.float32)
