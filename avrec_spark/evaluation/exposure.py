"""How the places in all lists are shared out among items and between groups of items.

| metric | formula | convention |
|---|---|---|
| coverage@k | distinct items in all lists / items | of the whole catalogue that the model ranks |
| gini@k | Σ (2j − N − 1) x_j / (N Σ x), x ascending | x: how often each item is shown, 0 for items never shown |
| entropy@k | −Σ p log2 p | bits; p: an item's share of all places; at most log2 N |
| group-gini@k | the same coefficient over groups | x: a group's exposure |
| group-parity@k | least / largest exposure an item among the groups | 1 is equal treatment, 0 leaves a group out |
| group-divergence@k | ½ Σ \\|share of exposure − share of the catalogue\\| | total variation, 0 to 1 |
| exposure@k/GROUP | a group's share of the exposure | written for at most 20 groups |

N counts the whole catalogue. A group's exposure is Σ 1 / log2(rank + 1) over the places of its items; items without a
group are left out. None of these is a mean over users, so they have no interval.

Sources: Gini 1912 in the form of Dixon et al. 1987; Shannon 1948; Singh and Joachims 2018, Fairness of exposure in
rankings (exposure by rank, parity between groups).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_GROUPS_NAMED = 20


def gini(amounts: NDArray[Any], n: int | None = None) -> float:
    """The Gini coefficient of amounts ≥ 0, of n holders of which those not in `amounts` hold nothing.

    0 where all hold the same, (n − 1) / n where one holds everything, 0 where there is nothing to hold.

    Three of four items are shown 1, 1 and 2 times: (−3·0 − 1·1 + 1·1 + 3·2) / (4 · 4).

    >>> gini(np.array([1, 2, 1]), n=4)
    0.375
    >>> gini(np.array([5, 5])), gini(np.array([7]), n=4)
    (0.0, 0.75)
    """
    held = np.sort(np.asarray(amounts, np.float64))
    n = len(held) if n is None else n
    total = held.sum()
    if total == 0:
        return 0.0
    # Those who hold nothing come first and add nothing to the sum; they only move the positions of the others.
    positions = np.arange(n - len(held) + 1, n + 1)
    return float(((2 * positions - n - 1) * held).sum() / (n * total))


def entropy(amounts: NDArray[Any]) -> float:
    """Shannon's entropy of the shares, in bits.

    >>> entropy(np.array([1, 1, 2, 0]))
    1.5
    """
    held = np.asarray(amounts, np.float64)
    shares = held[held > 0] / held.sum()
    # + 0.0: a single holder has an entropy of 0, not of −0.
    return float(-(shares * np.log2(shares)).sum() + 0.0)


def of_items(shown: NDArray[np.float64], k: int, n_items: int) -> dict[str, float]:
    """Coverage, Gini and entropy. `shown` float64[m]: how often each item was shown; the other n_items − m never were.

    >>> of_items(np.array([1.0, 2.0, 1.0]), k=2, n_items=4)
    {'coverage@2': 0.75, 'gini@2': 0.375, 'entropy@2': 1.5}
    """
    return {
        f"coverage@{k}": np.count_nonzero(shown) / n_items,
        f"gini@{k}": gini(shown, n_items),
        f"entropy@{k}": entropy(shown),
    }


def of_groups(exposure: pd.Series, sizes: pd.Series, k: int) -> dict[str, float]:
    """Fairness between groups. Both are indexed by group: `exposure` in all lists, `sizes` in items of the catalogue.

    >>> sizes = pd.Series({"ann": 2, "bob": 2})
    >>> of_groups(pd.Series({"ann": 3.0, "bob": 1.0}), sizes, k=5)  # doctest: +NORMALIZE_WHITESPACE
    {'group-gini@5': 0.25, 'group-parity@5': 0.3333333333333333, 'group-divergence@5': 0.25,
     'exposure@5/ann': 0.75, 'exposure@5/bob': 0.25}
    """
    held = exposure.reindex(sizes.index, fill_value=0.0).to_numpy(np.float64)
    if held.sum() == 0:
        return {}
    shares, an_item = held / held.sum(), held / sizes.to_numpy(np.float64)
    result = {
        f"group-gini@{k}": gini(held),
        f"group-parity@{k}": float(an_item.min() / an_item.max()),
        f"group-divergence@{k}": float(np.abs(shares - sizes / sizes.sum()).sum() / 2),
    }
    if len(sizes) <= _GROUPS_NAMED:
        result |= {f"exposure@{k}/{group}": float(share) for group, share in zip(sizes.index, shares, strict=True)}
    return result
