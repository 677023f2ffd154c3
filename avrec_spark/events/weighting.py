"""How much preference an event expresses: a function of its type, of how far it was watched, and of its age."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark.config import EventSettings
from avrec_spark.events.types import ENDORSEMENTS, RATING, REJECTIONS, VIEW

_A_DAY = pd.Timedelta(days=1)
# Ratings in the highest and the lowest fifth of the scale are opinions: 5 and 1 of 5.
_FIFTH = 0.2


def weigh(
    types: pd.Series[Any],
    watch_seconds: pd.Series[Any],
    ratings: pd.Series[Any],
    settings: EventSettings,
    durations: pd.Series[Any] | None = None,
) -> NDArray[np.float64]:
    """float64[n]: weight of the type × share; types without a weight get 0.

    The share of a view is watched / (`completed_ratio` × duration) where the duration of the medium (seconds) is known,
    else watched / `completed_seconds`, at most 1, and 1 where the watched seconds are unknown. That of a rating is
    (rating − `neutral_rating`) / (`best_rating` − `neutral_rating`) between 0 and 1, and 0 where there is none. Any
    other event counts in full.

    >>> types = pd.Series(["view", "view", "view", "like", "rating"])
    >>> watched, rated = pd.Series([2.5, 40.0, None, None, None]), pd.Series([None, None, None, None, 4])
    >>> lasts = pd.Series([None, 100.0, 100.0, None, None])
    >>> weigh(types, watched, rated, EventSettings(), lasts).tolist()
    [0.5, 0.5, 1.0, 2.0, 0.8]
    """
    base = types.map(settings.weights).fillna(0.0).to_numpy(np.float64)
    complete: Any = settings.completed_seconds
    if durations is not None:
        complete = (durations.astype(float) * settings.completed_ratio).fillna(settings.completed_seconds)
    watched = (watch_seconds.astype(float) / complete).clip(0, 1).fillna(1.0)
    rated = _rated(ratings, settings).fillna(0.0)
    share = np.where(types == VIEW, watched, np.where(types == RATING, rated, 1.0))
    return np.asarray(base * share, np.float64)


def opinions(types: pd.Series[Any], ratings: pd.Series[Any], settings: EventSettings) -> NDArray[np.float64]:
    """float64[n]: 1 for an event that speaks for its item, −1 against it, 0 that does neither.

    Endorsements are like, share, favourite, follow, purchase, tip and ratings in the highest fifth of the scale from
    `neutral_rating` to `best_rating`, rejections are dislike, skip and ratings in the lowest fifth.

    >>> types = pd.Series(["view", "like", "skip", "rating", "rating", "rating"])
    >>> opinions(types, pd.Series([None, None, None, 5, 3, 1]), EventSettings()).tolist()
    [0.0, 1.0, -1.0, 1.0, 0.0, -1.0]
    """
    is_rating, rated = types == RATING, _rated(ratings, settings)
    speaks_for = types.isin(ENDORSEMENTS) | (is_rating & (rated > 1 - _FIFTH))
    against = types.isin(REJECTIONS) | (is_rating & (rated <= _FIFTH))
    return speaks_for.to_numpy(np.float64) - against.to_numpy(np.float64)


def _rated(ratings: pd.Series[Any], settings: EventSettings) -> pd.Series[Any]:
    """Share of the scale, from `neutral_rating` (0) to `best_rating` (1)."""
    span = settings.best_rating - settings.neutral_rating
    return ((ratings.astype(float) - settings.neutral_rating) / span).clip(0, 1)


def fade(weights: pd.Series[Any], times: pd.Series[Any], latest: pd.Timestamp, half_life_days: float) -> pd.Series[Any]:
    """The weights by age: weight × 2^(−age / half-life), the age counted in days before `latest`.

    >>> times = pd.Series(pd.to_datetime(["2026-01-31", "2026-01-01"], utc=True))
    >>> fade(pd.Series([2.0, 2.0]), times, times.max(), half_life_days=30).tolist()
    [2.0, 1.0]
    """
    return weights * np.exp2(-((latest - times) / _A_DAY) / half_life_days)
