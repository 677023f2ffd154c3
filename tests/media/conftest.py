"""Small clips that the tests encode themselves, so that every expected value is known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.media.records import Limits

RATE = 44_100
FRAMES_A_SECOND = 20
RED, GREEN, BLUE = (200, 30, 30), (30, 180, 40), (30, 40, 200)

Colour = tuple[int, int, int]
MakeClip = Callable[..., Path]


@pytest.fixture
def limits() -> Limits:
    return Limits(max_key_frames=8, sample_rate=16_000, thumbnail_width=96, timeout_seconds=30)


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """`make_clip(name, colours, seconds, …)`: equal parts of plain colour with a dark stripe that moves, and a tone."""

    def make(
        name: str = "clip.mp4",
        colours: tuple[Colour, ...] = (RED,),
        seconds: float = 4.0,
        size: tuple[int, int] = (160, 120),
        gop: int = 1000,
        tone: float | None = 440.0,
        rotation: int = 0,
        faststart: bool = True,
    ) -> Path:
        path = tmp_path / name
        options = {"movflags": "faststart"} if faststart and path.suffix == ".mp4" else {}
        with av.open(str(path), "w", options=options) as container:
            if colours:
                # scenecut 0: key frames only where `gop` puts them.
                options = {
                    "g": str(gop),
                    "x264-params": f"scenecut=0:keyint={gop}:min-keyint=1",
                    "preset": "veryfast",
                }
                video = container.add_stream("libx264", rate=FRAMES_A_SECOND, options=options)
                video.width, video.height, video.pix_fmt = *size, "yuv420p"
                if rotation:
                    video.set_display_rotation(rotation)
            if tone is not None:
                audio = container.add_stream("flac" if path.suffix == ".flac" else "aac", rate=RATE, layout="stereo")
            for second in range(round(seconds)):
                if colours:
                    for frame in _frames(second, colours, seconds, size):
                        container.mux(video.encode(frame))
                if tone is not None:
                    container.mux(audio.encode(_sound(second, tone, "s16" if path.suffix == ".flac" else "fltp")))
            for stream in container.streams:
                container.mux(stream.encode(None))
        return path

    return make


def _frames(second: int, colours: tuple[Colour, ...], seconds: float, size: tuple[int, int]) -> list[av.VideoFrame]:
    frames = []
    for number in range(second * FRAMES_A_SECOND, (second + 1) * FRAMES_A_SECOND):
        part = int(number / (seconds * FRAMES_A_SECOND) * len(colours))
        picture = np.full((size[1], size[0], 3), colours[part], np.uint8)
        left = number % (size[0] - 8)
        picture[:, left : left + 8] //= 2
        frames.append(av.VideoFrame.from_ndarray(picture, "rgb24"))
        frames[-1].pts = number
    return frames


def _sound(second: int, tone: float, layout: str) -> av.AudioFrame:
    time = second + np.arange(RATE) / RATE
    wave = 0.5 * np.sin(2 * np.pi * tone * time)
    both: NDArray[np.generic] = np.stack([wave, wave]).astype(np.float32)
    if layout == "s16":
        both = (both.T.reshape(1, -1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(both), format=layout, layout="stereo")
    frame.sample_rate, frame.pts = RATE, second * RATE
    return frame
