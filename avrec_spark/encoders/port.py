"""What every encoder offers, and what the base class guarantees on its behalf."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from avrec_spark.errors import MissingExtraError

Input = TypeVar("Input")
Modality = Literal["visual", "audio", "text"]

_TINY = 1e-12


class Encoder(ABC, Generic[Input]):
    """Turns inputs of one modality into vectors of unit length.

    | modality | an input is |
    |---|---|
    | visual | frames, uint8[f, 224, 224, 3], RGB |
    | audio | samples, float32[s], mono, at `parameters["sample_rate"]` |
    | text | str |

    An input without content (no frames, silence, an empty text) gives a row of zeros: the item has no such modality,
    and callers leave the row out. An encoder is cheap to make and to pickle; weights load with the first `encode`,
    once a process. A subclass says `is_empty` and `_encode`, and where it is `segmented`, `_encode_segments`.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    modality: ClassVar[Modality]
    dimension: ClassVar[int]
    segmented: ClassVar[bool] = False

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = dict(parameters)

    @property
    def parameters_hash(self) -> str:
        """A short hash of name, version and parameters; vectors with the same hash may be compared."""
        identity = json.dumps([self.name, self.version, self.parameters], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def encode(self, batch: Sequence[Input]) -> NDArray[np.float32]:
        """float32[n, dimension], every row of unit length, or zero for an input without content."""
        vectors = np.zeros((len(batch), self.dimension), np.float32)
        present = [position for position, value in enumerate(batch) if not self.is_empty(value)]
        if present:
            vectors[present] = unit(self._encode([batch[position] for position in present]))
        return vectors

    def encode_segments(self, batch: Sequence[Input]) -> list[NDArray[np.float32]]:
        """For each input float32[segments, dimension], rows as in `encode`; only where `segmented` is true."""
        raise NotImplementedError(f"{self.name} gives one vector an input and none a segment.")

    @abstractmethod
    def is_empty(self, value: Input) -> bool:
        """Whether the input holds nothing to encode."""

    @abstractmethod
    def _encode(self, batch: list[Input]) -> NDArray[np.float32]:
        """float32[n, dimension] for n ≥ 1 inputs with content, of any length."""


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1; a row of zeros stays one.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, _TINY), np.float32)


def pooled(segments: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector of an input, float32[d], from the vectors of its segments: `encode` without encoding twice.

    >>> pooled(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)).round(3).tolist()
    [0.7070000171661377, 0.7070000171661377]
    """
    return np.asarray(unit(segments.mean(axis=0, keepdims=True))[0], np.float32)


def require(part: str, module: str, extra: str) -> None:
    """Raise `MissingExtraError` unless the module can be imported; does not import it."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(part, module, extra)
