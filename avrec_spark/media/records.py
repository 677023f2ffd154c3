"""What goes into a decode and what comes out of it.

| status | meaning |
|---|---|
| ok | everything that the file declares was read |
| partial | something usable was read; the reason says what is lacking |
| corrupt | a media file by name, and nothing usable in it |
| unsupported | not a plain media file, no decoder for it, or a place that may not be read from |
| missing | no such file, or it cannot be read |
| timeout | decoding took longer than allowed |
| too_large | more pixels, bytes or memory than allowed; not decoded |
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from avrec_spark.media.statistics import Statistics

if TYPE_CHECKING:
    from avrec_spark.config import FeatureSettings

FRAME_SIZE = 224
# Low-resolution grey pictures that motion is measured on.
MOTION_WIDTH, MOTION_HEIGHT = 160, 90

Status = Literal["ok", "partial", "corrupt", "unsupported", "missing", "timeout", "too_large"]
# What an encoder reads; a decode takes from the file only what some encoder needs.
Need = Literal["frames", "motion", "sound", "screen"]
NEEDS: tuple[Need, ...] = ("frames", "motion", "sound", "screen")


@dataclass(frozen=True)
class Limits:
    """How much of a file is decoded; the fields and defaults are those of `config.FeatureSettings`."""

    max_key_frames: int = 8
    sample_rate: int = 22_050
    thumbnail_width: int = 192
    range_seconds: float = 600.0
    max_seconds: float = 14_400.0
    max_pixels: int = 8_294_400 * 4
    max_bytes: int = 2**38
    max_memory_mib: int = 1536
    timeout_seconds: float = 180.0
    protocols: tuple[str, ...] = ("file", "s3", "s3a", "gs", "gcs", "abfs", "abfss")
    cache_folder: str | None = None
    cache_mib: int = 1024
    shots: Literal["fast", "transnetv2"] = "fast"

    @classmethod
    def of(cls, settings: FeatureSettings) -> Limits:
        return cls(**{limit.name: getattr(settings, limit.name) for limit in fields(cls)})


@dataclass(frozen=True)
class Request:
    """One decode: a URI, what is needed of it, and which range, counted from 0, of `Limits.range_seconds` each."""

    uri: str
    needs: frozenset[Need] = frozenset(NEEDS) - {"screen"}
    part: int = 0


@dataclass
class Chapter:
    """A named part of a file, as its container declares it. Times in seconds."""

    start: float
    end: float
    title: str | None = None


@dataclass
class MediaInfo:
    """What the file is; names as in `tables.MEDIA`, None where unknown.

    | field | meaning |
    |---|---|
    | width, height | of the picture as shown: upright, with square pixels |
    | duration | seconds, measured from the packets |
    | frame_rate | mean frames a second; `variable_frame_rate`: whether the distance of frames changes |
    | gop | mean number of packets from one key frame to the next |
    | bit_rate | bits a second |
    | bit_depth, colour | bits a channel; primaries/transfer/matrix, such as bt709 or bt2020/smpte2084/bt2020nc |
    | loudness | integrated loudness in LUFS (ITU-R BS.1770-4) |
    | silence_share, black_share | of the blocks of 100 ms below −60 dBFS, of the key frames that are black |
    | languages | of the tracks, as declared (ISO 639) |
    | media_tags | the container's own tags, such as title and artist |
    """

    container: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    frame_rate: float | None = None
    variable_frame_rate: bool | None = None
    video_codec: str | None = None
    bit_depth: int | None = None
    colour: str | None = None
    gop: int | None = None
    audio_codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    bit_rate: int | None = None
    loudness: float | None = None
    silence_share: float | None = None
    black_share: float | None = None
    languages: list[str] = field(default_factory=list)
    chapters: list[Chapter] = field(default_factory=list)
    media_tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Shot:
    """One uninterrupted take. Times in seconds; `thumbnail` is a JPEG of at most 64 KiB.

    `transition` is how it begins: start (of the file), cut, fade, or range, where a range of a long file begins in the
    middle of a shot and `merge` joins it to the one before. `transition_seconds` is how long a fade takes; the shot
    begins in its middle. `colours` is a coarse colour histogram, float32[n] with sum 1, that `key_scenes` compares.
    """

    start: float
    end: float
    key_frame_time: float
    thumbnail: bytes
    transition: Literal["start", "cut", "fade", "range"] = "start"
    transition_seconds: float = 0.0
    key_scene: bool = False
    colours: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), compare=False)


@dataclass
class Frames:
    """Key frames of a file: uint8[n, 224, 224, 3], RGB, upright (short side scaled to 224, then the centre square);
    `times` is float64[n] in seconds."""

    pictures: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, FRAME_SIZE, FRAME_SIZE, 3), np.uint8))
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass
class Motion:
    """Pairs of grey pictures a moment apart: uint8[n, 2, 90, 160], not turned upright; `times` float64[n] when the
    first was shown, `seconds` float64[n] how much later the second."""

    pairs: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 2, MOTION_HEIGHT, MOTION_WIDTH), np.uint8))
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass
class Sound:
    """Samples float32[n], mono, at `rate` a second. The first own sample was heard at `start` seconds.

    Of a range of a long file, `before` samples at the beginning and `after` at the end belong to its neighbours: what
    is computed in windows may look at them, what is counted must not count them.
    """

    samples: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    rate: int = 22_050
    start: float = 0.0
    before: int = 0
    after: int = 0

    @property
    def own(self) -> NDArray[np.float32]:
        return self.samples[self.before : len(self.samples) - self.after]

    def __len__(self) -> int:
        return len(self.samples) - self.before - self.after


@dataclass
class Screen:
    """Key frames in a size that writing can be read in: a list of uint8[h, w, 3], RGB, upright, and their times."""

    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass
class DecodedMedia:
    """One file, or one range of a long one, decoded as far as the limits allow; what was not needed is empty.

    `parts` is the number of ranges that the file has. `frames_decoded` counts decoded video frames, at least those
    handed out; `seconds_decoded` is the length of the decoded sound.
    """

    info: MediaInfo = field(default_factory=MediaInfo)
    status: Status = "ok"
    reason: str | None = None
    detail: str | None = None
    retryable: bool = False
    frames: Frames = field(default_factory=Frames)
    motion: Motion = field(default_factory=Motion)
    sound: Sound = field(default_factory=Sound)
    screen: Screen = field(default_factory=Screen)
    shots: list[Shot] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)
    part: int = 0
    parts: int = 1
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
