"""Finds the transitions of a stream from its key frames and the sizes of its packets; decodes more only where needed.

| between two key frames | is taken for |
|---|---|
| the picture has not changed | one shot |
| it has, and the second came early | a cut there: encoders put key frames on cuts |
| it has, and one packet is far above its neighbours | a cut there |
| it has, and nothing says where | unknown: the packets are decoded and every frame is looked at |

An early key frame may end a fade, or lie in one: where the packets before it, or just after it, were large for a while,
or where it is dark, some are decoded as well. How much may be decoded is bounded; beyond it a strong change counts as a
cut. Where frames are large the bound is close to what the key frames cost, until a first fade is found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from avrec_spark.media.decoder import Skip
from avrec_spark.media.gop import Gop
from avrec_spark.media.transitions import Look, Transition, colour_distance, correlation, find, pattern_distance

# Frames between key frames that may be decoded to look for transitions: for each packet, and at least.
DECODED_SHARE = 0.14
DECODED_FRAMES = 165
# The same where frames are large and each costs half of what a key frame does: for each key frame, at least, and for
# each fade that was found, for a film with one has others. Where the pictures and not only the sizes of packets say
# that there is a transition more may be, for each packet and at least.
LARGE_SHARE, LARGE_FRAMES, LARGE_FADE = 0.3, 16, 60
SEEN_SHARE, SEEN_FRAMES = 0.06, 100

_CHANGED_COLOURS, _CHANGED_PATTERN = 0.3, 0.06
_OTHER_COLOURS, _OTHER_PATTERN, _CHANGED_LEVELS = 0.8, 0.15, 0.1
_CUT_COLOURS, _CUT_PATTERN = 0.45, 0.06
_EARLY_PATTERN = 0.1
# Packets so many times as large as usual are a reason to decode; where frames are small, that costs little.
_BUMP, _CHEAP_BUMP = (1.3, 0.75), (1.5, 0.4)
_LARGE_PIXELS, _CHEAP = 1920 * 1080, 2.0
# Of larger frames only P-frames are decoded, so many of all packets; but for encoders that make fewer than so many.
_SPARSE_PIXELS = 1024 * 576
_DECODED = {"NONREF": 0.55, "BIDIR": 0.33}
_FEWEST = 0.1
_LONG_GOP = 100
_DARK, _DARKER, _SAME_PATTERN = 0.2, 0.8, 0.8
# A fade may end so much later than the larger packets.
_MARGIN, _CHEAP_MARGIN = 0.6, 1.2
_HEAD_SECONDS, _CHEAP_HEAD_SECONDS = 0.6, 1.2
_NO_KEY_SECONDS = 1.05
_BRIGHTENED = 0.6
_HEAD_PATIENCE, _BLACK_STEP = 0.3, 0.02
_LATEST = (128, 250)  # defaults of libvpx, and of x264 and x265
_REGULAR_SHARE, _REGULAR_TOLERANCE = 0.4, 0.03


class _Gap(NamedTuple):
    before: Look
    gop: Gop
    after: Look | None


class TransitionFinder:
    """Hand it what lies between two key frames, one after the other; or, of a decoded clip, every frame (`see`)."""

    def __init__(self, looks: Callable[[Sequence[Packet[Any]], Skip], Iterator[Look]], pixels: int) -> None:
        self._decode = looks
        # Where frames are small, decoding costs little: more of them may be, for less reason.
        self._allowance = float(np.clip(_LARGE_PIXELS / max(pixels, 1), 1, 4))
        self._is_cheap = self._allowance >= _CHEAP
        self._skip: Skip = "NONREF" if pixels <= _SPARSE_PIXELS else "BIDIR"
        self._found: list[Transition] = []
        self._stretch: list[Look] = []
        self._waiting: _Gap | None = None
        self._lengths: Counter[int] = Counter()
        self._packets = self._keys = self._fades = self._spent = 0
        self._end = -math.inf

    def see(self, at: Look) -> None:
        self._stretch.append(at)

    def gap(self, before: Look, gop: Gop, after: Look | None) -> None:
        """The packets `gop` from the key frame `before` up to the key frame `after`, None at the end of the file."""
        # How the next one begins and how long it is tells about this one.
        waiting, self._waiting = self._waiting, _Gap(before, gop, after)
        self._packets += len(gop)
        self._keys += 1
        if after:
            self._lengths[len(gop)] += 1
        if waiting:
            self._judge(waiting, gop)

    def settled(self) -> tuple[list[Transition], float]:
        """Transitions not yet handed out, and the time before which there will be no others."""
        until = self._waiting.before.time if self._waiting else -math.inf
        if self._stretch:
            until = min(until, self._stretch[0].time)
        found, self._found = self._found, []
        return found, until

    def finish(self) -> list[Transition]:
        """The rest of the transitions."""
        if self._waiting:
            self._judge(self._waiting, None)
        self._close()
        return self._found

    def _judge(self, gap: _Gap, following: Gop | None) -> None:
        before, gop, after = gap
        if after is None:
            self._judge_tail(gap)
        elif not _changed(before, after):
            self._close()
        elif self._is_regular(len(gop)):
            self._judge_regular(gap)
        else:
            self._judge_early(gap, following)

    def _judge_regular(self, gap: _Gap) -> None:
        """The key frame would have come anyway: the transition is anywhere before it."""
        before, gop, after = gap
        assert after is not None
        cut_like = _cut_like(before, after)
        spike = gop.spike() if min(before.coarse.mean(), after.coarse.mean()) > _DARK else None
        is_long = not self._is_cheap and len(gop) > _LONG_GOP and self._bump(gop) is None
        if spike is not None and cut_like and not self._is_cheap:
            self._cut(spike)
        elif not is_long and self._may_decode(gop, len(gop), is_seen=True):
            self._look_at(gop, len(gop), before)
            self._stretch.append(after)
            return
        elif _other(before, after) if is_long else cut_like:
            self._cut(gop.largest(after.time) if spike is None else spike)
        self._close()

    def _judge_early(self, gap: _Gap, following: Gop | None) -> None:
        before, gop, after = gap
        assert after is not None
        bump = self._bump(gop)
        last = before
        spike = None if self._is_cheap else gop.spike()
        if spike is not None and spike - before.time < _NO_KEY_SECONDS:
            # Encoders put no second key frame so soon after another.
            self._cut(spike)
        elif bump is not None:
            count = int(np.searchsorted(np.maximum.accumulate(gop.times), bump, side="right"))
            if self._may_decode(gop, count):
                self._look_at(gop, count, before)
                last = self._stretch[-1]
                if after.time - last.time < 0.2:
                    self._stretch.append(after)
                    self._go_on(after, following)
                    return
        self._close()
        is_seen = _may_fade(last, after)
        if following and (is_seen or following.begins_high()) and self._head_is_fade(after, following, is_seen):
            return
        if _early_cut(last, after):
            self._cut(after.time)

    def _go_on(self, key: Look, gop: Gop | None) -> None:
        """Look at what follows a dark key frame, too: the fade that led to it may go on."""
        if gop and key.coarse.mean() < _DARK:
            count = self._head(key, gop)
            if count and self._may_decode(gop, count, is_seen=True):
                self._look_at(gop, count, key, while_changing=True)

    def _head(self, key: Look, gop: Gop) -> int:
        seconds = _CHEAP_HEAD_SECONDS if self._is_cheap else _HEAD_SECONDS
        return int(np.searchsorted(np.maximum.accumulate(gop.times), key.time + seconds))

    def _head_is_fade(self, key: Look, gop: Gop, is_seen: bool) -> bool:
        """Whether a fade goes on after a key frame that lies within it."""
        count = self._head(key, gop)
        if count < 4 or not self._may_decode(gop, count, is_seen):
            return False
        self._look_at(gop, count, key, while_changing=True)
        if key.coarse.mean() < _DARK:
            self._stretch.insert(0, Look(key.time - 0.04, np.zeros_like(key.coarse), _black_colours(key)))
        found = [t for t in find(self._stretch) if t.kind == "fade" and t.start < key.time + 0.3]
        end = found[0].end if found else _brightened(key, self._stretch)
        self._stretch = []
        if end is not None:
            self._add([Transition(min([key.time - 0.2, *(t.start for t in found[:1])]), end, "fade")])
        return end is not None

    def _judge_tail(self, gap: _Gap) -> None:
        if (gap.gop.spike() is not None or self._bump(gap.gop) is not None) and self._may_decode(gap.gop, len(gap.gop)):
            self._look_at(gap.gop, len(gap.gop), gap.before)
        self._close()

    def _look_at(self, gop: Gop, count: int, before: Look, while_changing: bool = False) -> None:
        packets = (gop.packets or [])[:count]
        skip: Skip = "NONREF" if while_changing else self._skip
        while self._stretch and self._stretch[-1].time >= before.time:
            self._stretch.pop()
        seen = len(self._stretch)
        for at in self._decode(packets, skip):
            self._stretch.append(at)
            late = at.time > before.time + _HEAD_PATIENCE
            if while_changing and late and abs(at.coarse.mean() - before.coarse.mean()) < _BLACK_STEP:
                break
        self._spent += len(self._stretch) - seen
        if skip == "BIDIR" and len(self._stretch) - seen < _FEWEST * count:
            # An encoder that makes hardly any P-frames.
            self._skip = "NONREF"
            del self._stretch[seen:]
            self._look_at(gop, count, before)
        if len(self._stretch) == seen:
            self._stretch.append(before)

    def _may_decode(self, gop: Gop, count: int, is_seen: bool = False) -> bool:
        if self._is_cheap:
            allowed = (DECODED_FRAMES + DECODED_SHARE * self._packets) * self._allowance
        else:
            allowed = LARGE_FRAMES + LARGE_SHARE * self._keys + LARGE_FADE * self._fades
            if is_seen:
                allowed += SEEN_FRAMES + SEEN_SHARE * self._packets
        return gop.packets is not None and self._spent + _DECODED[self._skip] * count <= allowed

    def _is_regular(self, length: int) -> bool:
        """Whether the encoder puts key frames at this distance anyway, always or at the latest."""
        if length in _LATEST or (length == max(self._lengths, default=0) and self._lengths[length] > 1):
            return True
        near = max(1, round(length * _REGULAR_TOLERANCE))
        same = sum(self._lengths[length + n] for n in range(-near, near + 1))
        return same >= max(2.0, _REGULAR_SHARE * self._lengths.total())

    def _cut(self, time: float) -> None:
        self._close()
        self._add([Transition(time, time, "cut")])

    def _close(self) -> None:
        stretch, self._stretch = self._stretch, []
        self._add(find(stretch))

    def _add(self, transitions: list[Transition]) -> None:
        for transition in transitions:
            # What lies around a key frame may be looked at twice.
            if transition.start > self._end:
                self._found.append(transition)
                self._fades += transition.kind == "fade"
                self._end = transition.end

    def _bump(self, gop: Gop) -> float | None:
        """Until when the packets have to be decoded to find the fade that their sizes hint at."""
        bump = gop.bump(*(_CHEAP_BUMP if self._is_cheap or self._fades else _BUMP))
        return None if bump is None else bump + (_CHEAP_MARGIN if self._is_cheap else _MARGIN)


def _changed(a: Look, b: Look) -> bool:
    colours, pattern = colour_distance(a.colours, b.colours), pattern_distance(a, b)
    if colours > _OTHER_COLOURS and np.abs(a.coarse - b.coarse).mean() > _CHANGED_LEVELS:
        return True  # from or to black
    return colours > _CHANGED_COLOURS and pattern > _CHANGED_PATTERN


def _early_cut(a: Look, b: Look) -> bool:
    """The change that suffices where the encoder found one as well."""
    return _changed(a, b) and (_cut_like(a, b) or pattern_distance(a, b) > _EARLY_PATTERN)


def _other(a: Look, b: Look) -> bool:
    """Pictures that hardly are of one shot, however long it is."""
    return colour_distance(a.colours, b.colours) > _OTHER_COLOURS and pattern_distance(a, b) > _OTHER_PATTERN


def _may_fade(a: Look, b: Look) -> bool:
    """Whether the second picture is dark, or the first one darkened."""
    if b.coarse.mean() < _DARK:
        return True
    darker = b.coarse.mean() < _DARKER * a.coarse.mean()
    return bool(darker and correlation(a.coarse, b.coarse) > _SAME_PATTERN)


def _brightened(key: Look, looks: Sequence[Look]) -> float | None:
    """When the picture of a dark key frame stops to brighten, if it does so soon and remains the same."""
    bright = max(looks, key=lambda at: at.coarse.mean())
    level = bright.coarse.mean()
    own = [at for at in looks if key.time <= at.time <= bright.time]
    if key.coarse.mean() > _BRIGHTENED * level or min(map(_alike, own, own[1:]), default=0.0) < _SAME_PATTERN:
        return None
    return next(at.time for at in looks if at.coarse.mean() > 0.9 * level)


def _alike(a: Look, b: Look) -> float:
    return correlation(a.coarse, b.coarse)


def _cut_like(a: Look, b: Look) -> bool:
    return colour_distance(a.colours, b.colours) > _CUT_COLOURS and pattern_distance(a, b) > _CUT_PATTERN


def _black_colours(like: Look) -> NDArray[np.float32]:
    colours = np.zeros_like(like.colours)
    colours[0] = 1.0
    return colours
