"""Sums over users that add up, and their Poisson bootstrap.

Every figure with an interval is made of sums: over users for means, over rows for ratios. Sums of shares of the data
are added, so that no process ever holds all users, and the figures do not depend on how the users were spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Figure = dict[str, float]
Metrics = dict[str, Figure]

# The counts of a bootstrap are samples × users; this bounds them.
USERS_AT_ONCE = 4_096
# Poisson(1) by its inverse distribution function at 2^16 points: 16 bits of a hash make a draw.
_CUMULATIVE = np.cumsum(np.exp(-1) / np.cumprod(np.concatenate([[1.0], np.arange(1.0, 12.0)])))
_DRAW = np.searchsorted(_CUMULATIVE, (np.arange(2**16) + 0.5) / 2**16).astype(np.uint8)


def poisson_counts(users: NDArray[Any], samples: int) -> NDArray[np.float64]:
    """float64[samples, users]: how often each user is in each bootstrap sample, Poisson(1) distributed.

    The bootstrap is Poisson's (Chamandy et al. 2012, Estimating uncertainty for massive data streams). A count is drawn
    from a hash of the user's id and the sample's number, so that the samples are the same wherever a user is.

    >>> counts = poisson_counts(np.arange(10_000), 100)
    >>> counts.shape, bool(abs(counts.mean() - 1) < 0.01), bool(abs(counts.var() - 1) < 0.01)
    ((100, 10000), True, True)
    """
    keys = pd.util.hash_array(np.asarray(users)).astype(np.uint64)
    groups = -(-samples // 4)
    with np.errstate(over="ignore"):
        mixed = keys[None, :] + np.arange(1, groups + 1, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
        # The finaliser of splitmix64 (Steele, Lea and Flood 2014) makes neighbouring keys independent.
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    draws = _DRAW[mixed.view(np.uint16)].reshape(groups, len(keys), 4)
    return draws.transpose(0, 2, 1).reshape(groups * 4, len(keys))[:samples].astype(np.float64)


@dataclass(frozen=True)
class Sums:
    """What some users add to m columns of sums, each with the sum that it is divided by.

    `total` and `count` are float64[1 + samples, m]: row 0 is of the users as they are, the others of the bootstrap.
    """

    total: NDArray[np.float64]
    count: NDArray[np.float64]

    @classmethod
    def none(cls, columns: int, samples: int) -> Sums:
        return cls(np.zeros((1 + samples, columns)), np.zeros((1 + samples, columns)))

    @classmethod
    def of_means(cls, users: NDArray[Any], values: NDArray[np.float64], samples: int) -> Sums:
        """Of means over users. `values` float64[users, m]; NaN says that a figure is not defined for a user.

        >>> sums = Sums.of_means(np.array([1, 2, 3]), np.array([[1.0], [0.0], [np.nan]]), samples=0)
        >>> sums.total.tolist(), sums.count.tolist()
        ([[1.0]], [[2.0]])
        """
        defined = ~np.isnan(values)
        return cls.of_ratios(users, np.where(defined, values, 0.0), defined.astype(np.float64), samples)

    @classmethod
    def of_ratios(
        cls, users: NDArray[Any], numerators: NDArray[np.float64], denominators: NDArray[np.float64], samples: int
    ) -> Sums:
        """Of ratios of sums; both float64[users, m]. A user may come in several shares: the parts add up."""
        # Most denominators are 1 for everybody: their sums need no product.
        plain = (denominators == 1.0).all(axis=0)
        sums = cls.none(numerators.shape[1], samples)
        for start in range(0, len(users), USERS_AT_ONCE):
            block = slice(start, start + USERS_AT_ONCE)
            times = np.vstack([np.ones((1, len(users[block]))), poisson_counts(users[block], samples)])
            np.add(sums.total, times @ numerators[block], out=sums.total)
            sums.count[:, plain] += times.sum(axis=1)[:, None]
            sums.count[:, ~plain] += times @ denominators[block][:, ~plain]
        return sums

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.total + other.total, self.count + other.count)

    def means(self) -> NDArray[np.float64]:
        """float64[1 + samples, m]: the ratios; NaN where nothing was summed."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    def pack(self) -> bytes:
        return np.concatenate([self.total, self.count]).tobytes()

    @classmethod
    def unpack(cls, packed: bytes, columns: int) -> Sums:
        """What `pack` gave. NumPy's bytes are read-only; sums are not changed in place after they are made."""
        total, count = np.split(np.frombuffer(packed, np.float64).reshape(-1, columns), 2)
        return cls(total, count)


def figures(names: list[str], means: NDArray[np.float64]) -> Metrics:
    """{"ndcg@10": {"mean": …, "low": …, "high": …}, …} with 95 % percentile intervals.

    `means` is float64[1 + samples, names] as from `Sums.means`. A sample without any user in it says nothing and is
    left out; without samples low and high equal the mean. Names without a value (NaN) are left out.

    >>> figures(["a", "b"], np.array([[0.5, np.nan]]))
    {'a': {'mean': 0.5, 'low': 0.5, 'high': 0.5}}
    """
    result = {}
    for name, column in zip(names, means.T, strict=True):
        mean, samples = column[0], column[1:][~np.isnan(column[1:])]
        if not np.isnan(mean):
            low, high = np.percentile(samples, [2.5, 97.5]) if len(samples) else (mean, mean)
            result[name] = {"mean": float(mean), "low": float(low), "high": float(high)}
    return result


def points(values: Mapping[str, float]) -> Metrics:
    """Figures that have no interval because they are no mean over users: low and high equal the mean.

    >>> points({"coverage@10": 0.25})
    {'coverage@10': {'mean': 0.25, 'low': 0.25, 'high': 0.25}}
    """
    return {name: {"mean": float(value), "low": float(value), "high": float(value)} for name, value in values.items()}
