"""The packets from one key frame up to the next, and what their sizes tell."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

# Packets held, a key frame's, to be decoded perhaps.
_HELD_BYTES = 16 * 2**20
# A cut within: a packet so many times as large as those around it, as the median and as the key frame's.
_SPIKE_NEIGHBOURS, _SPIKE_MEDIAN, _SPIKE_KEY = 2.0, 3.0, 0.2
_LARGEST = 1.5
# A fade within: for so long packets are larger than most.
_BUMP_SECONDS = 0.8
# The rest of one after the key frame.
_HEAD_SECONDS, _REST_SECONDS, _HEAD_RATIO = 0.5, 1.6, 1.4


class Gop:
    """The packets from one key frame up to the next; beyond a bound only their times and sizes."""

    def __init__(self, key: Packet[Any] | None = None, time: float = 0.0) -> None:
        self.packets: list[Packet[Any]] | None = []
        self.times: list[float] = []
        self.sizes: list[int] = []
        self._bytes = 0
        if key is not None:
            self.add(key, time)

    def __len__(self) -> int:
        return len(self.times)

    def add(self, packet: Packet[Any], time: float) -> None:
        self.times.append(time)
        self.sizes.append(packet.size)
        self._bytes += packet.size
        if self._bytes > _HELD_BYTES:
            self.packets = None
        elif self.packets is not None:
            self.packets.append(packet)

    def anchors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times and sizes of the packets after the key frame's that are shown later than all before (no B-frames)."""
        times, sizes = np.array(self.times), np.array(self.sizes, np.float64)
        highest = np.maximum.accumulate(times)
        later = np.flatnonzero(times[1:] > highest[:-1]) + 1
        return times[later], sizes[later]

    def spike(self) -> float | None:
        """The time of the one packet that is far larger than those around it."""
        times, sizes = self.anchors()
        if len(sizes) < 4:
            return None
        top = int(sizes.argmax())
        around = np.concatenate([sizes[max(0, top - 4) : top], sizes[top + 1 : top + 5]])
        least = max(_SPIKE_NEIGHBOURS * around.max(), _SPIKE_MEDIAN * np.median(sizes), _SPIKE_KEY * self.sizes[0])
        return float(times[top]) if sizes[top] >= least else None

    def largest(self, otherwise: float) -> float:
        """The time of the largest packet, if it stands out at all."""
        times, sizes = self.anchors()
        if len(sizes) < 2:
            return otherwise
        second, first = np.sort(sizes)[-2:]
        return float(times[sizes.argmax()]) if first > _LARGEST * second else otherwise

    def begins_high(self) -> bool:
        """Whether the first half second has larger packets than what follows, as the rest of a fade has them."""
        times, sizes = self.anchors()
        times = times - self.times[0]
        head, rest = sizes[times < _HEAD_SECONDS], sizes[(times >= _HEAD_SECONDS) & (times < _REST_SECONDS)]
        return min(len(head), len(rest)) >= 3 and bool(np.median(head) > _HEAD_RATIO * np.median(rest))

    def bump(self, ratio: float, share: float = 0.75) -> float | None:
        """The time at which a second of larger packets ends, as a fade has them: `ratio` times what that `share` of all
        packets does not exceed."""
        times, sizes = self.anchors()
        if len(sizes) < 8:
            return None
        usual = float(np.quantile(sizes, share))
        first = np.searchsorted(times, times - _BUMP_SECONDS / 2)
        last = np.searchsorted(times, times + _BUMP_SECONDS / 2, side="right")
        smooth = np.array([sorted(sizes[a:b])[(b - a - 1) // 2] for a, b in zip(first, last, strict=True)])
        high = np.flatnonzero(smooth > ratio * usual)
        return float(times[high[-1]]) if len(high) else None
