"""What a container says of itself, before anything is decoded."""

from __future__ import annotations

from enum import IntEnum
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from av.video.stream import VideoStream

from avrec_spark.media.records import Chapter, MediaInfo

# Containers whose header states the length, so that a file which ends earlier is known to be cut off. The others
# estimate it from the size or from the last timestamp.
_LENGTH_IN_HEADER = frozenset({"mov", "mp4", "matroska", "webm", "avi", "flv", "asf", "wav", "w64", "flac", "aiff"})
# What the container itself needs is not a word about the content; and a tag must not fill a table.
_TECHNICAL_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time"})
_MAX_TAGS, _MAX_TAG_CHARACTERS = 50, 1_000


def probe(container: InputContainer, video: VideoStream | None, audio: AudioStream | None) -> MediaInfo:
    """Codecs, size, rates, languages, chapters and tags, as declared; nothing that takes decoding."""
    info = MediaInfo(container=container.format.name, bit_rate=container.bit_rate or None)
    if video:
        _describe_video(info, video)
    if audio:
        info.audio_codec = audio.codec_context.codec.canonical_name
        info.sample_rate, info.channels = audio.rate or None, audio.channels or None
    languages = [(stream.language or "").strip().lower() for stream in container.streams]
    info.languages = sorted({language for language in languages if language and language != "und"})
    info.chapters = _chapters(container)
    info.media_tags = _tags(container)
    return info


def declared_seconds(container: InputContainer) -> float | None:
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


def _describe_video(info: MediaInfo, video: VideoStream) -> None:
    context = video.codec_context
    aspect = context.sample_aspect_ratio or video.sample_aspect_ratio or Fraction(1)
    info.width = round(video.width * aspect) if video.width else None
    info.height = video.height or None
    info.video_codec = context.codec.canonical_name
    rate = video.average_rate or video.guessed_rate
    info.frame_rate = float(rate) if rate else None
    pixel_format = context.format
    if pixel_format is not None and pixel_format.components:
        info.bit_depth = pixel_format.components[0].bits
    info.colour = _colour(context)


def _colour(context: VideoCodecContext) -> str | None:
    """primaries/transfer/matrix in libav's own words, None where the stream declares none of them."""
    kinds = ((ColorPrimaries, "color_primaries"), (ColorTrc, "color_trc"), (Colorspace, "colorspace"))
    names = [_name(kind, getattr(context, attribute)) for kind, attribute in kinds]
    return "/".join(names) if any(name != "unknown" for name in names) else None


def _name(kind: type[IntEnum], value: int | None) -> str:
    try:
        name = kind(value).name.lower() if value is not None else "unspecified"
    except ValueError:
        return "unknown"
    return "unknown" if name in {"unspecified", "reserved", "reserved0"} else name


def _chapters(container: InputContainer) -> list[Chapter]:
    found = []
    for chapter in container.chapters():
        base = chapter["time_base"] or Fraction(1)
        title = _clean(chapter["metadata"].get("title", "")) or None
        found.append(Chapter(float(chapter["start"] * base), float(chapter["end"] * base), title))
    return found[:1_000]


def _tags(container: InputContainer) -> dict[str, str]:
    tags = {_clean(name).lower(): _clean(value) for name, value in container.metadata.items()}
    kept = {name: value for name, value in tags.items() if name and value and name not in _TECHNICAL_TAGS}
    return dict(sorted(kept.items())[:_MAX_TAGS])


def _clean(text: str) -> str:
    return text[:_MAX_TAG_CHARACTERS].replace("\0", " ").strip()
