"""What a file will cost to describe, so that tasks of equal length can be packed; learnt from what files have cost.

The cost of a file whose description is known is a sum of terms with a price each: opening it, its bytes, its seconds
of sound, and the pixels of its key frames, priced by codec. Of a file that was never opened only size and extension are
known: then its bytes are priced by extension. Prices start from built-in ones and move towards what was measured, the
more the more was measured (ridge regression towards the built-in prices, in relative terms, none below zero).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from scipy.optimize import nnls

FILE, MEGABYTE, MINUTE, FRAMES = "file", "megabyte", "minute of sound", "megapixels of key frames"
# Core-seconds on a 2020s server core, encoders included.
_PRICES = {FILE: 0.15, MEGABYTE: 0.01, MINUTE: 0.15, FRAMES: 0.02}
_UNSEEN_MEGABYTE = 0.1
# How many measured files weigh as much as the built-in prices.
_PRIOR_FILES = 3.0
_SHORTEST = 0.05
_TINY = 1e-6
# Above so many megabytes a file of unknown content is a long one, of which first only one range is decoded.
_UNSEEN_MEGABYTES = 100.0


@dataclass(frozen=True)
class Facts:
    """What is known of a file; all but the size may be unknown. `pixels` are those of a frame, `seconds` its length."""

    size: int
    uri: str = ""
    codec: str | None = None
    pixels: int | None = None
    gop: int | None = None
    frame_rate: float | None = None
    seconds: float | None = None
    sound: bool = True

    @property
    def extension(self) -> str:
        return PurePosixPath(self.uri).suffix.lower().lstrip(".")

    def terms(self) -> dict[str, float]:
        """Amount of each term that has a price."""
        if self.seconds is None:
            megabytes = min(self.size / 1e6, _UNSEEN_MEGABYTES)
            return {FILE: 1.0, f"unseen megabyte {self.extension}": megabytes}
        terms = {FILE: 1.0, MEGABYTE: self.size / 1e6, MINUTE: self.seconds / 60 if self.sound else 0.0}
        if self.codec and self.pixels:
            key_frames = max(1.0, self.seconds * (self.frame_rate or 25.0) / max(self.gop or 50, 1))
            terms[f"{FRAMES} {self.codec}"] = key_frames * self.pixels / 1e6
        return terms


@dataclass(frozen=True)
class CostModel:
    """Prices by term, in core-seconds.

    >>> round(CostModel().predict(Facts(2_000_000, "a.mp4")), 2)
    0.35
    """

    prices: dict[str, float] = field(default_factory=dict)

    def predict(self, facts: Facts) -> float:
        """Estimated core-seconds to decode and encode the file."""
        return max(_SHORTEST, sum(self._price(name) * amount for name, amount in facts.terms().items()))

    def _price(self, name: str) -> float:
        return self.prices.get(name, _built_in(name))

    @classmethod
    def learned(cls, facts: Sequence[Facts], seconds: Sequence[float]) -> CostModel:
        """Prices from measured files: `seconds` spent on each.

        Every measured file teaches twice, as one whose content is known and as one of which only the size was.
        """
        unseen = [Facts(one.size, one.uri) for one in facts]
        return cls(
            _fitted(facts, seconds) | {name: price for name, price in _fitted(unseen, seconds).items() if name != FILE}
        )


def _built_in(name: str) -> float:
    return next((price for term, price in _PRICES.items() if name.startswith(term)), _UNSEEN_MEGABYTE)


def _fitted(facts: Sequence[Facts], seconds: Sequence[float]) -> dict[str, float]:
    terms = [one.terms() for one in facts]
    names = sorted({name for one in terms for name in one})
    if not names:
        return {}
    amounts = np.array([[one.get(name, 0.0) for name in names] for one in terms])
    measured = np.maximum(np.asarray(seconds, float), _SHORTEST)
    built_in = np.array([_built_in(name) for name in names])
    # Relative errors: a minute too long on a film is no worse than a second on a clip.
    rows = amounts * built_in / measured[:, None]
    # As if so many files more had been measured at the built-in price of each term.
    prior = np.diag(np.sqrt(_PRIOR_FILES * np.mean(rows**2, axis=0)) + _TINY)
    factors = nnls(np.vstack([rows, prior]), np.concatenate([np.ones(len(rows)), np.diag(prior)]))[0]
    return dict(zip(names, (factors * built_in).tolist(), strict=True))


def pack(seconds: Sequence[float], slots: int, shortest: float) -> list[list[int]]:
    """Positions of the files of each task: as many tasks as keep every one about `shortest` seconds long.

    Starting a task costs as much as a short clip, so few long tasks beat many short ones, but all slots should be busy:
    the number of tasks is a multiple of `slots` where there is enough work, and little work is dealt out to all slots
    as long as each gets a second. The longest file goes first, each to the
    task that has the least so far (Graham, 1969: at most 4/3 of the best packing).

    >>> pack([5.0, 4.0, 3.0, 3.0, 3.0], slots=2, shortest=9.0)
    [[0, 3], [1, 2, 4]]
    """
    if not len(seconds):
        return []
    wanted = int(sum(seconds) / shortest)
    wanted = wanted - wanted % slots if wanted >= slots else max(1, min(slots, int(sum(seconds))))
    tasks: list[list[int]] = [[] for _ in range(min(wanted, len(seconds)))]
    heap = [(0.0, number) for number in range(len(tasks))]
    for position in np.argsort(-np.asarray(seconds), kind="stable").tolist():
        load, number = heapq.heappop(heap)
        tasks[number].append(position)
        heapq.heappush(heap, (load + seconds[position], number))
    return tasks
