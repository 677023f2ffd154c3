"""Folding in equals a new fit wherever the mathematics says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.errors import DataError, FoldInError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender

N_ITEMS = 20

# Models whose items do not change by a user who does what another one has done.
ITEM_SIDE = [
    ("popular", {"by": "segment"}),
    ("sar", {}),
    ("item-knn", {"neighbours": 8}),
    ("markov", {}),
    ("walk", {}),
    ("ease", {"regularisation": 5.0}),
    ("ease", {"regularisation": 5.0, "window": 4, "memory": 3.0}),
    ("als", {"engine": "numpy", "rank": 4}),
    ("als", {"engine": "numpy", "rank": 4, "implicit": False}),
    ("content-cosine", {}),
    ("ridge", {}),
]
USER_SIDE = [
    ("user-knn", {"neighbours": 6}),
    ("ease", {"side": "user", "regularisation": 5.0}),
    ("ease", {"side": "user", "regularisation": 5.0, "closed_form_limit": 1, "neighbours": 8}),
]


def rows(seed: int = 0, users: int = 25) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    pairs = [(user, item) for user in range(users) for item in random.choice(N_ITEMS, random.integers(3, 9), False)]
    frame = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    return frame.assign(weight=random.integers(1, 5, len(frame)), timestamp=random.permutation(len(frame)) * 1e5)


def vectors() -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(2)
    return {"visual": pd.DataFrame({"item_id": range(N_ITEMS), "vector": list(random.normal(size=(N_ITEMS, 4)))})}


def scores(model: Recommender, user: Any) -> pd.Series:
    return model.recommend([user], N_ITEMS, filter_seen=False).set_index("item_id")["score"].sort_index()


def same(one: pd.Series, other: pd.Series, tolerance: float = 1e-5) -> None:
    pd.testing.assert_series_equal(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "parameters"), ITEM_SIDE)
def test_a_twin_gets_what_the_original_got_in_the_fit(name: str, parameters: dict[str, Any]) -> None:
    model = registry.create(name, **parameters).fit(rows(), vectors())
    twin = rows().query("user_id == 7").assign(user_id=700)
    same(scores(model.fold_in(twin), 700), scores(model, 7), 1e-4)


@pytest.mark.parametrize(("name", "parameters"), ITEM_SIDE)
def test_the_rest_of_a_history_completes_it(name: str, parameters: dict[str, Any]) -> None:
    """Half of the events of a stranger first, half of them later, is the whole history at once."""
    model = registry.create(name, **parameters).fit(rows(), vectors())
    stranger = rows(seed=9, users=1).assign(user_id=700)
    half = model.fold_in(stranger.iloc[::2])
    assert not np.allclose(scores(half, 700), scores(model.fold_in(stranger), 700))
    same(scores(half.fold_in(stranger.iloc[1::2]), 700), scores(model.fold_in(stranger), 700), 1e-4)


@pytest.mark.parametrize(("name", "parameters"), USER_SIDE)
def test_a_stranger_gets_the_row_of_a_new_fit(name: str, parameters: dict[str, Any]) -> None:
    stranger = rows(seed=9, users=1).assign(user_id=700)
    folded = registry.create(name, **parameters).fit(rows()).fold_in(stranger)
    refitted = registry.create(name, **parameters).fit(pd.concat([rows(), stranger]))
    same(scores(folded, 700), scores(refitted, 700), 1e-4)


@pytest.mark.parametrize(("name", "parameters"), USER_SIDE)
def test_a_new_event_of_a_known_user_gives_the_row_of_a_new_fit(name: str, parameters: dict[str, Any]) -> None:
    taken = set(rows().query("user_id == 7")["item_id"])
    new = pd.DataFrame({"user_id": [7], "item_id": [min(set(range(N_ITEMS)) - taken)], "timestamp": [9e9]})
    folded = registry.create(name, **parameters).fit(rows()).fold_in(new)
    refitted = registry.create(name, **parameters).fit(pd.concat([rows().assign(weight=1), new.assign(weight=1)]))
    same(scores(folded, 7), scores(refitted, 7), 1e-4)


@pytest.mark.parametrize(("name", "parameters"), USER_SIDE)
def test_users_are_folded_in_after_others_and_after_saving(
    name: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    model = registry.create(name, **parameters).fit(rows())
    one, other = (rows(seed=seed, users=1).assign(user_id=700 + seed) for seed in (8, 9))
    first = model.fold_in(one)
    first.save(tmp_path)
    wanted = model.fold_in(pd.concat([one, other]))
    for folded in (first.fold_in(other), Recommender.load(tmp_path).fold_in(other)):
        for user in (708, 709, 3):
            same(scores(folded, user), scores(wanted, user))
    history = other["item_id"].tolist()
    lists = first.recommend_for_history([history], N_ITEMS, filter_seen=False)
    same(lists.set_index("item_id")["score"].sort_index(), scores(wanted, 709))


def test_one_item_more_changes_no_item_weights_of_a_markov_model_without_normalisation() -> None:
    # A history of one event pairs it with nothing, and so a new fit has the same steps between items.
    single = pd.DataFrame({"user_id": [700], "item_id": [3], "timestamp": [5e6], "weight": [1.0]})
    model = registry.create("walk", user_power=0.0).fit(rows())
    same(
        scores(model.fold_in(single), 700),
        scores(registry.create("walk", user_power=0.0).fit(pd.concat([rows(), single])), 700),
    )


def test_an_als_user_is_one_more_half_step() -> None:
    # Written out from Hu, Koren and Volinsky, with the regularisation of MLlib: λ times the number of ratings.
    model = registry.create("als", engine="numpy", rank=3, alpha=2.0, regularisation=0.5).fit(rows())
    history = pd.DataFrame({"user_id": 700, "item_id": [2, 5], "weight": [1.0, 4.0]})
    source = model.score_sources()[0]
    items = np.asarray(source.right, np.float64).T
    r = np.zeros(N_ITEMS)
    r[model.items.encode([2, 5])] = np.array([1.0, 4.0]) / rows()["weight"].mean()
    confidence = 1 + 2.0 * r
    system = items.T @ np.diag(confidence) @ items + 0.5 * 2 * np.eye(3)
    user = np.linalg.solve(system, items.T @ (confidence * (r > 0)))
    expected = pd.Series(items @ user, pd.Index(model.items.ids, name="item_id"), name="score").sort_index()
    same(scores(model.fold_in(history), 700), expected, 1e-4)


def test_what_an_unknown_item_says_is_left_out() -> None:
    model = registry.create("ease").fit(rows())
    known = pd.DataFrame({"user_id": [700], "item_id": [3]})
    unknown = pd.DataFrame({"user_id": [700, 701], "item_id": [888, 888]})
    folded = model.fold_in(pd.concat([known, unknown]))
    same(scores(folded, 700), scores(model.fold_in(known), 700))
    same(scores(folded, 701), scores(model, "a stranger"))


def test_ids_of_another_type_are_refused() -> None:
    with pytest.raises(DataError, match="not all of one type"):
        registry.create("ease").fit(rows()).fold_in(pd.DataFrame({"user_id": ["700"], "item_id": [3]}))


def test_a_model_whose_users_are_learnt_says_what_to_do() -> None:
    model = registry.create("random").fit(rows())
    with pytest.raises(FoldInError, match=r"The model random cannot fold in .* Fit it again .*docs/models\.md"):
        model.fold_in(rows(seed=9, users=1))
