"""Clips for the media benchmarks, made from the few real ones that `make data` brings."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLIPS = Path(os.environ.get("AVREC_DATA", Path(__file__).resolve().parent.parent / ".cache" / "data")) / "clips"


def real_clips() -> list[Path]:
    clips = sorted(CLIPS.glob("*.mp4"))
    if not clips:
        raise SystemExit(f"The benchmarks need the clips in {CLIPS}: run make data.")
    return clips


def mixed(folder: Path, count: int, longest: float = 10.0, seed: int = 0) -> list[Path]:
    """Byte-distinct clips of mixed length and size: beginnings of real ones, each with a tag of its own.

    Remuxed, not re-encoded: the same pictures under another content hash, so that nothing is reused.
    """
    random = np.random.default_rng(seed)
    sources = real_clips()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"clip-{seed}-{number:05}.mp4"
        remux(sources[number % len(sources)], path, float(random.uniform(0.5, longest)), tag=f"{seed}-{number}")
        paths.append(path)
    return paths


def remux(source: Path, target: Path, seconds: float, tag: str = "", repeats: int = 1) -> Path:
    """The first seconds of a clip, its packets as they are, so many times after each other."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        out.metadata["comment"] = tag
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams if s.type in ("video", "audio")}
        packets = [
            packet
            for packet in container.demux()
            if packet.stream_index in streams
            and packet.dts is not None
            and (packet.dts - (packet.stream.start_time or 0)) * packet.time_base < seconds
        ]
        length = max(((p.pts or p.dts) + (p.duration or 0)) * p.time_base for p in packets)
        stamps = [(packet.stream_index, packet.pts, packet.dts, packet.time_base) for packet in packets]
        for repeat in range(repeats):
            for packet, (index, pts, dts, base) in zip(packets, stamps, strict=True):
                shift = round(Fraction(length) * repeat / base)
                packet.stream = streams[index]
                packet.time_base = base
                packet.pts, packet.dts = None if pts is None else pts + shift, dts + shift
                out.mux(packet)
    return target


def enlarged(target: Path, size: tuple[int, int], repeats: int = 1, gop: int = 250) -> Path:
    """The real clips after each other, scaled to a size and encoded by libx264 with sound; `gop` frames a key frame."""
    with av.open(str(target), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "medium", "g": str(gop)})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = out.add_stream("aac", rate=44_100, layout="stereo")
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=44_100)
        number = samples = 0
        for clip in real_clips() * repeats:
            with av.open(str(clip)) as container:
                for frame in container.decode(video=0):
                    scaled = frame.reformat(*size, "yuv420p")
                    scaled.pts, scaled.time_base = number, Fraction(1, 25)
                    number += 1
                    out.mux(video.encode(scaled))
            # The clips with sound lend it to those without.
            samples = _add_sound(out, sound, resampler, samples, number / 25)
        for stream in (video, sound):
            out.mux(stream.encode(None))
    return target


def _add_sound(out, sound, resampler, samples: int, until: float) -> int:  # type: ignore[no-untyped-def]
    voiced = next(clip for clip in real_clips() if "bunny" in clip.name)
    while samples / 44_100 < until:
        with av.open(str(voiced)) as container:
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    piece.pts, piece.time_base = samples, Fraction(1, 44_100)
                    samples += piece.samples
                    out.mux(sound.encode(piece))
                if samples / 44_100 >= until:
                    break
    return samples
