"""Popularity, neighbours, chains, walks, content and EASE on rows whose scores can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, SettingsError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.histories import Histories

DAY = 86_400.0
# Two of the three users with a or b have both; one of the three with b or c.
ABC = [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "b"), (3, "c")]


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    names = ("user_id", "item_id", "weight", "timestamp")
    return pd.DataFrame(rows, columns=names[: len(rows[0])])


def scores(model: Recommender, user: Any, **options: Any) -> dict[Any, float]:
    lists = model.recommend([user], 99, **options)
    return {item: round(score, 5) for item, score in zip(lists["item_id"], lists["score"], strict=True)}


def random_rows(items: int = 15, least: int = 2) -> pd.DataFrame:
    """30 users with `least` to 8 items."""
    random = np.random.default_rng(0)
    pairs = [(user, item) for user in range(30) for item in random.choice(items, random.integers(least, 9), False)]
    rows = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    return rows.assign(timestamp=random.permutation(len(rows)))


def test_random_orders_differ_between_users_and_seeds_and_favour_no_item() -> None:
    rows = frame(*[(user, 99) for user in range(2000)], *[(2000, item) for item in range(10)])
    lists = registry.create("random", seed=1).fit(rows).recommend(range(2000), 10)
    share = lists[lists["rank"] == 1]["item_id"].value_counts(normalize=True)
    assert share.between(0.05, 0.17).all()
    assert len(share) == 10
    other = registry.create("random", seed=2).fit(rows).recommend(range(2000), 10)
    assert 0.05 < (lists["item_id"] == other["item_id"]).mean() < 0.17


def test_recent_popularity_halves_in_the_half_life_and_counts_the_latest_event() -> None:
    days = [(1, "a", 0), (1, "a", 30), (2, "b", 20), (3, "b", 10), (4, "c", 0)]
    rows = frame(*[(user, item, 1.0, day * DAY) for user, item, day in days])
    model = registry.create("popular", by="recent", half_life_days=10.0).fit(rows)
    assert scores(model, 4) == {"a": 1.0, "b": 0.75}
    assert scores(model, 1) == {"b": 0.75, "c": 0.125}


def test_popularity_by_segment_counts_users_of_the_own_activity() -> None:
    light = [(user, "short") for user in range(4)]
    heavy = [(user, item) for user in range(10, 14) for item in ("long", "longer", *"pqrs")]
    rows = frame(*light, *heavy, (20, "x"), (21, "long"), (23, "long"), *[(22, item) for item in "pqrsx"])
    model = registry.create("popular", by="segment", segments=2).fit(rows)
    assert next(iter(scores(model, 20))) == "short"
    assert next(iter(scores(model, 22))) in {"long", "longer"}
    assert next(iter(scores(registry.create("popular").fit(rows), 20))) == "long"


def test_an_unknown_kind_of_popularity_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="by of the model popular cannot be 'age'. Choose of overall, recent, segm"):
        registry.create("popular", by="age")


def test_item_knn_adds_up_cosines_of_the_nearest_items() -> None:
    # cos(a, b) = 2 / √(2 · 3), cos(b, c) = 1 / √(3 · 1).
    assert scores(registry.create("item-knn").fit(frame(*ABC)), 3) == {"a": round(2 / 6**0.5, 5)}
    shrunk = registry.create("item-knn", shrinkage=1.0).fit(frame(*ABC))
    assert scores(shrunk, 1) == {"c": round(1 / 8**0.5, 5)}
    rows = frame(*ABC, (1, "c"))
    # The nearest item of c is b (2 / √6), not a (1 / 2): of user 4 only a speaks, and is left out.
    nearest = registry.create("item-knn", neighbours=1).fit(pd.concat([rows, frame((4, "a"))]))
    assert scores(nearest, 4)["c"] == 0.0


def test_user_knn_adds_up_cosines_of_the_nearest_users() -> None:
    # cos(1, 2) = 1 and cos(1, 3) = 1/2: with one neighbour, user 1 does not hear of c.
    assert scores(registry.create("user-knn").fit(frame(*ABC)), 1) == {"c": 0.5}
    assert scores(registry.create("user-knn", neighbours=1).fit(frame(*ABC)), 1) == {"c": 0.0}
    # Items weigh a 1/2, b 1/3, c 1: (1/3) / √((1/2 + 1/3) (1/3 + 1)).
    assert scores(registry.create("user-knn", power=1.0).fit(frame(*ABC)), 1) == {"c": round(10**-0.5, 5)}


def test_a_user_model_explains_by_what_its_neighbours_share() -> None:
    rows = frame(*ABC, (3, "d"), (5, "d"), (5, "e"), (1, "e"))
    for name, parameters in (("user-knn", {}), ("ease", {"side": "user", "regularisation": 1.0})):
        model = registry.create(name, **parameters).fit(rows)
        # Of user 3's b, c and d it is b that those with a have.
        assert model.because([3, "nobody"], ["a", "a"]) == ["b", None]


def test_walks_split_at_users_by_how_much_they_have() -> None:
    rows = frame(*ABC, (3, "d"))
    # From b: users 1 and 2 go on to a with 1/2 each, user 3 to c with 1/3.
    assert scores(registry.create("walk").fit(rows), 3) == {"a": 1.0}
    assert scores(registry.create("walk").fit(rows), 1) == {"c": round(1 / 3, 5), "d": round(1 / 3, 5)}
    # b has 3 users, a has 2.
    powers = registry.create("walk", start_power=1.0, target_power=1.0).fit(rows)
    assert scores(powers, 3) == {"a": round(1 / 3 / 2, 5)}


def steps() -> pd.DataFrame:
    return frame(
        (1, "a", 1.0, 1.0), (1, "b", 1.0, 2.0),
        (2, "a", 1.0, 1.0), (2, "c", 1.0, 2.0), (2, "b", 1.0, 3.0),
        (3, "c", 1.0, 1.0), (3, "a", 1.0, 2.0),
    )  # fmt: skip


def test_markov_follows_steps_of_any_lag_in_the_window() -> None:
    # C[a, b] = 1 + 1/2 (over c), C[c, b] = 1; a has 3 users, b and c 2. User 3's c is one event old: e^(−1/2).
    model = registry.create("markov", window=2, decay=0.5, memory=2.0, shrinkage=0.0, symmetric=False).fit(steps())
    assert scores(model, 3) == {"b": round(1.5 / 6**0.5 + np.exp(-0.5) / 2, 5)}
    assert model.recommend_for_history([["b"]], 9)["score"].tolist() == [0.0, 0.0]
    both_ways = registry.create("markov", window=1, memory=0.0, shrinkage=1.0).fit(steps())
    # Neighbours in time: a–b once, c–b once.
    assert scores(both_ways, 3) == {"b": round(1 / (6**0.5 + 1) + 1 / 3, 5)}


def test_events_of_one_time_have_no_order_of_their_own() -> None:
    rows = random_rows().assign(timestamp=lambda rows: rows["timestamp"] // 10)
    for name, parameters in (("markov", {}), ("ease", {"window": 3, "memory": 2.0})):
        model, shuffled = (registry.create(name, **parameters).fit(part) for part in (rows, rows.sample(frac=1)))
        pd.testing.assert_frame_equal(model.recommend(range(30), 5), shuffled.recommend(range(30), 5))


def test_content_cosine_is_the_cosine_of_profile_and_item() -> None:
    vectors = pd.DataFrame({"item_id": list("abcd"), "vector": [[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]]})
    model = registry.create("content-cosine", centred=False).fit(frame((1, "a"), (2, "b"), (2, "a")), {"look": vectors})
    assert scores(model, 1) == {"c": round(0.5**0.5, 5), "b": 0.0, "d": -1.0}
    assert scores(model, 2) == {"c": 1.0, "d": round(-(0.5**0.5), 5)}


def test_ridge_is_the_regression_of_a_history_on_content() -> None:
    # Of the items with interactions the feature is −1 and 1; u = 1 / (2 + λ).
    vectors = pd.DataFrame({"item_id": list("abc"), "vector": [[-1.0], [1.0], [3.0]]})
    model = registry.create("ridge", regularisation=2.0).fit(frame((1, "b"), (2, "a")), {"look": vectors})
    assert scores(model, 1) == {"c": 0.75, "a": -0.25}


@pytest.mark.parametrize("name", ["content-cosine", "ridge"])
def test_content_models_say_that_they_need_content(name: str) -> None:
    with pytest.raises(DataError, match=f"The model {name} needs item features, and was given none"):
        registry.create(name).fit(frame(*ABC))


def test_ease_on_the_user_side_is_ease_of_the_transposed_rows() -> None:
    rows = random_rows()
    turned = rows.rename(columns={"user_id": "item_id", "item_id": "user_id"})
    user_side = registry.create("ease", side="user", power=0.4, regularisation=3.0).fit(rows)
    item_side = registry.create("ease", power=0.4, regularisation=3.0).fit(turned)
    one = user_side.recommend(range(30), 15, filter_seen=False).sort_values(["user_id", "item_id"])
    other = item_side.recommend(range(15), 30, filter_seen=False).sort_values(["item_id", "user_id"])
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4, atol=1e-5)


def test_ease_weighs_rows_by_a_power_of_their_length() -> None:
    # Users 1 (a, b) and 2 (a): weights 1/2 and 1 over their mean over entries, (1/2 + 1/2 + 1) / 3.
    model = registry.create("ease", regularisation=1.0, power=1.0).fit(frame((1, "a"), (1, "b"), (2, "a")))
    inverse = np.linalg.inv(np.array([[0.5 + 1, 0.5], [0.5, 0.5]]) / (2 / 3) + np.eye(2))
    assert scores(model, 2) == {"b": round(-inverse[0, 1] / inverse[1, 1], 5)}


@pytest.mark.parametrize("side", ["item", "user"])
def test_beyond_its_limit_ease_regresses_on_the_nearest_alone(side: str) -> None:
    # Of ten items all have six or more: any two users share an item, and any two items a user.
    rows = random_rows(items=10, least=6)
    exact = registry.create("ease", side=side, regularisation=3.0).fit(rows)
    restricted = registry.create("ease", side=side, regularisation=3.0, closed_form_limit=5, neighbours=30).fit(rows)
    one, other = (model.recommend(range(30), 10).sort_values(["user_id", "item_id"]) for model in (exact, restricted))
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-3, atol=1e-4)
    few = registry.create("ease", side=side, regularisation=3.0, closed_form_limit=5, neighbours=3).fit(rows)
    weights = few.score_sources()[0].right if side == "item" else few.score_sources()[0].left.T
    assert (np.diff(weights.tocsc().indptr) == 3).all()


def test_windowed_ease_is_ease_of_windows_laid_over_the_histories() -> None:
    rows, width, items = random_rows(), 3, 15
    windows = []
    for _, events in rows.sort_values("timestamp").groupby("user_id"):
        row = np.eye(items)[events["item_id"]]
        windows += [row[max(0, end - width) : end].sum(axis=0) for end in range(1, len(row) + width)]
    gram = np.array(windows).T @ np.array(windows) / width
    inverse = np.linalg.inv(gram + 2.0 * np.eye(items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    events = rows[rows["user_id"] == 4].sort_values("timestamp")["item_id"].to_numpy()
    expected = np.exp(-np.arange(len(events))[::-1] / 2.0) @ weights[events]
    model = registry.create("ease", window=width, memory=2.0, regularisation=2.0).fit(rows)
    found = scores(model, 4, filter_seen=False)
    np.testing.assert_allclose([found[item] for item in range(items)], expected, atol=2e-5)


def test_ease_refuses_what_makes_no_sense() -> None:
    with pytest.raises(SettingsError, match="no window and no memory on the user side"):
        registry.create("ease", side="user", window=5)
    with pytest.raises(SettingsError, match="regularisation of 0"):
        registry.create("ease", regularisation=0)
    with pytest.raises(SettingsError, match="side of the model ease cannot be 'left'. Choose of item, user"):
        registry.create("ease", side="left")


def test_events_of_one_time_fade_alike() -> None:
    rows = frame((1, "a", 1.0, 5.0), (1, "b", 1.0, 5.0), (1, "c", 1.0, 9.0))
    fade = Histories.of(TrainingSet.from_frames(rows)).fading(2.0)
    before = (np.exp(-1 / 2) + np.exp(-2 / 2)) / 2
    np.testing.assert_allclose(fade, [before, before, 1.0], rtol=1e-6)
    # Another user at the same time is another moment.
    both = pd.concat([rows, frame((2, "a", 1.0, 9.0))])
    np.testing.assert_allclose(sorted(Histories.of(TrainingSet.from_frames(both)).fading(2.0)), [before, before, 1, 1])
