"""Which seconds of a file one decode describes, and how packets are placed in time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from av.packet import Packet

# A range of a long file is decoded with so much of its neighbours: filters and windows reach over the border.
CONTEXT_SECONDS = 2.0
# A last range shorter than this share of a range is joined to the one before.
_SHORTEST_RANGE = 0.1


class Span(NamedTuple):
    """Own seconds of the file, from 0; `end` is infinite for the last range."""

    start: float = 0.0
    end: float = math.inf


def parts(seconds: float | None, range_seconds: float, max_seconds: float) -> int:
    """Into how many ranges a file is split.

    >>> parts(30.0, 600.0, 14_400.0), parts(1_230.0, 600.0, 14_400.0), parts(1_300.0, 600.0, 14_400.0)
    (1, 2, 3)
    >>> parts(None, 600.0, 14_400.0), parts(90_000.0, 600.0, 14_400.0)
    (1, 24)
    """
    described = min(seconds or 0.0, max_seconds)
    return max(1, math.ceil(described / range_seconds - _SHORTEST_RANGE))


def span(part: int, parts: int, range_seconds: float, max_seconds: float) -> Span:
    """The own seconds of one part of so many.

    >>> span(1, 3, 600.0, 14_400.0), span(0, 1, 600.0, 14_400.0)
    (Span(start=600.0, end=1200.0), Span(start=0.0, end=14400.0))
    """
    end = max_seconds if part == parts - 1 else (part + 1) * range_seconds
    return Span(part * range_seconds, end)


def packet_start(packet: Packet[Any], unit: float) -> float | None:
    """Seconds; `unit` is the stream's time base as a float, for exact fractions are slow and packets are many."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None else stamp * unit


def packet_end(packet: Packet[Any], unit: float) -> float:
    start = packet_start(packet, unit)
    return float("-inf") if start is None else start + (packet.duration or 0) * unit
