"""What goes into a decode and what comes out of it.

| status | meaning |
|---|---|
| ok | everything that the file declares was read |
| partial | something usable was read; the reason says what is lacking |
| corrupt | a media file by name, and nothing usable in it |
| unsupported | not a plain local media file, or no decoder for it |
| missing | no such file, or it cannot be read |
| timeout | decoding took longer than allowed |
| too_large | frames above `max_pixels`; not decoded |
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from avrec_spark.config import FeatureSettings

FRAME_SIZE = 224

Status = Literal["ok", "partial", "corrupt", "unsupported", "missing", "timeout", "too_large"]


@dataclass(frozen=True)
class Limits:
    """How much of a file is decoded; the fields and defaults are those of `config.FeatureSettings`."""

    max_key_frames: int = 8
    max_audio_seconds: float = 120.0
    sample_rate: int = 22_050
    thumbnail_width: int = 192
    timeout_seconds: float = 60.0
    max_pixels: int = 8_294_400 * 4

    @classmethod
    def of(cls, settings: FeatureSettings) -> Limits:
        return cls(**{limit.name: getattr(settings, limit.name) for limit in fields(cls)})


@dataclass
class MediaInfo:
    """What the file is; names as in `tables.MEDIA`, None where unknown.

    `width` and `height` are those of the upright picture, `duration` is in seconds and measured from the packets,
    `gop` is the mean number of packets from one key frame to the next, `bit_rate` is in bits per second, `loudness`
    is the RMS level of the decoded audio in dB below full scale.
    """

    container: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    frame_rate: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    gop: int | None = None
    bit_rate: int | None = None
    loudness: float | None = None


@dataclass
class Shot:
    """A run of key frames that look alike. Times in seconds; `thumbnail` is a JPEG of at most 64 KiB."""

    start: float
    end: float
    key_frame_time: float
    thumbnail: bytes


def _no_frames() -> NDArray[np.uint8]:
    return np.empty((0, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)


@dataclass
class DecodedMedia:
    """One file, decoded as far as the limits allow.

    `frames` is uint8[n, 224, 224, 3], RGB, upright: short side scaled to 224, then the centre square. `frame_times`
    is float64[n] in seconds. `audio` is float32[samples], mono, at `Limits.sample_rate`. Either may be empty.
    `frames_decoded` counts decoded video frames (at least n), `seconds_decoded` is the length of `audio`.
    """

    info: MediaInfo = field(default_factory=MediaInfo)
    status: Status = "ok"
    reason: str | None = None
    detail: str | None = None
    retryable: bool = False
    frames: NDArray[np.uint8] = field(default_factory=_no_frames)
    frame_times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    audio: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    shots: list[Shot] = field(default_factory=list)
    frames_decoded: int = 0
    seconds_decoded: float = 0.0
    seconds_spent: float = 0.0


class Refusal(Exception):
    """A file that is not decoded, and why. Internal to this package: callers see a `DecodedMedia` with the status."""

    def __init__(self, status: Status, reason: str, detail: str, retryable: bool = False) -> None:
        super().__init__(detail)
        self.status: Status = status
        self.reason = reason
        self.detail = detail
        self.retryable = retryable

    def as_media(self) -> DecodedMedia:
        return DecodedMedia(status=self.status, reason=self.reason, detail=self.detail, retryable=self.retryable)
