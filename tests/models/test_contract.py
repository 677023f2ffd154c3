"""What every registered model promises, asked of each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, FoldInError, MissingColumnsError, UsageError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender

# Settings that make a model quick; one that is not listed has its defaults.
CHEAP: dict[str, dict[str, Any]] = {
    # The steps of Spark in this process; test_reference_models.py holds them against Spark.
    "als": {"rank": 4, "iterations": 2, "engine": "numpy"},
    "mf": {"dimension": 8, "epochs": 2, "batch_size": 64},
    "fusion": {"dimension": 8, "epochs": 2, "batch_size": 64},
    "lightgcn": {"dimension": 8, "epochs": 2, "batch_size": 64},
    "two-tower": {"dimension": 8, "epochs": 2},
    "transformer": {"dimension": 8, "epochs": 2},
}
N_USERS, N_ITEMS = 30, 24
EVERYBODY = list(range(N_USERS))

Fit = Callable[[pd.DataFrame, dict[str, pd.DataFrame]], Recommender]


def interactions(seed: int = 0) -> pd.DataFrame:
    """Users of two tastes with 4 to 9 items each, item 0 liked by nearly all, nobody has item 23."""
    random = np.random.default_rng(seed)
    rows = []
    for user in EVERYBODY:
        own = np.arange(1, 12) + 11 * (user % 2)
        chosen = random.choice(own, random.integers(4, 9), replace=False)
        rows += [(user, item) for item in (*chosen, *([0] if user % 10 else [])) if item != N_ITEMS - 1]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    return frame.assign(weight=random.integers(1, 4, len(frame)), timestamp=random.integers(0, 10**7, len(frame)))


def features() -> dict[str, pd.DataFrame]:
    """Vectors of two modalities; the second lacks some items."""
    random = np.random.default_rng(1)
    return {
        name: pd.DataFrame({"item_id": np.arange(n), "vector": list(random.normal(size=(n, 5)).astype(np.float32))})
        for name, n in (("visual", N_ITEMS), ("audio", N_ITEMS - 6))
    }


def compare(one: pd.DataFrame, other: pd.DataFrame, tolerance: float = 1e-3) -> None:
    """The same scores a user and item; the order may only differ where scores do not."""
    keys = ["user_id", "item_id"]
    both = one.merge(other, on=keys, how="outer", suffixes=("", "_other"), validate="one_to_one")
    np.testing.assert_allclose(both["score"], both["score_other"], rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module", params=registry.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    model: str = request.param
    if registry.create(model).needs_spark:
        request.getfixturevalue("spark")
    return model


@pytest.fixture(scope="module")
def fit(name: str) -> Fit:
    return lambda rows, vectors: registry.create(name, **CHEAP.get(name, {})).fit(rows, vectors)


@pytest.fixture(scope="module")
def fitted(fit: Fit) -> Recommender:
    return fit(interactions(), features())


def test_the_parameters_make_the_same_model_again(name: str) -> None:
    parameters = registry.create(name, **CHEAP.get(name, {})).parameters
    assert registry.create(name, **parameters).parameters == parameters
    assert json.loads(json.dumps(parameters)) == parameters


def test_lists_are_ranked_from_one_with_falling_scores(fitted: Recommender) -> None:
    lists = fitted.recommend(EVERYBODY, 5)
    assert list(lists.columns) == ["user_id", "item_id", "rank", "score"]
    for _, rows in lists.groupby("user_id"):
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5]
        assert rows["score"].is_monotonic_decreasing
        assert rows["item_id"].is_unique


def test_items_to_exclude_are_left_out_for_their_user_only(fitted: Recommender) -> None:
    whole = fitted.recommend([3, 999], N_ITEMS)
    first = whole[whole["user_id"] == 3]["item_id"].iloc[:2].tolist()
    popular = whole[whole["user_id"] == 999]["item_id"].iloc[0]
    lists = fitted.recommend([3, 999, 4], N_ITEMS, exclude=[[*first, 12345], np.array([popular]), None])
    for user, gone in ((3, first), (999, [popular])):
        before = fitted.recommend([user], N_ITEMS)["item_id"]
        assert lists[lists["user_id"] == user]["item_id"].tolist() == before[~before.isin(gone)].tolist()
    compare(lists[lists["user_id"] == 4], fitted.recommend([4], N_ITEMS))


def test_fitting_twice_is_fitting_once(fitted: Recommender, fit: Fit) -> None:
    again = fit(interactions(seed=5), features())
    again.fit(interactions(), features())
    compare(again.recommend(EVERYBODY, N_ITEMS), fitted.recommend(EVERYBODY, N_ITEMS))
    assert len(again.history) == len(fitted.history)


def test_saving_and_loading_change_nothing(fitted: Recommender, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    assert type(loaded) is type(fitted)
    assert loaded.parameters == fitted.parameters
    assert loaded.history == fitted.history
    before = fitted.recommend([*EVERYBODY, 999], N_ITEMS)
    pd.testing.assert_frame_equal(loaded.recommend([*EVERYBODY, 999], N_ITEMS), before)
    pairs = before["user_id"], before["item_id"]
    assert loaded.because(*pairs) == fitted.because(*pairs)


def test_text_ids_survive_saving(fit: Fit, tmp_path: Path) -> None:
    rows, vectors = interactions(), features()
    rows = rows.assign(user_id="u" + rows["user_id"].astype(str), item_id="片" + rows["item_id"].astype(str))
    vectors = {key: frame.assign(item_id="片" + frame["item_id"].astype(str)) for key, frame in vectors.items()}
    model = fit(rows, vectors)
    model.save(tmp_path)
    lists = Recommender.load(tmp_path).recommend(["u1", "u2"], 5)
    pd.testing.assert_frame_equal(lists, model.recommend(["u1", "u2"], 5))
    assert lists["item_id"].str.match("片[0-9]+").all()


def test_unknown_users_get_the_popular_list(fitted: Recommender) -> None:
    counts = interactions().drop_duplicates(["user_id", "item_id"]).groupby("item_id").size()
    lists = fitted.recommend([999, -1], 3)
    assert lists["user_id"].tolist() == [999] * 3 + [-1] * 3
    assert lists["score"].tolist() == counts.nlargest(3).tolist() * 2
    assert lists["score"].tolist() == counts[lists["item_id"]].tolist()


def test_seen_items_are_filtered_unless_asked_for(fitted: Recommender) -> None:
    seen = set(map(tuple, interactions()[["user_id", "item_id"]].to_numpy().tolist()))

    def pairs(filter_seen: bool) -> set[tuple[int, int]]:
        lists = fitted.recommend(EVERYBODY, N_ITEMS, filter_seen=filter_seen)
        return set(zip(lists["user_id"], lists["item_id"], strict=True))

    everything = {(user, item) for user in EVERYBODY for item in fitted.items.ids.tolist()}
    assert pairs(filter_seen=True) == everything - seen
    assert pairs(filter_seen=False) == everything


def test_only_candidates_are_recommended_and_their_scores_stay(fitted: Recommender) -> None:
    lists = fitted.recommend([*EVERYBODY, 999], 50, candidates=[3, 5, 17, 17, 12345], filter_seen=False)
    assert set(lists["item_id"]) == {3, 5, 17}
    assert lists.groupby("user_id").size().eq(3).all()
    unrestricted = fitted.recommend([*EVERYBODY, 999], 50, filter_seen=False)
    compare(lists, unrestricted[unrestricted["item_id"].isin([3, 5, 17])], tolerance=1e-5)


def test_without_candidates_or_users_nothing_is_recommended(fitted: Recommender) -> None:
    assert len(fitted.recommend(EVERYBODY, 5, candidates=[])) == 0
    assert len(fitted.recommend([], 5)) == 0


def test_a_longer_list_begins_with_the_shorter_one(fitted: Recommender) -> None:
    longer = fitted.recommend(EVERYBODY, 10 * N_ITEMS)
    shorter = fitted.recommend(EVERYBODY, 4)
    pd.testing.assert_frame_equal(longer[longer["rank"] <= 4].reset_index(drop=True), shorter)


def test_reasons_come_from_the_users_own_history(fitted: Recommender) -> None:
    seen = set(map(tuple, interactions()[["user_id", "item_id"]].to_numpy().tolist()))
    lists = fitted.recommend([*EVERYBODY, 999], 3)
    reasons = fitted.because(lists["user_id"], lists["item_id"])
    assert len(reasons) == len(lists)
    assert all(reason is None or (user, reason) in seen for user, reason in zip(lists["user_id"], reasons, strict=True))


def test_the_scores_are_the_sum_of_the_score_sources(fitted: Recommender) -> None:
    lists = fitted.recommend([4], N_ITEMS)
    user = fitted.users.encode([4])
    total = sum(source.scores(user) for source in fitted.score_sources())
    assert isinstance(total, np.ndarray)
    np.testing.assert_allclose(total[0, fitted.items.encode(lists["item_id"])], lists["score"], rtol=1e-5)


def test_relabelling_ids_changes_no_score_of_a_model_without_randomness(fitted: Recommender, fit: Fit) -> None:
    if "seed" in fitted.parameters:
        pytest.skip("its randomness follows the order of ids; the mean over seeds would not")
    users, items = (np.random.default_rng(8).permutation(n) + 1000 for n in (N_USERS, N_ITEMS))
    rows, vectors = interactions(), features()
    renamed = rows.assign(user_id=users[rows["user_id"]], item_id=items[rows["item_id"]])
    vectors = {key: frame.assign(item_id=items[frame["item_id"]]) for key, frame in vectors.items()}
    lists = fit(renamed, vectors).recommend(users, N_ITEMS)
    back = lists.assign(
        user_id=np.argsort(users)[lists["user_id"] - 1000], item_id=np.argsort(items)[lists["item_id"] - 1000]
    )
    compare(back, fitted.recommend(EVERYBODY, N_ITEMS), tolerance=1e-5)


def test_the_order_of_interactions_changes_no_score_of_a_model_without_randomness(
    fitted: Recommender, fit: Fit
) -> None:
    if "seed" in fitted.parameters:
        pytest.skip("the order decides which batch an interaction is in")
    shuffled = fit(interactions().sample(frac=1, random_state=3), features())
    compare(shuffled.recommend(EVERYBODY, N_ITEMS), fitted.recommend(EVERYBODY, N_ITEMS), tolerance=1e-5)


def new_users() -> pd.DataFrame:
    """Two strangers and a new event of user 4; the stranger 901 also has an item that nobody knows."""
    rows = [(900, 3, 5.0), (900, 5, 6.0), (901, 7, 5.0), (901, 777, 7.0), (901, 15, 8.0), (4, 16, 9.0)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture
def folding(fitted: Recommender) -> Recommender:
    """The fitted model, where it folds in; where not, it says so by name."""
    try:
        fitted.fold_in(new_users())
    except FoldInError as error:
        assert f"The model {fitted.name} cannot fold in" in str(error)
        with pytest.raises(FoldInError):
            fitted.recommend_for_history([[3]], 5)
        pytest.skip("its users are no function of their history")
    return fitted


def test_folding_in_changes_the_users_it_names_and_leaves_the_model_alone(folding: Recommender) -> None:
    before = folding.recommend([*EVERYBODY, 900], N_ITEMS)
    folded = folding.fold_in(new_users())
    pd.testing.assert_frame_equal(folding.recommend([*EVERYBODY, 900], N_ITEMS), before)
    others = [user for user in EVERYBODY if user != 4]
    compare(folded.recommend(others, N_ITEMS), folding.recommend(others, N_ITEMS), tolerance=1e-5)
    for user, seen in ((900, {3, 5}), (901, {7, 15}), (4, {16})):
        lists = folded.recommend([user], N_ITEMS)
        assert np.isfinite(lists["score"]).all()
        assert not seen & set(lists["item_id"])
    assert len(folded.because([900, 901, 4], [4, 8, 20])) == 3


def test_folding_in_at_once_is_folding_in_by_and_by(folding: Recommender) -> None:
    rows = new_users()
    users = [*EVERYBODY, 900, 901]
    by_and_by = folding.fold_in(rows.iloc[:3]).fold_in(rows.iloc[3:])
    compare(by_and_by.recommend(users, N_ITEMS), folding.fold_in(rows).recommend(users, N_ITEMS), tolerance=1e-5)


def test_a_history_gets_what_a_new_user_with_it_gets(folding: Recommender, tmp_path: Path) -> None:
    now = interactions()["timestamp"].max()
    rows = pd.DataFrame({"user_id": 900, "item_id": [7, 15, 9], "timestamp": [now - 2, now - 1, now]})
    wanted = folding.fold_in(rows).recommend([900], N_ITEMS)
    folding.save(tmp_path)
    for model in (folding, Recommender.load(tmp_path)):
        lists = model.recommend_for_history([[], [777, 7, 15, 9], [777]], N_ITEMS)
        compare(lists[lists["user_id"] == 1].assign(user_id=900), wanted, tolerance=1e-5)
        popular = model.recommend([999], N_ITEMS)["score"].tolist()
        assert lists[lists["user_id"] == 0]["score"].tolist() == popular
        assert lists[lists["user_id"] == 2]["score"].tolist() == popular


def test_one_user_or_one_item_is_enough(fit: Fit) -> None:
    one_user = interactions().query("user_id == 4")
    lists = fit(one_user, features()).recommend([4, 999], N_ITEMS)
    assert np.isfinite(lists["score"]).all()
    assert not set(lists[lists["user_id"] == 4]["item_id"]) & set(one_user["item_id"])
    only = {name: frame[frame["item_id"] == 0] for name, frame in features().items()}
    one_item = fit(interactions().query("item_id == 0"), only)
    assert len(one_item.recommend([1, 2], 5)) == 0
    lists = one_item.recommend([1, 2, 999], 5, filter_seen=False)
    assert lists["item_id"].tolist() == [0, 0, 0]
    assert np.isfinite(lists["score"]).all()


def test_large_ids_and_repeated_pairs_are_taken_as_they_are(fit: Fit) -> None:
    large = 2**62
    rows = pd.concat([interactions(), interactions()], ignore_index=True)
    rows = rows.assign(user_id=rows["user_id"] + large, item_id=rows["item_id"] + large)
    vectors = {name: frame.assign(item_id=frame["item_id"] + large) for name, frame in features().items()}
    lists = fit(rows, vectors).recommend(np.array(EVERYBODY) + large, N_ITEMS)
    assert not lists.duplicated(["user_id", "item_id"]).any()
    assert len(lists.merge(rows, on=["user_id", "item_id"])) == 0
    assert lists["item_id"].between(large, large + N_ITEMS).all()


def test_items_that_no_user_has_are_ranked_with_finite_scores(fitted: Recommender) -> None:
    lists = fitted.recommend(EVERYBODY, N_ITEMS)
    assert set(lists[lists["item_id"] == N_ITEMS - 1]["user_id"]) == set(EVERYBODY)
    assert np.isfinite(lists["score"]).all()


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_weights_that_are_no_weights_are_refused(name: str, weight: float) -> None:
    rows = interactions().assign(weight=lambda frame: np.where(frame.index == 7, weight, 1.0))
    with pytest.raises(DataError, match="negative weight or none"):
        registry.create(name).fit(rows)


def test_what_cannot_be_fitted_or_asked_is_refused_by_name(name: str, fitted: Recommender) -> None:
    with pytest.raises(DataError, match=f"The model {name} was given no interactions"):
        registry.create(name).fit_training_set(TrainingSet.from_frames(interactions().head(0)))
    with pytest.raises(DataError, match=f"The model {name} was given no interactions"):
        registry.create(name).fit(interactions().assign(weight=0))
    with pytest.raises(MissingColumnsError, match="no column item_id"):
        registry.create(name).fit(interactions().drop(columns="item_id"))
    with pytest.raises(UsageError, match="k is 0"):
        fitted.recommend([1], 0)
