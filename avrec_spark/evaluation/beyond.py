"""Ranking metrics of one user each, beyond accuracy: how new, varied, popular and fitting a list is.

Each is computed where its input is given, and is a mean over the users for whom it is defined; the shown items are the
k first recommendations, however many there are.

| metric | formula | needs | convention |
|---|---|---|---|
| novelty@k | mean of −log2(c / U) over the shown items | train | c of U train users have the item; at least 1 |
| popularity@k | mean of c / U over the shown items | train | average recommendation popularity; 0 for unseen items |
| serendipity@k | Σ rel(r) · unexpected(r) / k | train | unexpected: not among the k items with most train users |
| popularity-lift@k | popularity@k / popularity of the history − 1 | train, histories | 0: as popular as the history |
| diversity@k | mean of 1 − cos over pairs of shown items | vectors | needs two items with vectors |
| unexpectedness@k | mean of 1 − cos over pairs of shown and history items | vectors, histories | |
| miscalibration@k | Σ p log(p / ((1 − α) q + α p)), α = .01 | categories, histories | nats; 0 is calibrated |

p is the share of each category in the user's history, q that in the list; an item with m categories gives 1/m to each.

Sources: Zhou et al. 2010 (novelty as self-information), Yin et al. 2012 (average recommendation popularity), Ge et al.
2010 (serendipity against a primitive recommender, here the most popular items), Abdollahpouri et al. 2019 (popularity
lift), Ziegler et al. 2005 (intra-list diversity), Zhang et al. 2012 (unserendipity by the cosine to the history), Steck
2018 (calibration, and its α).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from avrec_spark.evaluation.catalogue import Catalogue

_ALPHA = 0.01
Values = dict[str, NDArray[np.float64]]


class BeyondAccuracy:
    """The metrics that a catalogue allows, ready to measure blocks of users.

    Two users, of whom the second has no list; items 0 and 1 were seen by four and one of four train users:

    >>> catalogue = Catalogue(np.array([7, 8]), train_users=np.array([4, 1]), n_users=4)
    >>> shown, hits = np.array([[0, 1], [-1, -1]]), np.array([[True, True], [False, False]])
    >>> values = BeyondAccuracy(catalogue, histories=False).measure(shown, hits, None, k=2)
    >>> {name: value.tolist() for name, value in values.items()}
    {'novelty': [1.0, nan], 'popularity': [0.625, nan], 'serendipity': [0.0, 0.0]}

    Novelty is (0 + 2) / 2 bits, popularity (1 + 1/4) / 2; both items are among the two most popular.
    """

    def __init__(self, catalogue: Catalogue, histories: bool) -> None:
        self._catalogue, self._histories = catalogue, histories
        if catalogue.train_users is not None:
            counts = catalogue.train_users
            self._share = counts / max(catalogue.n_users, 1)
            self._information = -np.log2(np.maximum(counts, 1) / max(catalogue.n_users, 1))
            self._order = catalogue.popularity_order()
        if catalogue.vectors is not None:
            self._has_vector = catalogue.vectors.any(axis=1).astype(np.float64)

    @property
    def names(self) -> list[str]:
        """The metrics that `measure` gives, in its order."""
        about = self._catalogue
        popular, vectors, categories = (
            part is not None for part in (about.train_users, about.vectors, about.categories)
        )
        return [
            *(["novelty", "popularity", "serendipity"] if popular else []),
            *(["popularity-lift"] if popular and self._histories else []),
            *(["diversity"] if vectors else []),
            *(["unexpectedness"] if vectors and self._histories else []),
            *(["miscalibration"] if categories and self._histories else []),
        ]

    def measure(self, shown: NDArray[np.int64], hits: NDArray[np.bool_], history: csr_matrix | None, k: int) -> Values:
        """Values float64[users] by name, NaN where undefined.

        `shown` int64[users, ≥ k] are positions in the catalogue by rank: −1 where the list has ended, and at least the
        catalogue's length for an item that it does not know. `hits` is of the same shape; `history` users × items.
        """
        about, top, values = self._catalogue, shown[:, :k], {}
        known = (top >= 0) & (top < len(about.ids))
        items = np.where(known, top, 0)
        lists = _indicator(items, known, len(about.ids))
        if about.train_users is not None:
            listed = np.maximum((top >= 0).sum(axis=1), 1)
            nothing = np.where((top >= 0).any(axis=1), 0.0, np.nan)
            # An item that nobody has in train informs as much as one that a single user has.
            unknown = np.log2(max(about.n_users, 1)) * (top >= len(about.ids)).sum(axis=1)
            information = _over(self._information, items, known)
            shares = _over(self._share, items, known) / listed + nothing
            unexpected = hits[:, :k] & ~(known & (self._order[items] < k)) if len(about.ids) else hits[:, :k]
            values["novelty"] = (information + unknown) / listed + nothing
            values["popularity"] = shares
            values["serendipity"] = unexpected.sum(axis=1) / k
            if history is not None:
                values["popularity-lift"] = _ratio(shares, _ratio(history @ self._share, _length(history))) - 1
        if about.vectors is not None:
            total, n = self._sum_of_vectors(lists)
            values["diversity"] = 1 - _ratio((total.astype(np.float64) ** 2).sum(axis=1) - n, n * (n - 1))
            if history is not None:
                other, m = self._sum_of_vectors(history)
                values["unexpectedness"] = 1 - _ratio((total.astype(np.float64) * other).sum(axis=1), n * m)
        if about.categories is not None and history is not None:
            values["miscalibration"] = miscalibration(history @ about.categories, lists @ about.categories)
        return values

    def _sum_of_vectors(self, lists: csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Σ of the unit vectors of each list, and how many items of it have one. Pairs need no more:
        Σ over i ≠ j of cos(i, j) = |Σ v|² − n."""
        vectors = self._catalogue.vectors
        assert vectors is not None
        return lists.astype(np.float32) @ vectors, lists @ self._has_vector


def miscalibration(history: csr_matrix, lists: csr_matrix) -> NDArray[np.float64]:
    """Steck's KL divergence of each list's categories from the history's; NaN where either has none.

    Both are users × categories, of any scale. A history half drama and half comedy, a list of drama only:

    >>> value = miscalibration(csr_matrix([[1.0, 1.0]]), csr_matrix([[3.0, 0.0]]))
    >>> by_hand = 0.5 * np.log(0.5 / (0.99 + 0.005)) + 0.5 * np.log(0.5 / 0.005)
    >>> bool(np.isclose(value[0], by_hand)), round(by_hand, 4)
    (True, 1.9585)
    """
    p, q = (_ratio(part.toarray(), np.asarray(part.sum(axis=1))) for part in (history, lists))
    mixed = (1 - _ALPHA) * q + _ALPHA * p
    terms = np.where(p > 0, p, 1.0) / np.where(p > 0, mixed, 1.0)
    # A sum that rounds to −1e-17 is 0: the divergence is never negative.
    divergence: NDArray[np.float64] = np.maximum((p * np.log(terms)).sum(axis=1), 0.0)
    return divergence


def _indicator(items: NDArray[np.int64], known: NDArray[np.bool_], n_items: int) -> csr_matrix:
    """users × items, 1 where an item is shown; a row keeps the order of ranks, so that sums round alike everywhere."""
    ends = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
    return csr_matrix((np.ones(ends[-1]), items[known], ends), shape=(len(items), n_items))


def _over(facts: NDArray[np.float64], items: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Σ of a fact over each row's known items."""
    return (facts[items] * known).sum(axis=1) if len(facts) else np.zeros(len(items))


def _length(history: csr_matrix) -> NDArray[np.float64]:
    return np.asarray(history.sum(axis=1)).ravel()


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
