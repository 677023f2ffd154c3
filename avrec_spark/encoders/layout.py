"""Described vectors: named blocks of measured features, each standardised with fixed constants.

No statistics of the catalogue enter, so that a vector never changes because its neighbours do. A feature is centred,
scaled and clipped; a block is divided by the root of its width, so that blocks weigh alike whatever their number of
features. The encoder's last step scales the vector to length 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Block(NamedTuple):
    """Width, and the centre and scale of each feature: one number for all of them or one each."""

    width: int
    centre: float | tuple[float, ...]
    scale: float | tuple[float, ...]
    clip: float = 3.0


def layout(blocks: Mapping[str, Block]) -> Mapping[str, slice]:
    """Where each block lies in the vector.

    >>> dict(layout({"level": Block(2, 0.0, 1.0), "tempo": Block(1, 0.0, 1.0)}))
    {'level': slice(0, 2, None), 'tempo': slice(2, 3, None)}
    """
    return slices({name: block.width for name, block in blocks.items()})


def slices(widths: Mapping[str, int]) -> Mapping[str, slice]:
    """Where each block lies in the row that all of them make up, one after the other.

    >>> slices({"a": 2, "b": 3})["b"]
    slice(2, 5, None)
    """
    ends = np.cumsum(list(widths.values())).tolist()
    return MappingProxyType({name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)})


def standardised(features: Mapping[str, Floats], blocks: Mapping[str, Block]) -> NDArray[np.float32]:
    """float32[n, dimension] from features float[n, width] by block."""
    columns = [
        np.clip((features[name] - np.asarray(block.centre)) / np.asarray(block.scale), -block.clip, block.clip)
        / np.sqrt(block.width)
        for name, block in blocks.items()
    ]
    return np.asarray(np.concatenate(columns, axis=1), np.float32)


def deviation(mean: Floats, mean_of_squares: Floats) -> Floats:
    """Standard deviation from the first two moments."""
    return np.asarray(np.sqrt(np.maximum(mean_of_squares - mean**2, 0.0)))
