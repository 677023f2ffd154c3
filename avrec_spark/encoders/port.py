"""What every encoder offers, and what the base class guarantees on its behalf."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from avrec_spark.errors import MissingExtraError

Input = TypeVar("Input", bound=Sized)
Reads = Literal["frames", "motion", "sound", "screen", "text"]

_TINY = 1e-12
_SHORTEST_SECONDS = 0.1
_SILENCE = 1e-4  # peak; 80 dB below full scale


@dataclass
class Words:
    """Words that were spoken or shown from `start` to `end` seconds; `confidence` between 0 and 1."""

    start: float
    end: float
    text: str
    language: str | None = None
    confidence: float | None = None


@dataclass
class Summary:
    """What one encoder found in one input.

    `total` float64[m] is additive: the summaries of the ranges of a long file add up to that of the file.
    Where the encoder is segmented, `segments` is float32[s, dimension] with unit rows, one a key frame or window, and
    `starts` float64[s] their times in seconds.
    """

    total: NDArray[np.float64]
    segments: NDArray[np.float32] | None = None
    starts: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    words: list[Words] = field(default_factory=list)


class Encoder(ABC, Generic[Input]):
    """Turns inputs of one kind into vectors of unit length.

    | reads | an input is |
    |---|---|
    | frames | `media.records.Frames` |
    | motion | `media.records.Motion` |
    | sound | `media.records.Sound`, at `parameters["sample_rate"]` |
    | screen | `media.records.Screen` |
    | text | str |

    `modality` is the name under which models know the vectors; of two encoders in use no two share one. An input
    without content (no frames, silence, an empty text) has no summary and its vector is a row of zeros: the item has no
    such modality, and callers leave the row out. An encoder is cheap to make and to pickle; weights load with the first
    input, once a process.

    A subclass says `_summarise`, `is_empty` where an input of some length may hold nothing, and `_vectors` where a
    vector is more than the direction of its total.
    """

    name: str
    version: str
    modality: str
    dimension: int
    reads: ClassVar[Reads]
    segmented: ClassVar[bool] = False

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = dict(parameters)

    @property
    def parameters_hash(self) -> str:
        """A short hash of name, version and parameters; vectors with the same hash may be compared."""
        identity = json.dumps([self.name, self.version, self.parameters], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def summarise(self, batch: Sequence[Input]) -> list[Summary | None]:
        """A summary an input, None for one without content."""
        present = [position for position, value in enumerate(batch) if not self.is_empty(value)]
        summaries: list[Summary | None] = [None] * len(batch)
        if present:
            found = self._summarise([batch[position] for position in present])
            for position, summary in zip(present, found, strict=True):
                summaries[position] = summary
        return summaries

    def vectors(self, totals: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32[n, dimension] with rows of unit length from totals float64[n, m]."""
        return unit(self._vectors(totals))

    def encode(self, batch: Sequence[Input]) -> NDArray[np.float32]:
        """float32[n, dimension], every row of unit length, or zero for an input without content."""
        vectors = np.zeros((len(batch), self.dimension), np.float32)
        for position, summary in enumerate(self.summarise(batch)):
            if summary is not None:
                vectors[position] = self.vectors(summary.total[None])[0]
        return vectors

    def is_empty(self, value: Input) -> bool:
        """Whether the input holds nothing to encode."""
        return len(value) == 0

    @abstractmethod
    def _summarise(self, batch: list[Input]) -> list[Summary]:
        """Summaries of n ≥ 1 inputs with content, of any length."""

    def _vectors(self, totals: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32[n, dimension], of any length above 0, from totals float64[n, m]."""
        return np.asarray(totals, np.float32)


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows scaled to length 1; a row of zeros stays one.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, _TINY), np.float32)


def is_audible(samples: NDArray[np.float32], rate: int) -> bool:
    """Whether mono samples are a sound at all: of 0.1 s or more, with a peak of −80 dB below full scale or more.

    >>> is_audible(np.zeros(8000, np.float32), 8000), is_audible(np.full(8000, 0.1, np.float32), 8000)
    (False, True)
    """
    if len(samples) < _SHORTEST_SECONDS * rate:
        return False
    return bool(max(np.fmax.reduce(samples), -np.fmin.reduce(samples)) >= _SILENCE)


def require(part: str, module: str, extra: str, then: str = "") -> None:
    """Raise `MissingExtraError` unless the module can be imported; does not import it."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(part, module, extra, then)
