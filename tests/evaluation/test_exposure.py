"""How exposure is shared out, against definitions written another way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.evaluation import exposure

amounts = st.lists(st.integers(0, 20), min_size=1, max_size=15)


@settings(deadline=None)
@given(amounts, st.integers(0, 10))
def test_gini_is_half_the_relative_mean_difference_over_the_whole_catalogue(shown: list[int], others: int) -> None:
    everything = np.array([*shown, *[0] * others], float)
    differences = np.abs(everything[:, None] - everything[None, :]).mean()
    expected = differences / (2 * everything.mean()) if everything.any() else 0.0
    assert exposure.gini(np.array(shown), len(everything)) == pytest.approx(expected, abs=1e-12)


def test_gini_counts_items_that_were_never_shown() -> None:
    # Two items share all places: equal among the shown, far from it in a catalogue of 100.
    assert exposure.gini(np.array([3, 3])) == 0.0
    assert exposure.gini(np.array([3, 3]), 100) == pytest.approx(0.98)


@settings(deadline=None)
@given(amounts)
def test_entropy_lies_between_one_item_and_all_alike(shown: list[int]) -> None:
    held = sum(1 for amount in shown if amount)
    assert 0 <= exposure.entropy(np.array(shown)) <= np.log2(max(held, 1)) + 1e-9


def test_groups_are_compared_by_their_size_and_those_never_shown_count() -> None:
    sizes = pd.Series({"big": 8, "small": 1, "unseen": 1})
    figures = exposure.of_groups(pd.Series({"big": 4.0, "small": 1.0}), sizes, k=3)
    assert figures == pytest.approx(
        {
            # 4, 1 and 0 of 5: (−2·0 + 0·1 + 2·4) / (3 · 5)
            "group-gini@3": 8 / 15,
            "group-parity@3": 0.0,
            # |.8 − .8| + |.2 − .1| + |0 − .1|, halved
            "group-divergence@3": 0.1,
            "exposure@3/big": 0.8,
            "exposure@3/small": 0.2,
            "exposure@3/unseen": 0.0,
        }
    )


def test_many_groups_are_summed_up_without_a_line_each() -> None:
    creators = pd.Series(1.0, index=[f"creator {n}" for n in range(21)])
    assert exposure.of_groups(creators, creators, k=3) == pytest.approx(
        {"group-gini@3": 0.0, "group-parity@3": 1.0, "group-divergence@3": 0.0}
    )
