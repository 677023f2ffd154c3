"""One open and one pass over the packets of a file: what it is, a few frames, its sound.

`decode` gives an answer for whatever lies under a name. It runs libav in the calling process, where a native crash is
a crash; `watchdog.Decoder` is the way to read files of others.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avrec_spark.media.records import DecodedMedia, Limits, MediaInfo, Refusal
from avrec_spark.media.shots import find_shots
from avrec_spark.media.source import open_container
from avrec_spark.media.streams import KeyFrameReader, Pictures, SoundReader

# Containers whose header states the length, so that a file which ends earlier is known to be cut off. The others
# estimate it from the size or from the last timestamp.
_LENGTH_IN_HEADER = frozenset({"mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "wav", "w64", "flac", "aiff"})
_TOLERATED_SECONDS = 0.5
_TOLERATED_SHARE = 0.02
# Estimates from the bit rate are poor; a length so many times the estimate is a damaged timestamp.
_ABSURD = 10.0

av.logging.set_level(None)


def decode(path: str, limits: Limits) -> DecodedMedia:
    """Probe a file and decode key frames and audio from it, in one pass.

    `path` is a local path or a `file://` URI. Never raises on bad media: see `records` for the statuses.
    """
    started = time.perf_counter()
    try:
        with open_container(path) as container:
            media = _read(container, limits)
    except Refusal as refusal:
        media = refusal.as_media()
    except Exception as error:
        media = Refusal("corrupt", "decoder_error", f"{type(error).__name__}: {error}").as_media()
    media.seconds_spent = time.perf_counter() - started
    return media


def _read(container: InputContainer, limits: Limits) -> DecodedMedia:
    origin = container.start_time / av.time_base if container.start_time else 0.0
    video, audio, undecodable = _streams(container)
    _require_readable(container, video, audio, undecodable, limits)
    pictures = KeyFrameReader(video, limits, origin) if video else None
    sound = SoundReader(audio, limits, origin) if audio else None

    failure = _pass(container, pictures, sound)
    taken = pictures.finish() if pictures else Pictures()
    samples = sound.finish() if sound else np.empty(0, np.float32)

    end = max([reader.end for reader in (pictures, sound) if reader], default=origin)
    seconds = _plausible(end - origin, container)
    info = _info(container, video, audio, seconds)
    info = replace(info, gop=pictures.gop if pictures else None, loudness=_loudness(samples))
    if taken.quarter_turns % 2:
        info = replace(info, width=info.height, height=info.width)
    media = DecodedMedia(
        info,
        frame_times=np.array(taken.times),
        audio=samples,
        shots=find_shots(taken.thumbnails, np.array(taken.times), info.duration or 0.0),
        frames_decoded=taken.decoded,
        seconds_decoded=len(samples) / limits.sample_rate,
    )
    if taken.squares:
        media.frames = np.stack(taken.squares)
    lacks = [(f"{kind}_failed", f"There is no decoder here for its {kind} track.") for kind in undecodable]
    return _judge(media, [*_cut_off(container, seconds, failure), *lacks, *_undecoded(media, pictures, sound)])


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


def _require_readable(
    container: InputContainer,
    video: VideoStream | None,
    audio: AudioStream | None,
    undecodable: list[str],
    limits: Limits,
) -> None:
    if not video and not audio:
        if undecodable:
            detail = f"There is no decoder here for its {' and '.join(undecodable)} track."
            raise Refusal("unsupported", "codec", detail)
        kinds = sorted({stream.type for stream in container.streams})
        raise Refusal(
            "unsupported", "no_streams", f"It has no audio or video track (has: {', '.join(kinds) or 'none'})."
        )
    if video and video.width * video.height > limits.max_pixels:
        detail = f"Its frames have {video.width} × {video.height} pixels; the limit is {limits.max_pixels} in all."
        raise Refusal("too_large", "too_many_pixels", detail)


def _pass(container: InputContainer, pictures: KeyFrameReader | None, sound: SoundReader | None) -> str | None:
    """Hand every packet to its reader, once; the error that ended the pass early, if one did."""
    try:
        for packet in container.demux([reader.stream for reader in (pictures, sound) if reader]):
            if not packet.size:
                continue
            for reader in (pictures, sound):
                if reader and packet.stream_index == reader.stream.index:
                    reader.take(packet)
    except av.error.FFmpegError as error:
        return error.strerror or str(error)
    return None


def _info(container: InputContainer, video: VideoStream | None, audio: AudioStream | None, seconds: float) -> MediaInfo:
    info = MediaInfo(container=container.format.name)
    info.duration = seconds if seconds > 0 else _declared_seconds(container)
    if container.bit_rate:
        info.bit_rate = container.bit_rate
    elif info.duration:
        info.bit_rate = round(container.size * 8 / info.duration)
    if video:
        info.width, info.height = video.width or None, video.height or None
        info.video_codec = video.codec_context.codec.canonical_name
        rate = video.average_rate or video.guessed_rate
        info.frame_rate = float(rate) if rate else None
    if audio:
        info.audio_codec = audio.codec_context.codec.canonical_name
        info.sample_rate, info.channels = audio.rate or None, audio.channels or None
    return info


def _cut_off(container: InputContainer, seconds: float, failure: str | None) -> list[tuple[str, str]]:
    """Reason and sentence for a file that ends too early."""
    declared = _declared_seconds(container)
    if declared and declared - seconds > max(_TOLERATED_SECONDS, _TOLERATED_SHARE * declared):
        return [("truncated", f"It ends after {seconds:.1f} of the {declared:.1f} s that it declares.")]
    return [("read_error", f"Reading stopped after {seconds:.1f} s: {failure}.")] if failure else []


def _undecoded(
    media: DecodedMedia, pictures: KeyFrameReader | None, sound: SoundReader | None
) -> list[tuple[str, str]]:
    """Reason and sentence for each track, or part of one, that its decoder could not make sense of."""
    lacks = []
    if pictures and pictures.packets and not len(media.frames):
        lacks.append(("video_failed", f"No frame of its {media.info.video_codec} track could be decoded."))
    if sound and sound.packets and not len(media.audio):
        lacks.append(("audio_failed", f"Nothing of its {media.info.audio_codec} track could be decoded."))
    errors = sum(reader.errors for reader in (pictures, sound) if reader)
    if errors and not lacks:
        lacks.append(("decode_errors", f"Packets that could not be decoded: {errors}."))
    return lacks


def _judge(media: DecodedMedia, lacks: list[tuple[str, str]]) -> DecodedMedia:
    """Set status, reason and detail; of several lacks the first gives the reason, and the detail names them all."""
    if not len(media.frames) and not len(media.audio):
        media.status = "corrupt"
        lacks = lacks or [("no_packets", "Its tracks hold no packets.")]
    elif lacks:
        media.status = "partial"
    if lacks:
        media.reason = lacks[0][0]
        media.detail = " ".join(sentence for _, sentence in lacks)
    return media


def _declared_seconds(container: InputContainer) -> float | None:
    """The length that the container's header states, where it states one."""
    names = set(container.format.name.split(","))
    if not container.duration or not _LENGTH_IN_HEADER & names:
        return None
    seconds = container.duration / av.time_base
    if "avi" in names and container.streams.video:
        # libav corrects the length of an AVI file to what is there; the number of frames stays as the header has it.
        video = container.streams.video[0]
        seconds = max(seconds, float(video.frames / video.average_rate) if video.average_rate else 0.0)
    return seconds


def _plausible(seconds: float, container: InputContainer) -> float:
    """The measured length, or the container's estimate where one damaged timestamp lies far beyond it."""
    estimate = container.duration / av.time_base if container.duration else math.inf
    return estimate if seconds > _ABSURD * estimate else max(seconds, 0.0)


def _loudness(samples: NDArray[np.float32]) -> float | None:
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10 * math.log10(power) if power > 0 else None
