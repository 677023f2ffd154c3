"""Cross-modal search: a sound finds videos, a text finds clips, in the space that `align` makes of all modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.dataset.index import IdIndex
from avrec_spark.dataset.training_set import FeatureMatrix
from avrec_spark.errors import DataError, UsageError
from avrec_spark.models.fusion.content import ContentEncoder
from avrec_spark.models.fusion.recommender import Fusion
from avrec_spark.recommend.topk import ScoreSource, top_k, unit
from avrec_spark.training.warm_start import WarmStart

QUERY = "query"


@dataclass(frozen=True)
class SharedSpace:
    """Where each modality of each item lies: `places` has unit vectors float32[n_items, d] a modality, or zeros."""

    items: IdIndex
    encoder: ContentEncoder
    places: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, learnt: Fusion | WarmStart, item_features: Mapping[str, pd.DataFrame]) -> Self:
        """By a model or a pre-trained encoder, with a catalogue's vectors: item_id, vector a modality, as in `fit`.

        The catalogue need not be the one that was learnt on. Modalities that the encoder does not know are left out.
        Raises `DataError` where it was not aligned, where none is known, and for vectors of another width or with NaN.
        """
        start = learnt.learnt() if isinstance(learnt, Fusion) else learnt
        if not start.aligned:
            raise DataError(
                "The modalities of this model share no space: it was fitted without the loss align.",
                "Fit it with align above 0, or take an encoder that the job pretrain has made.",
            )
        encoder = ContentEncoder.restored(start.only("encoder.").parameters)
        known = {name: frame for name, frame in item_features.items() if name in encoder.widths}
        if not known:
            raise DataError(
                f"The catalogue has vectors of {', '.join(item_features) or 'no modality'}, and the encoder knows "
                f"{', '.join(encoder.widths)}.",
                "Use vectors of the encoders that it was fitted on.",
            )
        items = IdIndex(pd.unique(np.concatenate([frame[c.ITEM_ID].to_numpy() for frame in known.values()])))
        places = {
            name: _placed(
                encoder, name, FeatureMatrix.of(name, items.encode(frame[c.ITEM_ID]), frame[c.VECTOR], len(items))
            )
            for name, frame in known.items()
        }
        return cls(items, encoder, places)

    def search(self, query: Mapping[str, Any], k: int, among: Sequence[str] = ()) -> pd.DataFrame:
        """The k items nearest to each of n queries: query (0 … n − 1), item_id, rank from 1, score (a cosine).

        `query` has vectors float[n, width] of one modality or more, whose places are averaged. An item's place is the
        mean of those modalities that it has `among` the named; by default all that the query does not have itself, or
        all where none is left. Items with none of them are not found.

        Raises `DataError` for an unknown modality, for none, and for vectors of another width or with NaN.
        """
        if k < 1:
            raise UsageError(f"k is {k}.", "Ask for at least one item.")
        unknown = sorted({*query, *among} - set(self.encoder.widths)) + sorted(set(among) - set(self.places))
        if unknown or not query:
            raise DataError(
                f"The query asks for {', '.join(unknown) or 'no modality'}, and there is {', '.join(self.places)}.",
                "Give vectors of a modality that the encoder knows, and search among those of the catalogue.",
            )
        rest = tuple(name for name in self.places if name not in query) or tuple(self.places)
        theirs = unit(np.sum([self.places[name] for name in among or rest], axis=0))
        found = [
            _placed(self.encoder, name, FeatureMatrix.of(name, np.arange(len(rows)), pd.Series(list(rows)), len(rows)))
            for name, rows in query.items()
        ]
        asked = unit(np.sum(found, axis=0))
        there = np.flatnonzero(np.abs(theirs).sum(axis=1))
        source = ScoreSource(asked, np.ascontiguousarray(theirs.T))
        places, scores = top_k([source], np.arange(len(asked)), k, candidates=there)
        row, rank = np.nonzero(places >= 0)
        return pd.DataFrame(
            {
                QUERY: row,
                c.ITEM_ID: self.items.decode(places[row, rank]),
                c.RANK: (rank + 1).astype(np.int32),
                c.SCORE: scores[row, rank].astype(np.float64),
            }
        )


@torch.inference_mode()
def _placed(encoder: ContentEncoder, name: str, matrix: FeatureMatrix) -> NDArray[np.float32]:
    """Unit vectors float32[n, d] of one modality's projections; zeros where it is absent."""
    if matrix.values.shape[1] != encoder.widths[name]:
        raise DataError(
            f"The {name} vectors have {matrix.values.shape[1]} values each, not {encoder.widths[name]}.",
            "Use the vectors of the encoder that the model was fitted with.",
        )
    present = torch.from_numpy(matrix.present)
    projected = encoder.project[name](encoder.standardised(name, torch.from_numpy(matrix.values), present))
    return np.where(matrix.present[:, None], unit(projected.numpy()), np.float32(0))
