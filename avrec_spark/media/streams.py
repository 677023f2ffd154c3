"""The two readers that share one pass over a file's packets: key frames and sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avrec_spark.media import pictures
from avrec_spark.media.records import Limits

# A short clip with hardly any key frames is decoded in full, for at most so long and so many bytes of it.
DENSE_SECONDS = 60.0
DENSE_BYTES = 64 * 2**20
# Frames of such a clip are at least so far apart.
DENSE_SPACING = 0.5


@dataclass
class Pictures:
    """Frames taken from a video stream, in order of time."""

    squares: list[NDArray[np.uint8]] = field(default_factory=list)
    thumbnails: list[NDArray[np.uint8]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    quarter_turns: int = 0
    decoded: int = 0


class KeyFrameReader:
    """Collects video packets as they pass and decodes a few, well spread frames at the end.

    Normally these are key frames, each decoded on its own. Where a short clip has fewer than half of the frames asked
    for as key frames, every packet of it is decoded and frames are taken at even distances. Memory stays bounded: of
    many key frames every second, then every fourth, … is kept.
    """

    def __init__(self, stream: VideoStream, limits: Limits, origin: float) -> None:
        self.stream = stream
        self.limits = limits
        self.origin = origin
        self.packets = 0
        self.key_frames = 0
        self.errors = 0
        self.end = origin
        self._unit = float(stream.time_base or 0)
        self._stride = 1
        self._keys: list[Packet[Any]] = []
        self._all: list[Packet[Any]] | None = []
        self._all_bytes = 0
        # One core a task; and libav itself refuses frames that turn out larger than the header said.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}

    @property
    def gop(self) -> int | None:
        return round(self.packets / self.key_frames) if self.key_frames else None

    def take(self, packet: Packet[Any]) -> None:
        self.packets += 1
        self.end = max(self.end, _end(packet, self._unit))
        if packet.is_keyframe:
            self._keep_key(packet)
        if self._all is not None:
            self._all.append(packet)
            self._all_bytes += packet.size
            enough = self.key_frames >= self._enough
            if enough or self._all_bytes > DENSE_BYTES or self.end - self.origin > DENSE_SECONDS:
                self._all = None

    def finish(self) -> Pictures:
        """Decode; call once, after the last packet."""
        return self._dense() if self._all else self._sparse()

    @property
    def _enough(self) -> int:
        return max(1, self.limits.max_key_frames // 2)

    def _keep_key(self, packet: Packet[Any]) -> None:
        if self.key_frames % self._stride == 0:
            self._keys.append(packet)
        self.key_frames += 1
        if len(self._keys) > 4 * self.limits.max_key_frames:
            self._keys = self._keys[::2]
            self._stride *= 2

    def _sparse(self) -> Pictures:
        taken = Pictures()
        wanted = min(self.limits.max_key_frames, len(self._keys))
        context = self.stream.codec_context
        for position in _middles(wanted) * len(self._keys):
            packet = self._keys[int(position)]
            try:
                # Draining after each packet gives its frame at once and keeps one damaged frame from spoiling the next.
                frames = [*context.decode(packet), *context.decode(None)]
            except av.error.FFmpegError:
                frames = []
            context.flush_buffers()
            if frames:
                taken.decoded += len(frames)
                self._add(taken, frames[0], self._time(packet))
            else:
                self.errors += 1
        return taken

    def _dense(self) -> Pictures:
        taken = Pictures()
        packets = self._all or []
        targets = self._targets()
        # Frames that no other frame refers to (most B-frames) are not needed to get at the rest.
        self.stream.codec_context.skip_frame = "NONREF"
        last: tuple[VideoFrame, float] | None = None
        for packet in [*packets, None]:
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                self.errors += 1
                continue
            for frame in frames:
                taken.decoded += 1
                last = frame, frame.time if frame.time is not None else self._time(packet)
                if targets and last[1] - self.origin >= targets[0]:
                    self._add(taken, *last)
                    targets = [target for target in targets if target > last[1] - self.origin]
            if not targets:
                break
        if not taken.squares and last:  # A single frame, shown before the first target.
            self._add(taken, *last)
        return taken

    def _targets(self) -> list[float]:
        """Evenly spread times, each moved to a key frame that is near: encoders put those where a shot begins."""
        length = max(self.end - self.origin, 1e-3)
        count = int(np.clip(round(length / DENSE_SPACING), 1, self.limits.max_key_frames))
        targets = _middles(count) * length
        for packet in self._keys[1:]:
            key = self._time(packet) - self.origin
            targets[np.argmin(np.abs(targets - key))] = key
        return [float(target) - 1e-6 for target in np.sort(targets)]

    def _time(self, packet: Packet[Any] | None) -> float:
        start = _start(packet, self._unit) if packet is not None else None
        return self.end if start is None else start

    def _add(self, taken: Pictures, frame: VideoFrame, time: float) -> None:
        ratio = self.stream.codec_context.sample_aspect_ratio
        aspect = float(ratio) if ratio else 1.0
        taken.squares.append(pictures.square(frame, aspect))
        taken.thumbnails.append(pictures.thumbnail(frame, self.limits.thumbnail_width, aspect))
        taken.times.append(max(0.0, time - self.origin))
        taken.quarter_turns = pictures.quarter_turns(frame)


class SoundReader:
    """Decodes audio packets as they pass, to mono float32 at the wanted rate, up to the wanted length."""

    def __init__(self, stream: AudioStream, limits: Limits, origin: float) -> None:
        self.stream = stream
        self.packets = 0
        self.errors = 0
        self.end = origin
        self._unit = float(stream.time_base or 0)
        self._rate = limits.sample_rate
        self._wanted = round(limits.max_audio_seconds * limits.sample_rate)
        self._pieces: list[NDArray[np.float32]] = []
        self._samples = 0
        self._resampler = self._new_resampler()
        stream.codec_context.thread_count = 1

    def take(self, packet: Packet[Any]) -> None:
        self.packets += 1
        self.end = max(self.end, _end(packet, self._unit))
        if self._samples < self._wanted:
            self._decode(packet)

    def finish(self) -> NDArray[np.float32]:
        """The samples, float32[n]; call once, after the last packet."""
        if self._samples < self._wanted:
            self._decode(None)
            self._resample(None)
        samples = np.concatenate([np.empty(0, np.float32), *self._pieces])[: self._wanted]
        # A damaged floating-point track may hold any bit pattern.
        return np.asarray(np.clip(np.nan_to_num(samples), -4.0, 4.0), np.float32)

    def _decode(self, packet: Packet[Any] | None) -> None:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            self.errors += 1
            return
        for frame in frames:
            self._resample(frame)

    def _resample(self, frame: AudioFrame | None) -> None:
        try:
            resampled = self._resampler.resample(frame)
        except ValueError:
            # The track changed its rate or its channels; a resampler serves one format only.
            self._resampler = self._new_resampler()
            resampled = self._resampler.resample(frame)
        for piece in resampled:
            self._pieces.append(piece.to_ndarray()[0])
            self._samples += piece.samples

    def _new_resampler(self) -> AudioResampler:
        # Without the bound, stereo mixed to mono comes out 3 dB above a mono recording of the same sound, and clips.
        return AudioResampler(format="fltp", layout="mono", rate=self._rate, options={"rematrix_maxval": "1.0"})


def _middles(count: int) -> NDArray[np.float64]:
    """The middles of `count` equal parts of 0…1."""
    return (np.arange(count) + 0.5) / max(count, 1)


def _start(packet: Packet[Any], unit: float) -> float | None:
    """Seconds; `unit` is the stream's time base as a float, for exact fractions are slow and packets are many."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None else stamp * unit


def _end(packet: Packet[Any], unit: float) -> float:
    start = _start(packet, unit)
    return float("-inf") if start is None else start + (packet.duration or 0) * unit
