"""Cuts and fades in a sequence of frames, from small pictures of them.

A cut separates a few frames before from a few after by more than these differ among themselves: so a flash is none, and
neither is fast motion. In a fade (a dissolve, or a fade to or from black) every frame is a mix of the first and the
last, (1 − a)·A + a·B, with a share that rises evenly; what moves leaves a rest. Where the brightness changes, B is A
again but for its level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# Size of the picture that a look is taken of.
WIDTH, HEIGHT = 64, 36
_COARSE = 16, 9

# Shares of 255 levels, mean over the coarse picture.
_BLACK = 0.03
_CUT_LEVELS = 0.05
_CUT_RATIO = 1.6
_CUT_FRAMES = 3
_FADE_SECONDS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
_FADE_FRAMES = 4  # at least so many steps
_FADE_LEVELS = 0.1
_FADE_PATTERN = 0.09  # what remains of the levels without the change of the mean
_FADE_COLOURS = 0.5
_FADE_REST, _FADE_UNEVEN = 0.27, 0.10
_BLACK_REST, _BLACK_UNEVEN = 0.20, 0.16
_SAME_PATTERN = 0.8  # correlation
_DIP_LEVEL, _DIP_DEPTH, _DIP_STEP = 0.05, 0.25, 0.01
_DIP_SECONDS = 0.6
_TOUCHING_SECONDS = 0.2
_BLACK_SECONDS = 2.0

Floats = NDArray[np.float32]


class Look(NamedTuple):
    """What a picture is compared by: `coarse` float32[432], 16 × 9 × 3 levels from 0 to 1, and `colours` float32[288],
    a histogram of hue, saturation and value with sum 1."""

    time: float
    coarse: Floats
    colours: Floats


class Transition(NamedTuple):
    """From `start` to `end` seconds; the same for a cut."""

    start: float
    end: float
    kind: Literal["cut", "fade"]

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def look(picture: NDArray[np.uint8], time: float) -> Look:
    """The look of a picture uint8[h, w, 3], RGB."""
    if picture.shape != (HEIGHT, WIDTH, 3):
        picture = np.asarray(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [12, 4, 6], [0, 180, 0, 256, 0, 256])
    coarse = cv2.resize(picture, _COARSE, interpolation=cv2.INTER_AREA)
    return Look(
        time, np.asarray(coarse.ravel() / 255, np.float32), np.asarray(counts.ravel() / (WIDTH * HEIGHT), np.float32)
    )


def is_black(at: Look) -> bool:
    """Whether the picture is black, but for noise or a small sign.

    >>> is_black(look(np.full((36, 64, 3), 5, np.uint8), 0.0)), is_black(look(np.full((36, 64, 3), 20, np.uint8), 0.0))
    (True, False)
    """
    return bool(at.coarse.mean() < _BLACK and at.coarse.std() < _BLACK)


def colour_distance(a: Floats, b: Floats) -> float:
    """Hellinger distance of two histograms: 0 for equal colours, 1 for none in common."""
    return math.sqrt(max(0.0, 1.0 - float(np.sqrt(a * b).sum())))


def pattern_distance(a: Look, b: Look) -> float:
    """Mean difference of the coarse pictures, without that of their mean colours."""
    difference = (a.coarse - b.coarse).reshape(-1, 3)
    return float(np.abs(difference - difference.mean(axis=0)).mean())


def correlation(a: Floats, b: Floats) -> float:
    """Of two coarse pictures; 1 where one of them is plain, for it then has no pattern of its own."""
    a, b = a - a.mean(), b - b.mean()
    energy = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / energy if energy > 1e-6 else 1.0


def find(looks: Sequence[Look]) -> list[Transition]:
    """The transitions in frames that follow each other, in order of time; a few frames a second are too few.

    What leads to black and, within 2 s, from there to the next shot is one fade.
    """
    if len(looks) < 2:
        return []
    times = np.array([at.time for at in looks])
    levels = np.stack([at.coarse for at in looks])
    roots = np.sqrt(np.stack([at.colours for at in looks]))
    dips = _dips(times, levels)
    cuts = [cut for cut in _cuts(levels) if not any(first < cut <= last for first, last in dips)]
    fades = _fades(times, levels, roots, cuts)
    short = [(a, b) for a, b in dips if all(b <= first or a >= last for first, last in fades)]
    events = sorted([*((cut - 1, cut) for cut in cuts), *fades, *short])
    black = levels.mean(axis=1) < _BLACK
    merged: list[tuple[int, int]] = []
    for first, last in events:
        if merged:
            start, end = merged[-1]
            pause = times[first] - times[end]
            through_black = pause <= _BLACK_SECONDS and black[end : first + 1].all()
            is_fade = end - start > 1 or last - first > 1
            if is_fade and (through_black or (pause <= _TOUCHING_SECONDS and end - start > 1 and last - first > 1)):
                merged[-1] = start, last
                continue
        merged.append((first, last))
    return [
        Transition(float(times[last]), float(times[last]), "cut")
        if last - first == 1
        else Transition(float(times[first]), float(times[last]), "fade")
        for first, last in merged
    ]


def _cuts(levels: Floats) -> list[int]:
    """Positions of first frames after a cut."""
    steps = np.abs(np.diff(levels, axis=0)).mean(axis=1)
    scores = np.zeros(len(levels))
    for position in np.flatnonzero(steps > _CUT_LEVELS) + 1:
        before, after = levels[max(0, position - _CUT_FRAMES) : position], levels[position : position + _CUT_FRAMES]
        between = float(_distances(before, after).min())
        if between > _CUT_LEVELS:
            within = max(float(_distances(before, before).max()), float(_distances(after, after).max()), 1e-3)
            scores[position] = between / within
    return [
        int(position)
        for position in np.flatnonzero(scores > _CUT_RATIO)
        if scores[position] == scores[max(0, position - 2) : position + 3].max()
    ]


def _distances(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.abs(a[:, None] - b[None]).mean(axis=2))


def _fades(times: NDArray[np.float64], levels: Floats, roots: Floats, cuts: list[int]) -> list[tuple[int, int]]:
    """First and last frame of each fade; of several windows on one the best, overlapping ones left out."""
    cut_count = np.searchsorted(cuts, np.arange(len(times)), side="right")
    windows: list[tuple[float, int, int]] = []
    for seconds in _FADE_SECONDS:
        last = np.searchsorted(times, times + seconds - 1e-6)
        first = np.flatnonzero(last < len(times))
        last = last[first]
        good = (last - first >= _FADE_FRAMES) & (times[last] - times[first] < 1.5 * seconds)
        good &= cut_count[first] == cut_count[last]
        first, last = first[good], last[good]
        change = np.abs(levels[last] - levels[first]).mean(axis=1)
        alike = np.einsum("ij,ij->i", roots[first], roots[last])
        good = (change > _FADE_LEVELS) & (alike < 1 - _FADE_COLOURS**2)
        windows += [
            (float(levelled * fit), int(a), int(b))
            for a, b, levelled in zip(first[good], last[good], change[good], strict=True)
            if (fit := _mix_fit(times, levels, a, b)) > 0
        ]
    found: list[tuple[int, int]] = []
    for _, a, b in sorted(windows, reverse=True):
        if all(b <= first or a >= last for first, last in found):
            found.append((a, b))
    return found


def _dips(times: NDArray[np.float64], levels: Floats) -> list[tuple[int, int]]:
    """First and last frame of fades through black that are too short to fit a mix to: half a second, a few frames.

    Towards black and from it the picture must pass a level between, and be the same; a cut to or from black does not.
    """
    means = levels.mean(axis=1)
    found: list[tuple[int, int]] = []
    for bottom in np.flatnonzero(means < _DIP_LEVEL):
        if found and bottom <= found[-1][1]:
            continue
        ends = [_foot(times, levels, means, int(bottom), step) for step in (-1, 1)]
        if ends[0] is not None and ends[1] is not None:
            found.append((ends[0], ends[1]))
    return found


def _foot(times: NDArray[np.float64], levels: Floats, means: Floats, bottom: int, step: int) -> int | None:
    """Where the picture that rises from black on this side has its full level."""
    at = bottom
    passed: list[int] = []
    while 0 <= at + step < len(means) and abs(times[at + step] - times[bottom]) <= _DIP_SECONDS:
        if means[at + step] < means[at] + (_DIP_STEP if passed or means[at] >= _DIP_LEVEL else -_DIP_STEP):
            break
        at += step
        if means[at] >= _DIP_LEVEL:
            passed.append(at)
    if len(passed) < 2 or means[bottom] > _DIP_DEPTH * means[at]:
        return None
    between = [n for n in passed if means[n] < 0.9 * means[at]]
    return at if between and all(correlation(levels[n], levels[at]) > _SAME_PATTERN for n in between) else None


def _mix_fit(times: NDArray[np.float64], levels: Floats, first: int, last: int) -> float:
    """How well the frames between are mixes of both with an even rise: 1 perfectly, 0 if not so."""
    a, b = levels[first], levels[last]
    change = b - a
    energy = float(change @ change)
    between = levels[first + 1 : last] - a
    shares = between @ change / energy
    rest = between - shares[:, None] * change
    moved = float(np.sqrt((rest * rest).sum(axis=1) / energy).mean())
    even = (times[first + 1 : last] - times[first]) / (times[last] - times[first])
    uneven = float(np.sqrt(((shares - even) ** 2).mean()))
    if min(a.mean(), b.mean()) < _BLACK:
        rests = _BLACK_REST, _BLACK_UNEVEN
    else:
        rests = _FADE_REST, _FADE_UNEVEN
        colours = change.reshape(-1, 3)
        if np.abs(colours - colours.mean(axis=0)).mean() < _FADE_PATTERN or correlation(a, b) > _SAME_PATTERN:
            return 0.0
    if moved > rests[0] or uneven > rests[1]:
        return 0.0
    return 1.0 - 0.5 * moved / rests[0] - 0.5 * uneven / rests[1] + 1e-6
