"""How much preference an event expresses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark.config import EventSettings

VIEW, RATING = "view", "rating"
_BEST_RATING = 5.0


def weigh(
    types: pd.Series[Any], watch_seconds: pd.Series[Any], ratings: pd.Series[Any], settings: EventSettings
) -> NDArray[np.float64]:
    """float64[n]: the weight of each event's type; types without a weight get 0.

    A view counts in proportion to the watched seconds up to `completed_seconds`, and in full where they are unknown.
    A rating counts in proportion to its value, 5 in full, and not at all where it has none.

    >>> types = pd.Series(["view", "view", "like", "rating"])
    >>> watched, rated = pd.Series([2.5, None, None, None]), pd.Series([None, None, None, 4])
    >>> weigh(types, watched, rated, EventSettings()).tolist()
    [0.5, 1.0, 2.0, 0.8]
    """
    base = types.map(settings.weights).fillna(0.0).to_numpy(np.float64)
    watched = (watch_seconds.astype(float) / settings.completed_seconds).clip(0, 1).fillna(1.0)
    rated = (ratings.astype(float) / _BEST_RATING).clip(0, 1).fillna(0.0)
    share = np.where(types == VIEW, watched, np.where(types == RATING, rated, 1.0))
    return np.asarray(base * share, np.float64)
