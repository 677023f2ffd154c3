"""Files that nobody should have to decode, and odd ones that everybody should be able to."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 48_000


def encode(
    path: Path,
    seconds: float = 2.0,
    size: tuple[int, int] = (160, 120),
    fps: int = 20,
    gop: int = 10,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    layout: str | None = "stereo",
    video: bool = True,
    stamps: list[int] | None = None,
    loud: float = 0.3,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip of a moving stripe and a tone. `stamps` are the frames' times in milliseconds, for a variable rate."""
    with av.open(str(path), "w") as container:
        stream = sound = None
        if video:
            # scenecut 0: key frames only where `gop` puts them.
            options = options or ({"preset": "veryfast", "x264-params": "scenecut=0"} if codec == "libx264" else {})
            stream = container.add_stream(codec, rate=1000 if stamps else fps, options=options)
            stream.width, stream.height, stream.pix_fmt = *size, pixels
            stream.codec_context.gop_size = gop
            if aspect:
                stream.codec_context.sample_aspect_ratio = aspect
        if layout:
            sound = container.add_stream(
                "aac" if video or path.suffix == ".m4a" else "libmp3lame", rate=RATE, layout=layout
            )
        if stream:
            for number in range(len(stamps) if stamps else round(seconds * fps)):
                frame = av.VideoFrame.from_ndarray(picture(number, size), "rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = (
                    (stamps[number], Fraction(1, 1000)) if stamps else (number, Fraction(1, fps))
                )
                container.mux(stream.encode(frame))
        if sound:
            channels = len(av.AudioLayout(layout).channels)
            wave = loud * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)
            samples = np.ascontiguousarray(np.tile(wave.astype(np.float32), (channels, 1)))
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(sound.encode(frame))
        for one in container.streams:
            container.mux(one.encode(None))
    return path


def picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A stripe that goes to and fro: no jump, which would be a cut."""
    frame = np.full((size[1], size[0], 3), (40, 120, 200), np.uint8)
    width = max(size[0] - 8, 1)
    left = width - abs(width - number % (2 * width))
    frame[:, left : left + 8] = (230, 200, 30)
    return frame


def shortened(clip: Path, target: Path, seconds: float) -> Path:
    """The beginning of a clip, its packets as they are."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        streams = {
            s.index: container.add_stream_from_template(s) for s in source.streams if s.type in ("video", "audio")
        }
        for packet in source.demux():
            if packet.stream_index in streams and packet.dts is not None and packet.dts * packet.time_base < seconds:
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
    return target


def mutants(clips: list[Path], count: int, folder: Path, seed: int = 0) -> Iterator[Path]:
    """Copies with a few bytes changed at random, every third of them near the beginning, where headers are."""
    random = np.random.default_rng(seed)
    for number in range(count):
        clip = clips[number % len(clips)]
        data = np.frombuffer(clip.read_bytes(), np.uint8).copy()
        reach = min(len(data), 2_000) if number % 3 == 0 else len(data)
        places = random.integers(0, reach, random.integers(1, 65))
        data[places] = random.integers(0, 256, len(places))
        path = folder / f"mutant-{number}{clip.suffix}"
        path.write_bytes(data.tobytes())
        yield path


def huge(target: Path, side: int = 65_535) -> Path:
    """A film of JPEGs whose headers announce a square of that side, in the container and in every picture."""
    encode(target, seconds=0.5, codec="mjpeg", pixels="yuvj420p", layout=None)
    data = bytearray(target.read_bytes())
    header = data.index(b"strf") + 8
    data[header + 4 : header + 12] = struct.pack("<ii", side, side)
    start = 0
    while (start := data.find(b"\xff\xc0\x00\x11\x08", start)) >= 0:
        data[start + 5 : start + 9] = struct.pack(">HH", side, side)
        start += 5
    target.write_bytes(data)
    return target


def corpus(folder: Path, clip: Path) -> dict[Path, tuple[set[str], set[str | None]]]:
    """Each hostile or odd file with the statuses and reasons that are true of it."""
    whole = clip.read_bytes()

    def written(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    expected: dict[Path, tuple[set[str], set[str | None]]] = {
        written("zero.mp4", b""): ({"corrupt"}, {"empty"}),
        written("text.mp4", "Liebes Tagebuch, 今天\n".encode() * 99): ({"corrupt"}, {"not_media"}),
        written("noise.mp4", np.random.default_rng(1).bytes(50_000)): ({"corrupt"}, {"not_media"}),
        written("list.mp4", f"ffconcat version 1.0\nfile {clip}\n".encode()): ({"unsupported"}, {"format"}),
        written("m3u8.mp4", f"#EXTM3U\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n".encode()): ({"corrupt"}, {"not_media"}),
        folder / "never-was.mp4": ({"missing"}, {"not_found"}),
        # libav takes no size that large for one, and forgets it.
        huge(folder / "huge.avi"): ({"corrupt"}, {"video_failed"}),
        huge(folder / "large.avi", 9_000): ({"too_large"}, {"too_many_pixels"}),
    }
    for share in (10, 50, 90):
        path = written(f"first-{share}-percent.mp4", whole[: len(whole) * share // 100])
        expected[path] = ({"corrupt", "partial"}, {"no_index", "truncated", "video_failed", "not_media"})
    pipe, place, link, locked = (folder / name for name in ("pipe.mp4", "folder.mp4", "link.mp4", "locked.mp4"))
    os.mkfifo(pipe)
    place.mkdir()
    link.symlink_to(folder / "nowhere.mp4")
    locked.write_bytes(whole)
    locked.chmod(0)
    expected |= {pipe: ({"unsupported"}, {"not_a_file"}), place: ({"unsupported"}, {"not_a_file"})}
    expected |= {link: ({"missing"}, {"not_found"})}
    # Root may read anything.
    expected[locked] = ({"ok"}, {None}) if os.geteuid() == 0 else ({"missing"}, {"unreadable"})
    for path in odd(folder):
        expected[path] = ({"ok"}, {None})
    return expected


def odd(folder: Path) -> list[Path]:
    """Unusual and in order."""
    return [
        encode(folder / "one-key-frame.mp4", gop=10_000),
        encode(folder / "variable.mkv", stamps=[0, 40, 80, 500, 540, 1000, 1500, 1520, 1900]),
        encode(folder / "odd-size.mkv", size=(161, 121), pixels="yuv444p"),
        encode(folder / "ten-bit.mkv", codec="libx265", pixels="yuv420p10le", options={"x265-params": "log-level=0"}),
        encode(folder / "surround.mp4", layout="5.1"),
        encode(folder / "audio-only.m4a", video=False),
        encode(folder / "video-only.mp4", layout=None),
        encode(folder / "one-frame.mp4", seconds=0.05, layout=None),
        encode(folder / "silence.mp4", loud=0.0),
        encode(folder / "wide-pixels.mp4", aspect=Fraction(2, 1)),
        encode(folder / "tiny.mp4", size=(16, 16)),
    ]
