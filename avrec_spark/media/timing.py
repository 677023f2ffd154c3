"""Whether the frames of a stream are shown at even distances."""

from __future__ import annotations

import heapq
from collections import Counter

# More frames than this are never reordered (H.264 and H.265 allow 16 references).
_REORDERED = 24
# A container's clock may be too coarse for the rate: Matroska counts milliseconds.
_COARSE_CLOCK = 0.002
_JITTER_SHARE = 0.05
_UNEVEN_SHARE = 0.02
_UNEVEN_FRAMES = 3
_DISTINCT = 4096


class FrameRateMeter:
    """Collects the time stamps of packets, in the order of decoding, and judges the distances in the order of showing.

    >>> meter = FrameRateMeter(unit=1 / 1000)
    >>> for stamp in (0, 133, 67, 33, 100, 267, 200, 167, 233):
    ...     meter.add(stamp)
    >>> meter.variable()
    False
    """

    def __init__(self, unit: float) -> None:
        self._unit = unit
        self._waiting: list[int] = []
        self._last: int | None = None
        self._distances: Counter[int] = Counter()

    def add(self, stamp: int) -> None:
        heapq.heappush(self._waiting, stamp)
        if len(self._waiting) > _REORDERED:
            self._count(heapq.heappop(self._waiting))

    def variable(self) -> bool | None:
        """Whether the distance changes, more than by the rounding of the clock or once; None of fewer than 3 frames."""
        while self._waiting:
            self._count(heapq.heappop(self._waiting))
        total = sum(self._distances.values())
        if total < 2:
            return None
        usual = self._distances.most_common(1)[0][0]
        jitter = max(1.0 if self._unit <= _COARSE_CLOCK else 0.0, usual * _JITTER_SHARE)
        uneven = sum(count for distance, count in self._distances.items() if abs(distance - usual) > jitter)
        return uneven >= max(_UNEVEN_FRAMES, _UNEVEN_SHARE * total)

    def _count(self, stamp: int) -> None:
        if self._last is not None and stamp > self._last:
            distance = stamp - self._last
            if distance in self._distances or len(self._distances) < _DISTINCT:
                self._distances[distance] += 1
        self._last = stamp
