"""Shots of a file: from transitions and key frames, over the borders of ranges, and those that stand for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avrec_spark.media.pictures import Picture, jpeg
from avrec_spark.media.records import Shot
from avrec_spark.media.transitions import Look, Transition, is_black

MAX_KEY_SCENES = 5
# Another key scene must raise what the chosen ones show of the file by this share of the file.
_WORTH_ANOTHER = 0.05
_THUMBNAILS_HELD = 64
# Black at the end of a file is a shot of its own if it is so long.
_BLACK_SHOT_SECONDS = 5.0
_BORDER_SECONDS = 0.2
_CANDIDATES = 512


@dataclass(frozen=True)
class Score:
    """Of transitions of one kind: `hits` of the `found` ones agree with one of the `true` ones each."""

    hits: int
    found: int
    true: int

    def __add__(self, other: Score) -> Score:
        return Score(self.hits + other.hits, self.found + other.found, self.true + other.true)

    @property
    def precision(self) -> float:
        return self.hits / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.hits / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.hits / (self.found + self.true) if self.found + self.true else 1.0


def score(found: Sequence[Transition], true: Sequence[Transition], tolerance: float = 0.25) -> Score:
    """How well transitions agree, one to one and in order of time; call it for each kind.

    Two cuts agree if they are at most `tolerance` seconds apart, two fades if their intervals overlap.

    >>> cuts = [Transition(time, time, "cut") for time in (1.0, 4.1, 9.0)]
    >>> result = score(cuts, [Transition(4.0, 4.0, "cut"), Transition(9.5, 9.5, "cut")])
    >>> result.hits, result.precision, result.recall, round(result.f1, 2)
    (1, 0.3333333333333333, 0.5, 0.4)
    """
    left = sorted(true)
    hits = 0
    for transition in sorted(found):
        match = next((other for other in left if _agree(transition, other, tolerance)), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return Score(hits, len(found), len(true))


def transitions(shots: Sequence[Shot]) -> list[Transition]:
    """The cuts and fades that shots begin with."""
    found = []
    for shot in shots:
        if shot.transition in ("cut", "fade"):
            half = shot.transition_seconds / 2
            found.append(
                Transition(shot.start - half, shot.start + half, "cut" if shot.transition == "cut" else "fade")
            )
    return found


def _agree(a: Transition, b: Transition, tolerance: float) -> bool:
    if a.start == a.end and b.start == b.end:
        return abs(a.start - b.start) <= tolerance + 1e-9
    return a.start < b.end and b.start < a.end


class _Key(NamedTuple):
    time: float
    colours: NDArray[np.float32]
    thumbnail: Picture
    black: bool


class ShotBuilder:
    """Puts shots together from key frames and transitions while both are found; memory grows with the shots alone."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._opening: Transition | None = None
        self._keys: list[_Key] = []
        self._shots: list[Shot] = []
        self._black: list[bool] = []
        self._used: list[_Key] = []  # for a shot of which no frame was decoded

    def add(self, at: Look, thumbnail: Picture) -> None:
        """A frame of the span, and what is shown of it should it be the one in the middle of its shot."""
        self._keys.append(_Key(at.time, at.colours, thumbnail, is_black(at)))

    def settle(self, transitions: Sequence[Transition], until: float) -> None:
        """These transitions, in order of time, are all that there are before `until`."""
        for transition in transitions:
            if self._shots or any(key.time < transition.middle for key in self._keys):
                self._close(transition.middle, transition)
            self._start, self._opening = transition.middle, transition
        while sum(key.time < until for key in self._keys) > _THUMBNAILS_HELD:
            # Still one shot: every second of its pictures is enough to find a middle one.
            settled = sum(key.time < until for key in self._keys)
            self._keys = [*self._keys[:settled:2], *self._keys[settled:]]

    def finish(self, end: float, is_last: bool = True) -> list[Shot]:
        """All shots; the last one ends at `end`, which is that of the file where the span `is_last`.

        A film that fades in from black, or out to black at its end, has no shot more for it; black that lasts is one.
        """
        self._close(end)
        shots, black = self._shots, self._black
        if len(shots) > 1 and shots[0].transition == "start" and (black[0] or _fades_by(shots[1], shots[0].start)):
            shots[1] = replace(shots[1], start=shots[0].start, transition="start", transition_seconds=0.0)
            shots, black = shots[1:], black[1:]
        if len(shots) > 1 and is_last:
            is_short = end - shots[-1].start < _BLACK_SHOT_SECONDS
            if (black[-1] and is_short) or _fades_by(shots[-1], end):
                shots = [*shots[:-2], replace(shots[-2], end=end)]
        return key_scenes(shots)

    def _close(self, end: float, closing: Transition | None = None) -> None:
        own = [key for key in self._keys if key.time < end]
        self._keys = self._keys[len(own) :]
        opening, start = self._opening, self._start
        self._start = end
        own = own or self._used or self._keys
        if not own:
            return
        middle = min(own, key=lambda key: abs(key.time - (start + end) / 2))
        shot = Shot(start, end, middle.time, jpeg(middle.thumbnail))
        shot.colours = np.mean([key.colours for key in own], axis=0, dtype=np.float32)
        if opening:
            shot.transition, shot.transition_seconds = opening.kind, opening.end - opening.start
        elif start > 0:
            shot.transition = "range"
        self._shots.append(shot)
        # Half of a fade from or to black is not black.
        fades = [fade for fade in (opening, closing) if fade]
        steady = [key for key in own if not any(fade.start < key.time < fade.end for fade in fades)]
        self._black.append(bool(steady) and all(key.black for key in steady))
        self._used = [middle]


def _fades_by(shot: Shot, border: float) -> bool:
    """Whether the fade that the shot begins with reaches the beginning or the end of the file."""
    return shot.transition == "fade" and abs(shot.start - border) <= shot.transition_seconds / 2 + _BORDER_SECONDS


def key_scenes(shots: list[Shot]) -> list[Shot]:
    """The shots, with the few marked that stand for the file; changes them in place."""
    for shot in shots:
        shot.key_scene = False
    if shots:
        colours = np.stack([shot.colours for shot in shots])
        seconds = np.array([shot.end - shot.start for shot in shots])
        for position in representatives(colours, seconds, MAX_KEY_SCENES, _WORTH_ANOTHER):
            shots[position].key_scene = True
    return shots


def representatives(
    colours: NDArray[np.float32], seconds: NDArray[np.float64], count: int, least: float = 0.0
) -> list[int]:
    """Positions, in order, of at most `count` of the shots that together show most of the file.

    Greedy facility location (Nemhauser, Wolsey, Fisher 1978): a shot is shown as well as the chosen shot that is most
    like it (histogram intersection of `colours` float32[n, m]), and counts by its `seconds` float64[n]. Stops when the
    next one adds no more than `least` of the whole.

    >>> representatives(np.eye(3, dtype=np.float32)[[0, 0, 1]], np.array([1.0, 2.0, 1.5]), 2)
    [0, 2]
    """
    weights = seconds / max(float(seconds.sum()), 1e-9)
    shown = np.zeros(len(colours))
    chosen: list[int] = []
    likeness: dict[int, NDArray[np.float64]] = {}
    # Upper bounds: what a shot adds only falls as others are chosen. Of very many shots only long ones are candidates.
    gains = np.where(seconds >= np.sort(seconds)[-_CANDIDATES:][0], np.inf, -np.inf)
    while len(chosen) < count:
        while True:
            best = int(np.argmax(gains))
            if gains[best] == -np.inf:
                return sorted(chosen)
            if best not in likeness:
                likeness[best] = np.minimum(colours, colours[best]).sum(axis=1, dtype=np.float64)
            gain = float(weights @ np.maximum(likeness[best] - shown, 0.0))
            fresh, gains[best] = gain >= gains[best] - 1e-12, gain
            if fresh:
                break
        if chosen and gains[best] <= least:
            break
        chosen.append(best)
        shown = np.maximum(shown, likeness[best])
        gains[best] = -np.inf
    return sorted(chosen)


def join(ranges: Sequence[Sequence[Shot]]) -> list[Shot]:
    """The shots of a file from those of its ranges, in order; key scenes are chosen anew.

    A shot that begins with a range goes on from the one before it. The longer piece gives the thumbnail.
    """
    joined: list[Shot] = []
    for shot in (shot for shots in ranges for shot in shots):
        if joined and shot.transition == "range":
            joined[-1] = _one(joined[-1], shot)
            continue
        if joined and shot.start < joined[-1].end:
            joined[-1] = replace(joined[-1], end=max(shot.start, joined[-1].start))
        joined.append(replace(shot))
    return key_scenes(joined)


def _one(first: Shot, second: Shot) -> Shot:
    seconds = first.end - first.start, second.end - second.start
    longer = first if seconds[0] >= seconds[1] else second
    share = seconds[0] / max(sum(seconds), 1e-9)
    colours = np.asarray(share * first.colours + (1 - share) * second.colours, np.float32)
    return replace(
        first, end=second.end, key_frame_time=longer.key_frame_time, thumbnail=longer.thumbnail, colours=colours
    )
