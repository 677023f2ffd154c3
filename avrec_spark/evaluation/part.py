"""What one evaluation works on: interactions to fit on, pairs that were held out, and what is ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import Recommender

_INDICES = [c.USER_INDEX, c.ITEM_INDEX]


@dataclass(frozen=True)
class Part:
    """`train` has user_id, item_id and optionally weight, timestamp; `held_out` user_id, item_id.

    `features` are item_id, vector a modality. For every user of `held_out` all items of train and of the features are
    ranked, or only the `candidates`, without the user's own train items. `fold` is its number where there are folds.
    `validation` (user_id, item_id) only serves models that choose their best epoch by it.
    """

    train: pd.DataFrame
    held_out: pd.DataFrame
    features: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    candidates: NDArray[Any] | None = None
    fold: int | None = None
    validation: pd.DataFrame | None = None

    @classmethod
    def of_snapshot(cls, path: str | Path) -> Part:
        """A snapshot's train and validation, for choosing settings; its test part is not read."""
        known = TrainingSet.read(path)
        pairs = {c.USER_ID: known.users.decode(known.user_index), c.ITEM_ID: known.items.decode(known.item_index)}
        train = pd.DataFrame({**pairs, c.WEIGHT: known.weight, c.TIMESTAMP: known.timestamp})
        held_out = known.validation if known.validation is not None else pd.DataFrame(columns=_INDICES)
        users, items = (held_out[name].to_numpy(np.int64) for name in _INDICES)
        features = {
            name: pd.DataFrame(
                {c.ITEM_ID: known.items.ids[matrix.present], c.VECTOR: list(matrix.values[matrix.present])}
            )
            for name, matrix in known.features.items()
        }
        return cls(
            train,
            pd.DataFrame({c.USER_ID: known.users.decode(users), c.ITEM_ID: known.items.decode(items)}),
            features,
        )

    def training_set(self) -> TrainingSet:
        """What a model is fitted on; nothing of what was held out is in it."""
        return TrainingSet.from_frames(self.train, self.features, validation=self.validation)

    def lists(self, fitted: Recommender, k: int) -> pd.DataFrame:
        """The k best items of each user of `held_out`, as `Recommender.recommend` gives them."""
        users = self.held_out[c.USER_ID].drop_duplicates().sort_values().to_numpy()
        return fitted.recommend(users, k, candidates=self.candidates)

    def n_ranked(self, fitted: Recommender) -> int:
        """How many items there are to choose from."""
        return len(fitted.items) if self.candidates is None else len(self.candidates)
