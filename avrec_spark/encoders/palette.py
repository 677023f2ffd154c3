"""Colour, light and sharpness of the key frames, laid out so that each can be read back.

Every feature is a mean over the key frames, or their deviation. `LAYOUT` says where each block lies in the vector.

| block | features | meaning |
|---|---|---|
| colours | 100 | root of the joint histogram over CIELAB: 4 lightnesses × 5 green to red × 5 blue to yellow |
| brightness | 2 | mean lightness, 0 … 1, and its deviation from frame to frame |
| contrast | 1 | deviation of lightness inside a frame |
| saturation | 1 | mean saturation (HSV), 0 … 1 |
| colourfulness | 1 | Hasler & Süsstrunk (2003): 0 grey, about 15 slight, 45 moderate, 80 high |
| sharpness | 1 | log10 of 1 + the variance of the Laplacian (Pech-Pacheco et al., 2000) |
| edges | 1 | share of pixels on a Canny edge |
| faces | 1 | share of frames with a frontal face of at least 32 of 224 pixels (Viola & Jones, 2001) |
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

from avrec_spark.encoders.layout import Block, deviation, layout, standardised
from avrec_spark.encoders.port import Encoder, Summary
from avrec_spark.media.records import Frames

# Where the bins have their centres in OpenCV's CIELAB of 8 bits, in which a and b of 128 are neutral.
_LIGHTNESSES = (32, 96, 160, 224)
_HUES = (88, 108, 128, 148, 168)
_COLOURS = len(_LIGHTNESSES) * len(_HUES) ** 2
_SMALLEST_FACE = 32
_FACE_STEP = 1.2  # from one size of the window to the next
# Votes of neighbouring windows that a face needs: OpenCV's usual 3 sees faces in leaves and brickwork.
_FACE_VOTES = 5

# Centres and scales are rounded means and deviations over the key frames of mixed clips: street, home, film, cartoon.
_BLOCKS = {
    # The root of a histogram has length 1, whatever the picture: neither centred nor clipped, the block has length 2,
    # and weighs as much as four others.
    "colours": Block(_COLOURS, 0.0, 0.5 * _COLOURS**-0.5, clip=np.inf),
    "brightness": Block(2, (0.5, 0.03), (0.12, 0.06)),
    "contrast": Block(1, 0.2, 0.06),
    "saturation": Block(1, 0.3, 0.17),
    "colourfulness": Block(1, 35.0, 20.0),
    "sharpness": Block(1, 2.6, 0.5),
    "edges": Block(1, 0.08, 0.05),
    "faces": Block(1, 0.25, 0.4),
}
LAYOUT = layout(_BLOCKS)

# Columns of a frame's measures, which add up to the total: 1, the histogram, then these, and the square of the first.
_MEASURES = ("brightness", "contrast", "saturation", "colourfulness", "sharpness", "edges", "faces")


class PaletteEncoder(Encoder[Frames]):
    """One vector a key frame, and one a file from the sums over its frames."""

    name = "palette"
    version = "1"
    modality = "colour"
    dimension = sum(block.width for block in _BLOCKS.values())
    reads = "frames"
    segmented = True

    def __init__(self, max_key_frames: int) -> None:
        faces = [_SMALLEST_FACE, _FACE_VOTES] if _cascade_file().is_file() else None
        super().__init__({"max_key_frames": max_key_frames, "colours": _COLOURS, "faces": faces})

    def _summarise(self, batch: list[Frames]) -> list[Summary]:
        return [self._summary(frames) for frames in batch]

    def _summary(self, frames: Frames) -> Summary:
        rows = np.stack([_measured(picture) for picture in frames.pictures])
        return Summary(rows.sum(axis=0), self.vectors(rows), frames.times)

    def _vectors(self, totals: NDArray[np.float64]) -> NDArray[np.float32]:
        return standardised(described(totals), _BLOCKS)


def described(totals: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """The features by block, float64[n, width], in the units of the table above, from totals float64[n, m]."""
    means = totals[:, 1:] / np.maximum(totals[:, :1], 1.0)
    values, squares = means[:, _COLOURS:-1], means[:, -1:]
    features: dict[str, NDArray[Any]] = {name: values[:, [column]] for column, name in enumerate(_MEASURES)}
    spread = deviation(features["brightness"], squares)
    return {
        **features,
        "colours": np.sqrt(means[:, :_COLOURS]),
        "brightness": np.hstack([features["brightness"], spread]),
    }


def _measured(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """float64[1 + 100 + 7 + 1] for uint8[h, w, 3], RGB."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    lightness = lab[..., 0] / 255.0
    brightness = float(lightness.mean())
    values = (
        brightness,
        float(lightness.std()),
        float(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1].mean()) / 255.0,
        _colourfulness(picture),
        float(np.log10(1.0 + cv2.Laplacian(grey, cv2.CV_32F).var())),
        np.count_nonzero(cv2.Canny(grey, 100, 200)) / grey.size,
        float(_has_face(grey)),
    )
    return np.concatenate([[1.0], _histogram(lab), values, [brightness**2]])


def _histogram(lab: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of every ninth pixel, float64[100], lightness slowest.

    A pixel is shared by the bins about it, so that a colour near a border does not jump.
    """
    lightness, a, b = lab[::3, ::3].reshape(-1, 3).T
    grey = (_near(_LIGHTNESSES)[lightness][:, :, None] * _near(_HUES)[a][:, None, :]).reshape(len(a), -1)
    return np.asarray((grey.T @ _near(_HUES)[b]).ravel() / len(a))


@lru_cache(maxsize=2)
def _near(centres: tuple[int, ...]) -> NDArray[np.float64]:
    """How much of each value 0 … 255 is in each bin: float64[256, bins], linear between centres."""
    return np.stack([np.interp(np.arange(256), centres, row) for row in np.eye(len(centres))], axis=1)


def _colourfulness(picture: NDArray[np.uint8]) -> float:
    """Length of the deviations of the two opponent colours, plus .3 of that of their means."""
    red, green, blue = cv2.split(picture.astype(np.float32))
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    return float(np.hypot(*opponents.std(axis=1)) + 0.3 * np.hypot(*opponents.mean(axis=1)))


def _has_face(grey: NDArray[np.uint8]) -> bool:
    cascade = _cascade()
    if cascade is None:
        return False
    size = (_SMALLEST_FACE, _SMALLEST_FACE)
    return len(cascade.detectMultiScale(grey, _FACE_STEP, minNeighbors=_FACE_VOTES, minSize=size)) > 0


def _cascade_file() -> Path:
    return Path(haarcascades) / "haarcascade_frontalface_alt2.xml"


@lru_cache(maxsize=1)
def _cascade() -> Any:
    """OpenCV's own frontal-face cascade; None in a build that does not bring it."""
    path = _cascade_file()
    return cv2.CascadeClassifier(str(path)) if path.is_file() else None
