"""One open and one pass over the packets of a file: what it is, a few frames, its shots, its sound.

`decode` gives an answer for whatever lies under a name. It runs libav in the calling process, where a native crash is
a crash; `watchdog.Decoder` is the way to read files of others.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from avrec_spark.errors import AvrecError
from avrec_spark.media.probe import declared_seconds, probe
from avrec_spark.media.records import DecodedMedia, Limits, MediaInfo, Refusal, Request, Sound
from avrec_spark.media.sound import SoundReader
from avrec_spark.media.source import open_container
from avrec_spark.media.span import CONTEXT_SECONDS, packet_start, parts, span
from avrec_spark.media.statistics import Statistics
from avrec_spark.media.video import Pictures, VideoReader

_TOLERATED_SECONDS = 0.5
_TOLERATED_SHARE = 0.02
# Estimates from the bit rate are poor; a length so many times the estimate is a damaged timestamp.
_ABSURD = 10.0
# Frames that a decoder holds for others to refer to, and what the process takes before the first.
_FRAMES_HELD = 6
_BASE_MEBIBYTES = 100
# Tracks are interleaved: one that is so far behind the other has ended.
_INTERLEAVED_SECONDS = 10.0

av.logging.set_level(None)


def decode(request: Request, limits: Limits) -> DecodedMedia:
    """Probe a file and decode what is needed of one range of it, in one pass.

    Never raises on bad media: see `records` for the statuses.

    >>> decode(Request("no such film.mp4"), Limits()).status
    'missing'
    """
    started = time.perf_counter()
    try:
        with open_container(request.uri, limits) as container:
            media = _read(container, request, limits)
    except Refusal as refusal:
        media = refusal.as_media()
    except MemoryError:
        media = out_of_memory(limits).as_media()
    except AvrecError as error:  # The library for a store is not installed.
        media = Refusal("unsupported", "not_installed", str(error), retryable=True).as_media()
    except Exception as error:
        media = Refusal("corrupt", "decoder_error", f"{type(error).__name__}: {error}").as_media()
    media.part = request.part
    media.seconds_spent = time.perf_counter() - started
    return media


def out_of_memory(limits: Limits) -> Refusal:
    detail = f"Decoding it takes more than the {limits.max_memory_mib} MiB of memory that are allowed."
    return Refusal("too_large", "out_of_memory", detail)


class _Pass:
    """The readers of one pass over a container, and how the pass ended."""

    def __init__(self, container: InputContainer, request: Request, limits: Limits) -> None:
        self.container = container
        self.origin = container.start_time / av.time_base if container.start_time else 0.0
        self.declared = declared_seconds(container)
        length = container.duration / av.time_base if container.duration else None
        self.parts = max(parts(length, limits.range_seconds, limits.max_seconds), request.part + 1)
        self.span = span(request.part, self.parts, limits.range_seconds, limits.max_seconds)
        self.video_stream, self.audio_stream, self.undecodable = _streams(container)
        self.failure: str | None = None
        needs = request.needs
        self.pictures = self.sound = None
        if self.video_stream and needs & {"frames", "motion", "screen"}:
            self.pictures = VideoReader(self.video_stream, limits, needs, self.span, self.origin)
        if self.audio_stream and "sound" in needs:
            self.sound = SoundReader(self.audio_stream, limits, self.span, self.origin)

    @property
    def readers(self) -> list[VideoReader | SoundReader]:
        return [reader for reader in (self.pictures, self.sound) if reader]

    @property
    def end(self) -> float:
        """Seconds of the file at which the last packet ends."""
        return max([reader.end for reader in self.readers], default=self.origin) - self.origin

    def run(self) -> None:
        """Hand every packet of the span and its context to its reader, once."""
        readers = {reader.stream.index: reader for reader in self.readers}
        if not readers:
            return
        units = {index: float(reader.stream.time_base or 0) for index, reader in readers.items()}
        reached = dict.fromkeys(readers, -math.inf)
        last = self.span.end + CONTEXT_SECONDS
        try:
            self._seek()
            for packet in self.container.demux([reader.stream for reader in readers.values()]):
                if not packet.size:
                    continue
                index = packet.stream_index
                readers[index].take(packet)
                start = packet_start(packet, units[index])
                if start is not None and start - self.origin > last:
                    reached[index] = start - self.origin
                    if min(reached.values()) > last or self._others_have_ended(reached, last):
                        break
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError) as error:
            self.failure = getattr(error, "strerror", None) or type(error).__name__

    def _others_have_ended(self, reached: dict[int, float], last: float) -> bool:
        """Whether one track is so far ahead that nothing more of the others is to be expected.

        A track that has given nothing may follow the other one as a whole: then all of the file is read.
        """
        seen = all(reader.packets for reader in self.readers)
        return seen and max(reached.values()) > last + _INTERLEAVED_SECONDS

    def _seek(self) -> None:
        wanted = self.span.start - CONTEXT_SECONDS
        if wanted > 0:
            self.container.seek(round((wanted + self.origin) * av.time_base), backward=True)


def _read(container: InputContainer, request: Request, limits: Limits) -> DecodedMedia:
    run = _Pass(container, request, limits)
    _require_readable(run, limits)
    run.run()
    pictures = run.pictures.finish() if run.pictures else Pictures()
    sound = run.sound.finish() if run.sound else Sound(rate=limits.sample_rate)
    seconds = _plausible(run.end, container)
    statistics = _statistics(pictures, run.sound)
    media = DecodedMedia(
        _info(run, pictures, statistics, seconds),
        frames=pictures.frames,
        motion=pictures.motion,
        screen=pictures.screen,
        sound=sound,
        shots=pictures.shots,
        statistics=statistics,
        parts=run.parts,
        frames_decoded=pictures.decoded,
        seconds_decoded=len(sound) / limits.sample_rate,
    )
    lacks = [(f"{kind}_failed", f"There is no decoder here for its {kind} track.") for kind in run.undecodable]
    return _judge(media, [*_cut_off(run, seconds, limits), *lacks, *_undecoded(media, run)], bool(run.readers))


def _streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None, list[str]]:
    """The best video and audio stream, and the kinds of those without a decoder. A cover picture is no video."""
    video, audio = container.streams.best("video"), container.streams.best("audio")
    if video is not None and video.disposition & av.stream.Disposition.attached_pic:
        video = None
    both = (("video", video), ("audio", audio))
    undecodable = [kind for kind, stream in both if stream is not None and stream.codec_context is None]
    return (
        video if isinstance(video, VideoStream) and video.codec_context else None,
        audio if isinstance(audio, AudioStream) and audio.codec_context else None,
        undecodable,
    )


def _require_readable(run: _Pass, limits: Limits) -> None:
    video = run.video_stream
    if not video and not run.audio_stream:
        if run.undecodable:
            detail = f"There is no decoder here for its {' and '.join(run.undecodable)} track."
            raise Refusal("unsupported", "codec", detail)
        kinds = sorted({stream.type for stream in run.container.streams})
        raise Refusal(
            "unsupported", "no_streams", f"It has no audio or video track (has: {', '.join(kinds) or 'none'})."
        )
    if video and video.width * video.height > limits.max_pixels:
        detail = f"Its frames have {video.width} × {video.height} pixels; the limit is {limits.max_pixels} in all."
        raise Refusal("too_large", "too_many_pixels", detail)
    if video and _needed_mebibytes(video) > limits.max_memory_mib:
        raise out_of_memory(limits)


def _needed_mebibytes(video: VideoStream) -> float:
    """What decoding will take. Decoders hide a lack of memory behind other errors, so it is estimated beforehand."""
    pixel_format = video.codec_context.format
    bits = pixel_format.padded_bits_per_pixel if pixel_format is not None else 12
    return _BASE_MEBIBYTES + _FRAMES_HELD * video.width * video.height * max(bits, 8) / 8 / 2**20


def _statistics(pictures: Pictures, sound: SoundReader | None) -> Statistics:
    found = Statistics(packets=pictures.packets, key_frames=pictures.key_frames, black_frames=pictures.black_frames)
    if sound and sound.meter:
        meter = sound.meter
        found.blocks, found.silent_blocks = meter.blocks, meter.silent_blocks
        found.loudness_counts, found.loudness_powers = meter.counts, meter.powers
    return found


def _info(run: _Pass, pictures: Pictures, statistics: Statistics, seconds: float) -> MediaInfo:
    info = probe(run.container, run.video_stream, run.audio_stream)
    length = seconds if seconds > 0 else run.declared
    if run.parts > 1:
        length = run.declared or length
    info = replace(
        info,
        duration=length,
        variable_frame_rate=pictures.variable_frame_rate,
        gop=statistics.gop,
        loudness=statistics.loudness,
        silence_share=statistics.silence_share,
        black_share=statistics.black_share,
    )
    if not info.bit_rate and length:
        info.bit_rate = round(run.container.size * 8 / length)
    if pictures.quarter_turns % 2:
        info.width, info.height = info.height, info.width
    return info


def _cut_off(run: _Pass, seconds: float, limits: Limits) -> list[tuple[str, str]]:
    """Reason and sentence for a file that ends too early, or goes on for longer than is looked at."""
    declared = run.declared
    if declared and run.readers:
        expected = min(declared, run.span.end)
        if expected - seconds > max(_TOLERATED_SECONDS, _TOLERATED_SHARE * expected):
            return [("truncated", f"It ends after {seconds:.1f} of the {declared:.1f} s that it declares.")]
    if run.failure:
        return [("read_error", f"Reading stopped after {seconds:.1f} s: {run.failure}.")]
    if declared and declared > limits.max_seconds and run.span.end >= limits.max_seconds:
        return [("too_long", f"Only the first {limits.max_seconds:g} of its {declared:.1f} s are described.")]
    return []


def _undecoded(media: DecodedMedia, run: _Pass) -> list[tuple[str, str]]:
    """Reason and sentence for each track, or part of one, that its decoder could not make sense of."""
    lacks = []
    pictures, sound = run.pictures, run.sound
    if pictures and pictures.packets and not len(media.frames):
        lacks.append(("video_failed", f"No frame of its {media.info.video_codec} track could be decoded."))
    if sound and sound.packets and not len(media.sound):
        lacks.append(("audio_failed", f"Nothing of its {media.info.audio_codec} track could be decoded."))
    errors = sum(reader.errors for reader in run.readers)
    if errors and not lacks:
        lacks.append(("decode_errors", f"Packets that could not be decoded: {errors}."))
    return lacks


def _judge(media: DecodedMedia, lacks: list[tuple[str, str]], read: bool) -> DecodedMedia:
    """Set status, reason and detail; of several lacks the first gives the reason, and the detail names them all."""
    if read and not len(media.frames) and not len(media.sound) and not media.shots:
        media.status = "corrupt"
        lacks = lacks or [("no_packets", "Its tracks hold no packets.")]
    elif lacks:
        media.status = "partial"
    if lacks:
        media.reason = lacks[0][0]
        media.detail = " ".join(sentence for _, sentence in lacks)
    return media


def _plausible(seconds: float, container: InputContainer) -> float:
    """The measured length, or the container's estimate where one damaged timestamp lies far beyond it."""
    estimate = container.duration / av.time_base if container.duration else math.inf
    return estimate if seconds > _ABSURD * estimate else max(seconds, 0.0)
