"""The look of a clip: a sky, glowing orbs that move in the planted way, and hills in front."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from avrec_spark.world.factors import PALETTES, Clip

FRAME_RATE = 12
_ORBS = 7


def size(clip: Clip) -> tuple[int, int]:
    """Width and height in pixels."""
    return (180, 320) if clip.portrait else (320, 180)


def frames(clip: Clip) -> Iterator[NDArray[np.uint8]]:
    """uint8[height, width, 3] RGB frames, 12 a second."""
    generator = np.random.default_rng(clip.seed)
    width, height = size(clip)
    palette = PALETTES[clip.palette]
    shift = generator.uniform(-8, 8)
    backdrop = _sky(width, height, _rgb(palette.sky, shift), _rgb(palette.horizon, shift))
    glow, hill = _rgb(palette.glow, shift), _rgb(palette.hill, shift)
    orbs = _Orbs(clip.motion, width, height, generator)
    ridges = [_ridge(width, generator) for _ in range(3)]
    for number in range(round(clip.seconds * FRAME_RATE)):
        time = number / FRAME_RATE
        light = orbs.light(time)
        picture = backdrop + light[:, :, None] * glow
        for depth, ridge in enumerate(ridges):
            _draw_ridge(picture, ridge, depth, time if clip.motion == "drift" else 0.0, backdrop, hill)
        yield np.clip(picture, 0, 255).astype(np.uint8)


class _Orbs:
    """Soft balls of light. Positions are shares of the frame, so that any shape of frame is filled."""

    def __init__(self, motion: str, width: int, height: int, generator: np.random.Generator) -> None:
        self.motion = motion
        self.scale = np.array([width, height])
        self.short = min(width, height)
        self.start = generator.uniform([0.1, 0.12], [0.9, 0.6], (_ORBS, 2))
        self.radius = generator.uniform(0.05, 0.14, _ORBS) * self.short
        self.phase = generator.uniform(0, 2 * np.pi, _ORBS)
        self.speed = generator.uniform(0.8, 1.2, _ORBS)
        self.columns, self.rows = np.arange(width), np.arange(height)

    def light(self, time: float) -> NDArray[np.float32]:
        """float32[height, width], the sum of all orbs: each a bright core in a wide halo."""
        centres, radii = self._at(time)
        x, y = (centres * self.scale).T[:, :, None]
        total = np.zeros((len(self.rows), len(self.columns)))
        for strength, width in ((0.75, 1.0), (0.12, 8.0)):
            # A Gaussian of the distance is one of the rows times one of the columns.
            spread = width * radii[:, None] ** 2
            across, down = np.exp(-((self.columns - x) ** 2) / spread), np.exp(-((self.rows - y) ** 2) / spread)
            total += strength * down.T @ across
        return total.astype(np.float32)

    def _at(self, time: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        centres, radii = self.start.copy(), self.radius.copy()
        angle = self.phase + 2.4 * self.speed * time
        if self.motion == "drift":
            centres[:, 0] = (centres[:, 0] + 0.12 * self.speed * time + 0.15) % 1.3 - 0.15
        elif self.motion == "bounce":
            centres[:, 1] = 0.72 - 0.6 * np.abs(np.sin(angle))
        elif self.motion == "spin":
            reach = np.linspace(0.08, 0.38, _ORBS) * self.short
            centres = np.array([0.5, 0.42]) + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None] / self.scale
        else:
            radii = radii * (1 + 0.7 * np.sin(2 * angle))
        return centres, np.maximum(radii, 1.0)


def _sky(width: int, height: int, top: NDArray[np.float32], bottom: NDArray[np.float32]) -> NDArray[np.float32]:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 1.3
    return np.broadcast_to(top + (bottom - top) * share, (height, width, 3)).astype(np.float32)


def _ridge(width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Heights (0 to 1) of a skyline twice as wide as the frame, which repeats."""
    x = np.linspace(0, 2 * np.pi, 2 * width, endpoint=False)
    waves = range(2, 9)
    heights = sum(np.sin(n * x + generator.uniform(0, 2 * np.pi)) / n for n in waves)
    heights = np.asarray(heights) - np.min(heights)
    return np.asarray(heights / heights.max())


def _draw_ridge(
    picture: NDArray[np.float32],
    ridge: NDArray[np.float64],
    depth: int,
    time: float,
    backdrop: NDArray[np.float32],
    hill: NDArray[np.float32],
) -> None:
    """A hill as a filled outline; nearer ones (depth 2) are darker, lower and pass faster."""
    height, width = picture.shape[:2]
    skyline = np.roll(ridge, -int(time * 8 * (depth + 1)))[:width]
    top = height * (0.66 + 0.1 * depth) - skyline * height * 0.16
    outline = np.concatenate([np.stack([np.arange(width), top], 1), [[width, height], [0, height]]])
    haze = 0.55 - 0.25 * depth
    colour = hill * (1 - haze) + backdrop[int(height * 0.7), 0] * haze
    cv2.fillPoly(picture, [np.round(outline * 8).astype(np.int32)], colour.tolist(), cv2.LINE_AA, shift=3)


def _rgb(hsv: tuple[float, float, float], shift: float) -> NDArray[np.float32]:
    hue, saturation, value = hsv
    return np.array(colorsys.hsv_to_rgb((hue + shift) % 360 / 360, saturation, value), np.float32) * 255
