"""Films put together from takes, real or drawn, with transitions at known times."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from avrec_spark.media.transitions import Transition

RATE = 25
WIDTH, HEIGHT = 320, 180
# Key frames at cuts, at even distances, or only at the beginning.
ENCODINGS = {
    "key frames at cuts": {},
    "a key frame every second": {"g": "25", "x264-params": "scenecut=0"},
    "a key frame every two seconds": {"g": "50", "x264-params": "scenecut=0"},
    "one key frame": {"g": "9999", "x264-params": "scenecut=0"},
}
# Real clips of one take each; those of one group show the same place.
CLIPS = (
    *(("01_dog.mp4",), ("02_cups.mp4",), ("03_blocks.mp4",), ("04_coffee.mp4",), ("05_default_juggle.mp4",)),
    *(("bedroom.mp4",), ("bee.mp4",), ("bigbuckbunny.mp4",), ("bottle-detection.mp4",), ("butterfly.mp4",)),
    *(("car-detection.mp4",), ("carphone_pristine.mp4",), ("chaplin.mp4",), ("flower.mp4",), ("friday.mp4",)),
    *(("one-by-one-person-detection.mp4",), ("stream-of-water.mp4",), ("vtest.avi",)),
    ("book.mkv", "no.mkv", "sister.mkv", "please.mkv"),
    ("crystal.mp4", "elf.mp4", "frog.mp4", "monster.mp4", "pig.mp4", "rabbit.mp4"),
)

Picture = NDArray[np.uint8]
# So many seconds of one take, as pictures uint8[180, 320, 3] at RATE.
Take = Callable[[float, np.random.Generator], list[Picture]]


class Film(NamedTuple):
    frames: list[Picture]
    transitions: list[Transition]

    def first(self, seconds: float) -> Film:
        """The beginning, up to the last transition that ends before."""
        kept = [transition for transition in self.transitions if transition.end < seconds - 1.0]
        following = [transition.start for transition in self.transitions if transition not in kept]
        return Film(self.frames[: int(min(seconds, *following, seconds) * RATE)], kept)

    def write(self, path: Path, encoding: str) -> Path:
        return write(path, self.frames, "libx264", {"preset": "fast", **ENCODINGS[encoding]})


def assemble(groups: Sequence[Sequence[Take]], seed: int, shots: int) -> Film:
    transitions: list[Transition] = []
    return Film(list(stream(groups, seed, shots, transitions)), transitions)


def stream(groups: Sequence[Sequence[Take]], seed: int, shots: int, transitions: list[Transition]) -> Iterator[Picture]:
    """Pieces of 1.5 to 5 s in random order, no two of a group in a row; `transitions` grows as the frames pass.

    Of the transitions 6 in 10 are cuts, a quarter dissolves and the rest fades through black, of 0.4 to 1.6 s.
    """
    random = np.random.default_rng(seed)
    frames: list[Picture] = []  # of the last piece
    passed, before = 0, -1
    for number in range(shots):
        before = int(random.choice([group for group in range(len(groups)) if group != before]))
        take = groups[before][int(random.integers(len(groups[before])))]
        piece = take(float(random.uniform(1.5, 5.0)), random)
        kind = random.choice(["cut", "dissolve", "black"], p=[0.6, 0.25, 0.15])
        length = min(int(random.uniform(0.4, 1.6) * RATE), len(piece) // 2 - 2)
        if number and kind != "cut" and length >= 8:
            change = _fade(frames, piece, length) if kind == "dissolve" else _black(frames, piece, length // 2)
            first, last = (passed + position for position in change)
            transitions.append(Transition(first / RATE, last / RATE, "fade"))
        else:
            if number:
                cut = (passed + len(frames)) / RATE
                transitions.append(Transition(cut, cut, "cut"))
            frames += piece
        # What the next transition cannot reach is passed on.
        settled = len(frames) - len(piece) // 2
        yield from frames[:settled]
        frames = frames[settled:]
        passed += settled
    yield from frames


def write(path: Path, frames: Iterable[Picture], codec: str, options: dict[str, str]) -> Path:
    writer: Writer | None = None
    for picture in frames:
        writer = writer or Writer(path, picture.shape, codec, options)
        writer.add(picture)
    if writer:
        writer.close()
    return path


class Writer:
    """Encodes pictures uint8[h, w, 3], each of 1 / RATE s."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], codec: str, options: dict[str, str], threads: int = 1
    ) -> None:
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream(codec, rate=RATE, options=options)
        self._stream.height, self._stream.width = shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = threads
        self._count = 0

    def add(self, picture: Picture) -> None:
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = self._count, Fraction(1, RATE)
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def drawn(seed: int) -> Take:
    """A coloured, grainy pattern of its own that drifts, with a block that crosses it."""
    own = np.random.default_rng(seed)
    hue = 0.382 * seed % 1.0
    colours = [
        np.array(colorsys.hsv_to_rgb((hue + 0.25 * n) % 1.0, 0.8, value)) * 255 for n, value in ((0, 0.4), (1, 0.9))
    ]
    waves = own.uniform(-4, 4, (4, 2))
    # Every wave drifts alike: sin(x + t) = sin x · cos t + cos x · sin t.
    grain = own.normal(0, 12, (HEIGHT, WIDTH, 1))
    down, right = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 16 / 9 : WIDTH * 1j]
    phases = [2 * np.pi * (x * right + y * down) for x, y in waves]
    sines, cosines = sum(np.sin(phase) for phase in phases), sum(np.cos(phase) for phase in phases)

    def take(seconds: float, random: np.random.Generator) -> list[Picture]:
        begin = float(random.uniform(0, 5))
        return [picture(begin + number / RATE) for number in range(int(seconds * RATE))]

    def picture(time: float) -> Picture:
        pattern = sines * np.cos(0.6 * time) + cosines * np.sin(0.6 * time)
        share = (0.5 + np.clip(pattern, -2, 2) / 4)[..., None]
        drawn = share * colours[0] + (1 - share) * colours[1] + grain
        left = int(time * 40) % (WIDTH - 40)
        drawn[60:110, left : left + 40] = 255 - colours[0]
        return np.asarray(np.clip(drawn, 0, 255), np.uint8)

    return take


def clips(folder: Path, width: int = WIDTH, height: int = HEIGHT) -> list[list[Take]]:
    """The clips of CLIPS in the folder, in their groups."""
    groups = [[_clip(folder / name, width, height) for name in names if (folder / name).exists()] for names in CLIPS]
    return [group for group in groups if group]


def _clip(path: Path, width: int, height: int) -> Take:
    def take(seconds: float, random: np.random.Generator) -> list[Picture]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            length = min(float(container.duration or 0) / av.time_base, 10.0)
            seconds = min(seconds, length - 0.2)
            begin = float(random.uniform(0.0, length - seconds - 0.1))
            wanted = [begin + number / RATE for number in range(int(seconds * RATE))]
            start = (container.start_time or 0) / av.time_base
            return list(_at(container.decode(stream), wanted, start, width, height))

    return take


def _at(
    frames: Iterator[av.VideoFrame], wanted: Sequence[float], start: float, width: int, height: int
) -> Iterator[Picture]:
    """What is shown at each of the wanted times."""
    shown, left = None, list(wanted)
    for frame in frames:
        time = (frame.time or 0.0) - start
        while left and left[0] < time and shown is not None:
            yield shown
            left.pop(0)
        if not left:
            return
        shown = frame.reformat(width, height, "rgb24", threads=1).to_ndarray() if time > left[0] - 0.2 else shown
    for _ in left if shown is not None else ():
        yield shown


def _fade(frames: list[Picture], piece: list[Picture], length: int) -> tuple[int, int]:
    first = len(frames) - length
    for number in range(length):
        frames[first + number] = _mix(frames[first + number], piece[number], (number + 1) / (length + 1))
    frames += piece[length:]
    return first, first + length


def _black(frames: list[Picture], piece: list[Picture], half: int) -> tuple[int, int]:
    middle, black = len(frames), np.zeros_like(piece[0])
    for number in range(half):
        share = (number + 1) / half
        frames[middle - half + number] = _mix(frames[middle - half + number], black, share)
        piece[half - 1 - number] = _mix(piece[half - 1 - number], black, share)
    frames += piece
    return middle - half, middle + half


def _mix(a: Picture, b: Picture, share: float) -> Picture:
    return np.asarray(np.round((1 - share) * a.astype(np.float32) + share * b), np.uint8)
