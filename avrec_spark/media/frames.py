"""Which frames of a file are handed to the encoders: few, and such that they cover its shots."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avrec_spark.media.pictures import Picture
from avrec_spark.media.records import Motion, Shot
from avrec_spark.media.shots import representatives
from avrec_spark.media.transitions import Look, colour_distance

# The pool holds so many times the frames that are wanted in the end.
_POOL = 4
# Two equal pictures are worth so little of two that have no colour in common.
_SAME = 0.05


class Candidate(NamedTuple):
    """A spare one lies between two key frames, and is for a shot that has none."""

    look: Look
    picture: Picture
    spare: bool = False


class FramePool:
    """Candidates as they pass, of which a bounded number is kept: those far from their neighbours in time and look."""

    def __init__(self, wanted: int) -> None:
        self.candidates: list[Candidate] = []
        self._news: list[float] = []  # how much a candidate differs from the one before it
        self._room = _POOL * wanted

    def add(self, look: Look, picture: Picture, spare: bool = False) -> None:
        position = bisect.bisect([candidate.look.time for candidate in self.candidates], look.time)
        self.candidates.insert(position, Candidate(look, picture, spare))
        self._news.insert(position, 0.0)
        self._compare(position)
        self._compare(position + 1)
        if len(self.candidates) > self._room:
            self._drop()

    def chosen(self, shots: Sequence[Shot], wanted: int) -> list[Candidate]:
        """At most `wanted` of them, in order of time, as `choose` has it."""
        filled = {shot_at(shots, candidate.look.time) for candidate in self.candidates if not candidate.spare}
        usable = [c for c in self.candidates if not c.spare or shot_at(shots, c.look.time) not in filled]
        return [usable[position] for position in choose([c.look.time for c in usable], shots, wanted)]

    def _drop(self) -> None:
        times = np.array([candidate.look.time for candidate in self.candidates])
        # The first and the last stay; of two that are alike the earlier goes as well as the later.
        worth = (times[2:] - times[:-2]) * np.array(self._news[1:-1])
        position = 1 + int(np.argmin(worth))
        del self.candidates[position], self._news[position]
        self._compare(position)

    def _compare(self, position: int) -> None:
        if 0 < position < len(self.candidates):
            before, after = self.candidates[position - 1].look, self.candidates[position].look
            self._news[position] = _SAME + colour_distance(before.colours, after.colours)


def shot_at(shots: Sequence[Shot], time: float) -> int:
    """The position of the last shot that has begun; −1 before the first."""
    return bisect.bisect([shot.start for shot in shots], time) - 1


def choose(times: Sequence[float], shots: Sequence[Shot], wanted: int) -> list[int]:
    """Positions, in order, of at most `wanted` of the frames taken at `times`.

    Every shot gets a frame; where there are more shots than frames, those do that represent the file best. Frames that
    remain go to the longest shots, and lie evenly in each.

    >>> shots = [Shot(0.0, 8.0, 4.0, b""), Shot(8.0, 10.0, 9.0, b"", "cut")]
    >>> choose([1.0, 2.5, 5.5, 7.0, 9.0], shots, 3)
    [1, 2, 4]
    """
    inside = [[n for n, time in enumerate(times) if shot.start <= time < shot.end] for shot in shots]
    filled = [number for number, own in enumerate(inside) if own]
    if not filled:
        return even(list(range(len(times))), wanted)
    if len(filled) > wanted:
        colours = np.stack([shots[number].colours for number in filled])
        seconds = np.array([shots[number].end - shots[number].start for number in filled])
        filled = [filled[position] for position in representatives(colours, seconds, wanted)]
    counts = _shares([shots[n].end - shots[n].start for n in filled], [len(inside[n]) for n in filled], wanted)
    chosen: list[int] = []
    for number in filled:
        chosen += _spread(inside[number], times, shots[number], counts[filled.index(number)])
    return sorted(chosen)


def even(values: list[int], wanted: int) -> list[int]:
    """At most `wanted` of the values, at the middles of equal parts of the list.

    >>> even([0, 1, 2, 3, 4, 5], 2)
    [1, 4]
    """
    if len(values) <= wanted:
        return values
    return [values[int((part + 0.5) * len(values) / wanted)] for part in range(wanted)]


def _shares(seconds: Sequence[float], available: Sequence[int], wanted: int) -> list[int]:
    """How many frames each shot gets: one, and then by the longest stretch without (Sainte-Laguë)."""
    given: Counter[int] = Counter(range(min(len(seconds), wanted)))
    while sum(given.values()) < min(wanted, sum(available)):
        open_shots = [n for n in range(len(seconds)) if given[n] < available[n]]
        given[max(open_shots, key=lambda n: (seconds[n] / (2 * given[n] + 1), -n))] += 1
    return [given[n] for n in range(len(seconds))]


def _spread(positions: Sequence[int], times: Sequence[float], shot: Shot, count: int) -> list[int]:
    """Of the frames at these positions those that are nearest to the middles of `count` equal parts of the shot."""
    rest, chosen = list(positions), []
    middles: NDArray[np.float64] = shot.start + (np.arange(count) + 0.5) / count * (shot.end - shot.start)
    for middle in middles:
        nearest = min(rest, key=lambda n: abs(times[n] - middle))
        chosen.append(nearest)
        rest.remove(nearest)
    return chosen


class Pairs:
    """Where pairs for motion are taken: at most `wanted` places, evenly over a span whose length is only expected.

    A span that turns out longer than expected keeps every second pair and goes on at twice the distance.
    """

    def __init__(self, wanted: int, start: float, seconds: float) -> None:
        self._wanted = wanted
        self._spacing = seconds / wanted if 0 < seconds < math.inf else 1.0
        self._next = start
        self._pairs: list[tuple[Picture, Picture, float, float]] = []

    def due(self, time: float) -> bool:
        return time >= self._next

    def add(self, first: Picture, second: Picture, time: float, seconds: float) -> None:
        """Grey pictures uint8[90, 160]; the first was shown at `time`, the second `seconds` later."""
        self._pairs.append((first, second, time, seconds))
        if len(self._pairs) > 2 * self._wanted:
            self._pairs, self._spacing = self._pairs[::2], 2 * self._spacing
        self._next = max(self._next + self._spacing, time + self._spacing / 2)

    def motion(self) -> Motion:
        pairs = [self._pairs[n] for n in even(list(range(len(self._pairs))), self._wanted)]
        if not pairs:
            return Motion()
        return Motion(
            np.stack([np.stack(pair[:2]) for pair in pairs]),
            np.array([pair[2] for pair in pairs]),
            np.array([pair[3] for pair in pairs]),
        )
