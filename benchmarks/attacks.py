"""Attacks on the events of ML-100K, after the models of B. Mobasher, R. Burke, R. Bhaumik, C. Williams, Toward
trustworthy recommender systems: an analysis of attack models and algorithm robustness, ACM TOIT 2007, and M. O'Mahony,
N. Hurley, G. Silvestre, Recommender systems: attack types and strategies, AAAI 2005 (popular).

An account rates the attacked film, selected films that carry the attack, and fillers that hide it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from avrec_spark import columns as c

DAY = 86_400
# How many films an account of each kind selects, and how many fillers it has.
SIZES = {
    "random": (0, 40),
    "average": (0, 40),
    "bandwagon": (10, 30),
    "ring": (10, 30),
    "popular": (10, 0),
    "segment": (10, 0),
    "love-hate": (40, 0),
}
HONEST = "honest"
LIKED = 5
# (rows of the training part, generator) → (rows after the attack, the attacked item or None)
Attack = Callable[[pd.DataFrame, np.random.Generator], tuple[pd.DataFrame, int | None]]


def none(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
    return rows, None


@dataclass(frozen=True)
class Profiles:
    """Accounts that push a film of `rated` ratings, or nuke one of the 50 most rated, all within `spread` seconds.

    kind: random (fillers around the mean of all ratings), average (around each film's own), bandwagon (random, and the
    most rated films liked), popular (these alone), segment (films of one taste liked), love-hate (the attacked film
    disliked, and those most often seen with it liked in its place), ring (one bandwagon profile, copied).
    """

    kind: str
    accounts: int
    spread: float = DAY / 2
    address: str | None = None
    rated: tuple[int, int] = (10, 30)

    def __call__(self, rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
        counts = rows[c.ITEM_ID].value_counts().sort_index()
        few = counts.index[counts.between(*self.rated)]
        item = int(random.choice(most_rated(counts, 50) if self.kind == "love-hate" else few))
        films = counts.index[counts.index != item].to_numpy()
        selected = self._selected(rows, counts.drop(item), item, random)
        middle = rows[c.TIMESTAMP].quantile(0.5) // DAY * DAY + 3_600
        start = middle if self.spread < 60 * DAY else rows[c.TIMESTAMP].min()
        begin = start + np.sort(random.uniform(0, self.spread, self.accounts))
        parts = [rows]
        for number, moment in enumerate(begin):
            if number == 0 or self.kind != "ring":
                fillers = random.choice(np.setdiff1d(films, selected), SIZES[self.kind][1], replace=False)
                ratings = self._ratings(rows, fillers, random)
            profile = np.concatenate([selected, fillers])
            stars = np.concatenate([np.full(len(selected), LIKED), ratings])
            times = moment + np.cumsum(random.exponential(20.0, len(profile)))
            parts.append(events(10_000 + number, random.permutation(np.c_[profile, stars]), times, self.address))
            parts.append(self._attacked(10_000 + number, item, moment))
        return pd.concat(parts), item

    def _selected(
        self, rows: pd.DataFrame, counts: pd.Series, item: int, random: np.random.Generator
    ) -> NDArray[np.int64]:
        n = SIZES[self.kind][0]
        if self.kind == "segment":
            return alike(rows, int(random.choice(most_rated(counts, 200))), counts, n)
        if self.kind == "love-hate":
            fans = rows.loc[rows[c.ITEM_ID] == item, c.USER_ID]
            counts = rows.loc[rows[c.USER_ID].isin(fans), c.ITEM_ID].value_counts().drop(item)
        return most_rated(counts, n)

    def _ratings(
        self, rows: pd.DataFrame, fillers: NDArray[np.int64], random: np.random.Generator
    ) -> NDArray[np.int64]:
        mean = rows[c.RATING].mean()
        if self.kind == "average":
            mean = rows.groupby(c.ITEM_ID)[c.RATING].mean()[fillers].to_numpy()
        return np.clip(np.rint(random.normal(mean, rows[c.RATING].std(), len(fillers))), 1, 5).astype(np.int64)

    def _attacked(self, user: int, item: int, moment: float) -> pd.DataFrame:
        """The opinion that all this is for."""
        told = events(user, np.array([[item, LIKED]]), np.array([moment]), self.address)
        return told.assign(**{c.EVENT_TYPE: "dislike"}) if self.kind == "love-hate" else told


def most_rated(counts: pd.Series, n: int) -> NDArray[np.int64]:
    """The n of most ratings, ties by id; `counts` by item_id."""
    return counts.sort_index().sort_values(ascending=False, kind="stable").index[:n].to_numpy()


def alike(rows: pd.DataFrame, film: int, counts: pd.Series, n: int) -> NDArray[np.int64]:
    """A film and the n − 1 whose raters are most like its own, by the cosine, of those with 50 ratings or more."""
    fans = rows.loc[rows[c.ITEM_ID] == film, c.USER_ID]
    together = rows.loc[rows[c.USER_ID].isin(fans), c.ITEM_ID].value_counts().reindex(counts.index[counts >= 50])
    cosine = (together / np.sqrt(counts.reindex(together.index))).fillna(0)
    return most_rated(cosine, n)


def events(user: int, rated: NDArray[np.int64], times: NDArray[np.float64], address: str | None) -> pd.DataFrame:
    """Ratings of one account: `rated` int64[n, 2] of films and stars."""
    return pd.DataFrame(
        {
            c.USER_ID: user,
            c.ITEM_ID: rated[:, 0],
            c.RATING: rated[:, 1],
            c.TIMESTAMP: times.astype(np.int64),
            c.EVENT_TYPE: "rating",
            c.ADDRESS: address or f"hotel{user}",
            HONEST: False,
        }
    )


def crawlers(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
    """Ten accounts that open every film, two a second or one each half minute."""
    films, start = np.sort(rows[c.ITEM_ID].unique()), rows[c.TIMESTAMP].quantile(0.5)
    parts = [rows]
    for number in range(10):
        opened = np.c_[random.permutation(films), random.integers(3, 6, len(films))]
        times = start + np.arange(len(films)) * (0.5 if number < 5 else 30.0)
        parts.append(events(10_000 + number, opened, times, None))
    return pd.concat(parts), None


def clocks(share: float, ahead: bool) -> Attack:
    """The time of some rows becomes that of other rows, or lies years ahead; these rows are the attacker's."""

    def attack(rows: pd.DataFrame, random: np.random.Generator) -> tuple[pd.DataFrame, int | None]:
        chosen = random.random(len(rows)) < share
        times = rows[c.TIMESTAMP].to_numpy().copy()
        years = random.integers(5, 30, chosen.sum()) * 365 * DAY
        times[chosen] = times[chosen] + years if ahead else random.permutation(times)[: chosen.sum()]
        return rows.assign(**{c.TIMESTAMP: times, HONEST: ~chosen}), None

    return attack
