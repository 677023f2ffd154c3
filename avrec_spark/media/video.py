"""The video half of the one pass over a file: key frames, shots and motion.

Each key frame is decoded as it passes and scaled once; of what it shows little is kept, so that memory does not grow
with the length of the film. Other frames are decoded only where they are needed: the few after a key frame for
motion, those of a stretch in which a transition hides, and all of a short clip that has hardly any key frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avrec_spark.media import pictures
from avrec_spark.media.decoder import Decoder, Skip
from avrec_spark.media.finder import TransitionFinder
from avrec_spark.media.frames import FramePool, Pairs
from avrec_spark.media.gop import Gop
from avrec_spark.media.pictures import Picture
from avrec_spark.media.records import Frames, Limits, Motion, Need, Screen, Shot
from avrec_spark.media.shots import ShotBuilder
from avrec_spark.media.span import Span, packet_end, packet_start
from avrec_spark.media.timing import FrameRateMeter
from avrec_spark.media.transitions import HEIGHT, WIDTH, Look, colour_distance, is_black, look
from avrec_spark.media.transnet import TransNet

# A short clip with hardly any key frames is decoded in full, for at most so long and so many bytes of it.
DENSE_SECONDS = 60.0
DENSE_BYTES = 64 * 2**20
# Frames of such a clip are at least so far apart, unless they differ.
DENSE_SPACING = 0.5
DENSE_COLOURS = 0.45
# The second picture of a pair follows the first after at least so many seconds, and within so many packets.
MOTION_SECONDS = 0.1
MOTION_PACKETS = 32
# Of key frames that follow each other faster, as where every frame is one, not all are decoded.
KEY_SPACING = 0.15


@dataclass
class Pictures:
    """What one span of a video stream shows; `decoded` counts frames, the others are as in `Statistics`."""

    frames: Frames = field(default_factory=Frames)
    motion: Motion = field(default_factory=Motion)
    screen: Screen = field(default_factory=Screen)
    shots: list[Shot] = field(default_factory=list)
    packets: int = 0
    key_frames: int = 0
    black_frames: int = 0
    decoded: int = 0
    quarter_turns: int = 0
    variable_frame_rate: bool | None = None


class VideoReader:
    """Reads one span of a video stream: hand it every packet, in order, and then ask for what was found.

    Packets before and after the span are context. What happens between two key frames belongs to the span of the
    second: a shot may begin a little before its span.
    """

    def __init__(self, stream: VideoStream, limits: Limits, needs: frozenset[Need], span: Span, origin: float) -> None:
        self.stream = stream
        self.end = origin
        self._limits, self._needs, self._span, self._origin = limits, needs, span, origin
        # A few frames may be declared to lie before the beginning of a file.
        self._start = span.start if span.start > 0 else -math.inf
        self._unit = float(stream.time_base or 0)
        self._taken = Pictures()
        self._decoder = Decoder(stream.codec_context, limits.max_pixels)
        ratio = stream.codec_context.sample_aspect_ratio
        self._scaler = pictures.Scaler(limits.thumbnail_width, "screen" in needs, float(ratio) if ratio else 1.0)
        self._rate = FrameRateMeter(self._unit)
        self._pool = FramePool(limits.max_key_frames)
        self._pairs = Pairs(limits.max_key_frames, span.start, self._expected_seconds())
        self._finder: TransitionFinder | TransNet = TransitionFinder(self._looks, stream.width * stream.height)
        if limits.shots == "transnetv2":
            self._finder = TransNet(stream, limits.max_pixels, span, origin)
        self._builder = ShotBuilder(span.start)
        # All packets, while this may be a short clip without key frames.
        self._held: list[tuple[Packet[Any], float]] | None = []
        self._held_bytes = 0
        self._key: tuple[Packet[Any], float] | None = None  # not decoded yet
        self._following: list[Packet[Any]] = []  # what follows it up to a second picture for motion
        self._gop, self._gop_before = Gop(), Gop()
        self._context: tuple[Packet[Any], float] | None = None  # the last key frame before the span
        self._last: Look | None = None

    @property
    def packets(self) -> int:
        return self._taken.packets

    @property
    def errors(self) -> int:
        return self._decoder.errors

    def take(self, packet: Packet[Any]) -> None:
        start = packet_start(packet, self._unit)
        time = (self.end if start is None else start) - self._origin
        self.end = max(self.end, packet_end(packet, self._unit))
        if self._start <= time < self._span.end:
            self._taken.packets += 1
            self._taken.key_frames += packet.is_keyframe
            if packet.pts is not None:
                self._rate.add(packet.pts)
        if isinstance(self._finder, TransNet):
            self._finder.take(packet, time)
        if self._held is None:
            self._pass_on(packet, time)
            return
        self._held.append((packet, time))
        self._held_bytes += packet.size
        if self._is_long(self._held):
            held, self._held = self._held, None
            for timed in held:
                self._pass_on(*timed)

    def finish(self) -> Pictures:
        """What the span shows; call once, after the last packet."""
        if self._held is not None:
            self._decode_all(self._held)
        else:
            self._decode_key()
            if self._last and self.end - self._origin < self._span.end:
                self._finder.gap(self._last, self._gop, None)
            if not self._pool.candidates and self._context and self._taken.packets:
                # No key frame in the whole span: the one before it shows what there is to see.
                self._key = self._context[0], self._span.start
                self._decode_key()
        self._builder.settle(self._finder.finish(), math.inf)
        taken = self._taken
        end = self.end - self._origin
        taken.shots = self._builder.finish(min(self._span.end, end), is_last=end < self._span.end)
        taken.motion = self._pairs.motion()
        taken.decoded = self._decoder.decoded
        if isinstance(self._finder, TransNet):
            taken.decoded += self._finder.decoded
        taken.variable_frame_rate = self._rate.variable()
        self._choose()
        # It refers back to this reader; a cycle would keep all pictures until the garbage collector comes by.
        del self._finder
        return taken

    def _expected_seconds(self) -> float:
        """How long the span probably is; infinite where the container does not say."""
        container = self.stream.container
        duration = container.duration if isinstance(container, InputContainer) else None
        declared = duration / av.time_base if duration else math.inf
        return min(self._span.end, declared) - self._span.start

    def _is_long(self, held: list[tuple[Packet[Any], float]]) -> bool:
        return (
            self._taken.key_frames >= max(1, self._limits.max_key_frames // 2)
            or self._held_bytes > DENSE_BYTES
            or held[-1][1] - held[0][1] > DENSE_SECONDS
        )

    def _pass_on(self, packet: Packet[Any], time: float) -> None:
        if not packet.is_keyframe:
            self._gop.add(packet, time)
            if self._key and time > self._key[1]:
                self._following.append(packet)
                if time - self._key[1] >= MOTION_SECONDS or len(self._following) >= MOTION_PACKETS:
                    self._decode_key()
        elif time < self._start:
            self._context, self._gop = (packet, time), Gop(packet, time)
        elif time < self._span.end:
            self._begin(packet, time)
        else:
            self._decode_key()

    def _begin(self, packet: Packet[Any], time: float) -> None:
        self._decode_key()
        if self._last and time - self._last.time < KEY_SPACING:
            self._taken.black_frames += is_black(self._last)
            self._gop.add(packet, time)
            return
        self._key = packet, time
        self._gop_before, self._gop = self._gop, Gop(packet, time)
        if "motion" not in self._needs or not self._pairs.due(time):
            self._decode_key()

    def _decode_key(self) -> None:
        """Decode the key frame that waits, and what follows it if a pair is wanted."""
        if not self._key:
            return
        (packet, time), following = self._key, self._following
        self._key, self._following = None, []
        if self._context and not self._last:
            frame = self._decoder.key(self._context[0])
            self._last = self._look(frame, self._context[1]) if frame else None
        frames = list(self._decoder.run([packet, *following])) if following else [self._decoder.key(packet)]
        if not frames or frames[0] is None:
            return
        picture = self._add(frames[0], max(0.0, time))
        if following and frames[-1] is not None and len(frames) > 1:
            second = self._scaler.motion(frames[-1])
            self._pairs.add(pictures.motion(picture), second, max(0.0, time), self._time(frames[-1], time) - time)

    def _add(self, frame: VideoFrame, time: float) -> Picture:
        """A key frame of the span."""
        picture, at = self._keep(frame, time)
        if self._last:
            self._finder.gap(self._last, self._gop_before, at)
            self._builder.settle(*self._finder.settled())
        self._last = at
        self._taken.black_frames += is_black(at)
        return picture

    def _keep(self, frame: VideoFrame, time: float, spare: bool = False) -> tuple[Picture, Look]:
        picture = self._scaler.picture(frame)
        at = look(picture, time)
        turns = self._taken.quarter_turns = pictures.quarter_turns(frame)
        self._pool.add(at, picture, spare)
        self._builder.add(at, pictures.thumbnail(picture, self._limits.thumbnail_width, turns))
        return picture, at

    def _decode_all(self, packets: list[tuple[Packet[Any], float]]) -> None:
        # Frames that no other frame refers to (most B-frames) are not needed to get at the rest.
        last: Look | None = None
        first: tuple[Picture, float] | None = None
        for frame in self._decoder.run((packet for packet, _ in packets), "NONREF"):
            time = self._time(frame, last.time if last else self._span.start)
            at = self._look(frame, max(0.0, time))
            self._finder.see(at)
            if not self._start <= time < self._span.end:
                continue
            self._taken.black_frames += frame.key_frame and is_black(at)
            if (
                last is None
                or at.time - last.time >= DENSE_SPACING
                or colour_distance(last.colours, at.colours) > DENSE_COLOURS
            ):
                self._keep(frame, at.time)
                last = at
            if "motion" not in self._needs:
                continue
            if first and at.time - first[1] >= MOTION_SECONDS:
                self._pairs.add(first[0], self._scaler.motion(frame), first[1], at.time - first[1])
                first = None
            elif not first and self._pairs.due(at.time):
                first = self._scaler.motion(frame), at.time

    def _looks(self, packets: Sequence[Packet[Any]], skip: Skip) -> Iterator[Look]:
        """Looks of the frames of packets that follow each other; a few are kept, for shots between two key frames."""
        kept: float | None = None
        for frame in self._decoder.run(packets, skip):
            time = self._time(frame, 0.0)
            yield self._look(frame, time)
            if kept is None:
                kept = time
            elif time - kept >= DENSE_SPACING and self._start <= time < self._span.end:
                self._keep(frame, time, spare=True)
                kept = time

    def _look(self, frame: VideoFrame, time: float) -> Look:
        return look(self._scaler.tiny(frame, WIDTH, HEIGHT), time)

    def _time(self, frame: VideoFrame, otherwise: float) -> float:
        return otherwise if frame.pts is None else frame.pts * self._unit - self._origin

    def _choose(self) -> None:
        taken, turns = self._taken, self._taken.quarter_turns
        chosen = self._pool.chosen(taken.shots, self._limits.max_key_frames)
        if not chosen:
            return
        times = np.array([candidate.look.time for candidate in chosen])
        if "frames" in self._needs:
            taken.frames = Frames(np.stack([pictures.square(candidate.picture, turns) for candidate in chosen]), times)
        if "screen" in self._needs:
            taken.screen = Screen([pictures.screen(candidate.picture, turns) for candidate in chosen], times)
