"""The sound half of the one pass over a file: samples for the encoders, loudness and silence for the description."""

from __future__ import annotations

import math
from typing import Any

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from avrec_spark.media.loudness import LoudnessMeter
from avrec_spark.media.records import Limits, Sound
from avrec_spark.media.span import CONTEXT_SECONDS, Span, packet_end, packet_start

# A decoder needs a packet or two before it is in step.
_PRIMING = 0.25
_GATHERED_SECONDS = 1.0


class SoundReader:
    """Decodes audio packets as they pass, to mono float32 at the wanted rate, for one span of the file."""

    def __init__(self, stream: AudioStream, limits: Limits, span: Span, origin: float) -> None:
        self.stream = stream
        self.span = span
        self.origin = origin
        self.packets = 0
        self.errors = 0
        self.end = origin
        self.meter: LoudnessMeter | None = None
        self._unit = float(stream.time_base or 0)
        self._wanted = span.end - span.start + 2 * CONTEXT_SECONDS
        self._rate = limits.sample_rate
        self._first: float | None = None  # when the first decoded sample was heard, in seconds of the file
        self._pieces: list[NDArray[np.float32]] = []
        self._fifo: AudioFifo | None = None
        self._format: tuple[str, str, int] | None = None  # of what waits in the fifo
        self._mono = self._resampler("mono", limits.sample_rate)
        self._planar: AudioResampler | None = None
        self._measured = (0, 0)  # rate and channels of what the meter gets
        stream.codec_context.thread_count = 1

    def take(self, packet: Packet[Any]) -> None:
        start = packet_start(packet, self._unit)
        begins = None if start is None else start - self.origin
        # A seek lands on a key frame that may lie far before the span.
        if begins is not None and not -_PRIMING < begins - self.span.start + CONTEXT_SECONDS < self._wanted:
            return
        if begins is None or self.span.start <= begins < self.span.end:
            self.packets += 1
            self.end = max(self.end, packet_end(packet, self._unit))
        self._decode(packet)

    def finish(self) -> Sound:
        """The samples of the span and its context; call once, after the last packet."""
        self._decode(None)
        self._pass_on()
        self._keep(self._resampled(self._mono, None))
        samples = np.concatenate([np.empty(0, np.float32), *self._pieces])
        self._pieces = []
        # A damaged floating-point track may hold any bit pattern.
        np.nan_to_num(samples, copy=False, posinf=0.0, neginf=0.0)
        np.clip(samples, -4.0, 4.0, out=samples)
        return self._cut(samples)

    def _cut(self, samples: NDArray[np.float32]) -> Sound:
        """Own samples and at most the agreed context on either side."""
        first = round(max(self._first or 0.0, 0.0) * self._rate)
        own_start = max(first, round(self.span.start * self._rate))
        own_end = first + len(samples)
        if math.isfinite(self.span.end):
            own_end = min(own_end, round(self.span.end * self._rate))
        own_end = max(own_start, own_end)
        context = round(CONTEXT_SECONDS * self._rate)
        lead = max(first, own_start - context)
        trail = min(first + len(samples), own_end + context)
        if trail <= own_start or own_end == own_start:
            return Sound(rate=self._rate, start=own_start / self._rate)
        return Sound(
            samples[lead - first : trail - first],
            self._rate,
            own_start / self._rate,
            before=own_start - lead,
            after=trail - own_end,
        )

    def _decode(self, packet: Packet[Any] | None) -> None:
        try:
            frames = self.stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            self.errors += 1
            return
        for frame in frames:
            if self._first is None:
                self._first = self._heard(frame, packet)
            self._gather(frame)

    def _gather(self, frame: AudioFrame) -> None:
        """Frames have a thousand samples or so: one by one, the calls would cost more than the work."""
        kind = frame.format.name, frame.layout.name, frame.rate
        if self._fifo is None or kind != self._format:
            self._pass_on()
            self._fifo, self._format = AudioFifo(), kind
        frame.pts = None  # a fifo refuses gaps
        self._fifo.write(frame)
        if self._fifo.samples >= frame.rate * _GATHERED_SECONDS:
            self._pass_on()

    def _pass_on(self) -> None:
        """Hand what was gathered to the meter and to the resampler."""
        frame = self._fifo.read() if self._fifo else None
        if frame is not None:
            self._measure(frame)
            self._keep(self._resampled(self._mono, frame))

    def _heard(self, frame: AudioFrame, packet: Packet[Any] | None) -> float:
        start = frame.time if frame.time is not None else packet_start(packet, self._unit) if packet else None
        return 0.0 if start is None else start - self.origin

    def _measure(self, frame: AudioFrame) -> None:
        if frame.format.name != "fltp" or self._planar is not None:
            if self._planar is None:
                self._planar = AudioResampler(format="fltp", layout=frame.layout.name, rate=frame.rate)
            pieces = self._resampled(self._planar, frame)
        else:
            pieces = [frame]
        for piece in pieces:
            samples = np.asarray(piece.to_ndarray(), np.float32)
            if self.meter is None:
                start = max(self._first or 0.0, 0.0)
                self.meter = LoudnessMeter(piece.rate, len(samples), start, own=(self.span.start, self.span.end))
                self._measured = (piece.rate, len(samples))
            if self._measured == (piece.rate, len(samples)):
                self.meter.add(samples)

    def _resampled(self, resampler: AudioResampler, frame: AudioFrame | None) -> list[AudioFrame]:
        try:
            return list(resampler.resample(frame))
        except ValueError:
            # The track changed its rate or its channels; a resampler serves one format only.
            if resampler is self._mono:
                self._mono = self._resampler("mono", self._rate)
                return list(self._mono.resample(frame))
            return []

    def _keep(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            self._pieces.append(frame.to_ndarray()[0])

    @staticmethod
    def _resampler(layout: str, rate: int) -> AudioResampler:
        # Without the bound, stereo mixed to mono comes out 3 dB above a mono recording of the same sound, and clips.
        return AudioResampler(format="fltp", layout=layout, rate=rate, options={"rematrix_maxval": "1.0"})
