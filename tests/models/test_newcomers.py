"""Users of whom little is known, and search across modalities: what content and other users say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.errors import DataError, UsageError
from avrec_spark.models import registry
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.crossmodal import SharedSpace
from avrec_spark.models.fusion.strangers import first_events, worth_of_popularity
from avrec_spark.models.histories import Histories
from avrec_spark.recommend.newcomers import histories_of_tags, similar_users
from avrec_spark.recommend.topk import ScoreSource
from tests.models.latent import QUICK, Frames, behaviour, catalogue

ITEMS, K = 150, 10
# Newcomers who like one end of one factor each.
TASTES = np.concatenate([np.eye(4), -np.eye(4)])


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, Frames]:
    return catalogue(ITEMS, seed=1)


@pytest.fixture(scope="module")
def fitted(world: tuple[np.ndarray, Frames]) -> Fusion:
    return Fusion(**QUICK).fit(behaviour(world[0], 200, 8, seed=2), world[1])


def suits(lists: pd.DataFrame, factors: np.ndarray) -> float:
    """The mean over users of how their lists' items lie towards their taste, in deviations; 0 by chance."""
    return float((TASTES[lists["user_id"]] * factors[lists["item_id"]]).sum(axis=1).mean())


# -- newcomers ---------------------------------------------------------------------------------------------------------


def test_more_events_of_a_newcomer_give_lists_that_suit_better(
    fitted: Fusion, world: tuple[np.ndarray, Frames]
) -> None:
    best = np.argsort(-TASTES @ world[0].T, axis=1)
    # All items may come, so that all lists could be as good.
    lists = [fitted.recommend_for_history(best[:, :n].tolist(), K, filter_seen=False) for n in (0, 1, 3, 10)]
    after = [suits(each, world[0]) for each in lists]
    assert abs(after[0]) < 1e-6
    assert after[1] > 0.1
    assert after[2] > after[1] and after[3] > max(0.5, after[2])


def test_the_less_is_known_of_a_newcomer_the_more_popularity_says(world: tuple[np.ndarray, Frames]) -> None:
    # Everybody has three items that nobody's taste explains.
    rows = behaviour(world[0], 100, 8, seed=2)
    fashion = pd.DataFrame({"user_id": np.repeat(np.arange(100), 3), "item_id": np.tile([0, 1, 2], 100)})
    both = pd.concat([rows, fashion.assign(timestamp=9)]).drop_duplicates(["user_id", "item_id"])
    model = Fusion(**QUICK | {"epochs": 5}).fit(both, world[1])
    best = [items[items > 2].tolist() for items in np.argsort(-TASTES @ world[0].T, axis=1)]
    histories = {n: [items[:n] for items in best] for n in (1, 20)}
    in_fashion = {
        n: model.recommend_for_history(given, K)["item_id"].isin([0, 1, 2]).sum() for n, given in histories.items()
    }
    assert in_fashion[1] > in_fashion[20]
    assert model.recommend_for_history([[]], 3)["item_id"].isin([0, 1, 2]).all()
    # With all weight on popularity, its list; with none, the history's own.
    model.prior_events = 1e9
    popular = model.recommend_for_history([[]], K, exclude=[histories[1][0]])["item_id"]
    counts = [model.popularity(model.recommend_for_history(histories[1][:1], K)["item_id"]), model.popularity(popular)]
    np.testing.assert_array_equal(*counts)
    model.prior_events = 0.0
    own = model.user_vectors(histories[1][:1])
    first = model.items.ids[np.argsort(-own[0] @ model.item_vectors().T)]
    assert model.recommend_for_history(histories[1][:1], K, filter_seen=False)["item_id"].tolist() == first[:K].tolist()


@pytest.mark.parametrize(("faithful", "popular", "low", "high"), [(1.0, 0.1, 1, 5), (0.5, 1.0, 100, 1000)])
def test_popularity_is_worth_the_more_events_the_less_the_first_ones_tell(
    faithful: float, popular: float, low: float, high: float
) -> None:
    # Users take items of their own half of 40 with that probability, and of a half the first ones more often than the
    # last, the more so the more `popular` is; cosines say which half the first event is of.
    generator = np.random.default_rng(1)
    user = np.repeat(np.arange(400), 12)
    half = np.where(generator.random(len(user)) < faithful, user % 2, 1 - user % 2)
    item = half * 20 + (20 * generator.random(len(user)) ** (1 + 2 * popular)).astype(np.int64)
    once, when = np.ones(len(user), np.float32), np.arange(len(user), dtype=np.float64)
    histories = Histories(user, item, once, when, np.arange(400), 40)
    likes = np.where((np.arange(40) < 20) == np.array([[True], [False]]), 1, -1).astype(np.float32)
    often = np.log(1 + np.bincount(item, minlength=40))[None].astype(np.float32)

    def sources(told: Histories, worth: float) -> list[ScoreSource]:
        first = np.eye(2, dtype=np.float32)[told.item[told.starts[:-1]] // 20]
        n = np.diff(told.starts)[:, None].astype(np.float32)
        return [ScoreSource(n / worth * first, likes), ScoreSource(np.ones_like(n), often)]

    assert low <= worth_of_popularity(histories, sources) <= high


def test_the_first_events_are_told_and_only_others_come_later() -> None:
    user, item = np.array([0, 0, 0, 1, 2, 2]), np.array([4, 2, 4, 0, 1, 3])
    ones = np.ones(6, np.float32)
    told, later = first_events(Histories(user, item, ones, np.arange(6.0), np.arange(3), 5), 1)
    assert (told.user.tolist(), told.item.tolist(), told.known.tolist()) == ([0, 1], [4, 1], [-1, -1])
    assert later.toarray().tolist() == [[False, False, True, False, False], [False, False, False, True, False]]


def test_declared_tags_stand_for_the_items_that_have_them(fitted: Fusion, world: tuple[np.ndarray, Frames]) -> None:
    ends = np.concatenate([world[0] > 1, world[0] < -1], axis=1)
    tags = pd.DataFrame({"item_id": np.arange(ITEMS), "tags": [np.flatnonzero(row).tolist() for row in ends]})
    histories = histories_of_tags(tags, [[taste] for taste in range(8)])
    lists = fitted.recommend_for_history(histories, K, filter_seen=False)
    assert suits(lists, world[0]) > 0.7
    # None of them has been seen.
    assert lists["item_id"].isin(histories[0]).any()


@pytest.mark.parametrize("modalities", [("visual", "audio"), ("audio",)])
def test_what_is_liked_can_be_declared_as_vectors(
    fitted: Fusion, world: tuple[np.ndarray, Frames], modalities: tuple[str, ...]
) -> None:
    best = np.argmax(TASTES @ world[0].T, axis=1)
    liked = {
        name: pd.DataFrame({"item_id": [f"n{n}" for n in range(8)], "vector": world[1][name]["vector"][best].tolist()})
        for name in modalities
    }
    lists = fitted.recommend_for_content(liked, K)
    assert suits(lists.assign(user_id=lists["user_id"].str[1:].astype(int)), world[0]) > 0.4
    with pytest.raises(DataError, match="no modality smell"):
        fitted.recommend_for_content({"smell": liked["audio"]}, K)


@pytest.mark.parametrize("model", ["fusion", "ease", "blend", "als", "popular"])
def test_a_newcomer_like_known_users_gets_what_they_would_get(model: str, world: tuple[np.ndarray, Frames]) -> None:
    cheap: dict[str, Any] = {"fusion": QUICK | {"epochs": 2}, "als": {"engine": "numpy", "iterations": 2}}
    rows = behaviour(world[0], 40, 8, seed=2)
    known = registry.create(model, **cheap.get(model, {})).fit(rows, world[1])
    users = np.array([3, 17])
    same = np.zeros((3, 40), np.float32)
    same[[0, 1], known.users.encode(users)] = 1
    lists = known.recommend_as(same, K)
    own = known.recommend(users, K, filter_seen=False)
    for row, user in enumerate(users):
        assert (
            lists.loc[lists["user_id"] == row, "item_id"].tolist()
            == own.loc[own["user_id"] == user, "item_id"].tolist()
        )
    popular = known.recommend([-1], K)["item_id"].tolist()
    assert lists.loc[lists["user_id"] == 2, "item_id"].tolist() == popular
    one = known.recommend_as(same[:1], 1, exclude=[popular])
    assert not one["item_id"].isin(popular).any()


def test_users_of_similar_attributes_lend_a_newcomer_their_tastes(world: tuple[np.ndarray, Frames]) -> None:
    generator = np.random.default_rng(4)
    taste = generator.normal(size=(300, 4))
    liking = 2 * taste @ world[0].T + generator.gumbel(size=(300, ITEMS))
    items = np.argsort(-liking, axis=1)[:, :8]
    rows = pd.DataFrame({"user_id": np.repeat(np.arange(300), 8), "item_id": items.ravel()})
    model = Fusion(**QUICK).fit(rows, world[1])
    # Attributes tell tastes, with some noise.
    attributes = taste + 0.5 * generator.normal(size=taste.shape)
    weights = similar_users(attributes[model.users.ids], TASTES, n=20)
    suited = suits(model.recommend_as(weights, K), world[0])
    assert suited > 0.7
    shuffled = similar_users(generator.permutation(attributes), TASTES, n=20)
    assert suits(model.recommend_as(shuffled, K), world[0]) < 0.5 * suited


def test_users_can_be_similar_by_their_few_events(fitted: Fusion, world: tuple[np.ndarray, Frames]) -> None:
    best = np.argsort(-TASTES @ world[0].T, axis=1)[:, :2].tolist()
    own = fitted.user_vectors(best)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    near = similar_users(fitted.score_sources()[0].left, own, n=20)
    assert suits(fitted.recommend_as(near, K), world[0]) > 0.6
    assert (fitted.user_vectors([[], [10**6]]) == 0).all()


def test_users_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match="shape .*4, 3.* newcomers of .*2, 5"):
        similar_users(np.ones((4, 3)), np.ones((2, 5)))
    with pytest.raises(DataError, match="NaN"):
        similar_users(np.ones((4, 3)), np.full((2, 3), np.nan))


# -- across modalities -------------------------------------------------------------------------------------------------


def recall(space: SharedSpace, features: Frames, asked: str, among: str) -> float:
    """How often the item whose vector of one modality is asked for is among the 5 found by the other."""
    rows = features[asked]
    found = space.search({asked: np.stack(rows["vector"].tolist())}, 5, (among,))
    return float((rows["item_id"].to_numpy()[found["query"]] == found["item_id"]).sum() / len(rows))


@pytest.mark.parametrize(("asked", "among"), [("audio", "visual"), ("visual", "audio")])
def test_one_modality_finds_the_other_after_alignment_and_not_without(
    world: tuple[np.ndarray, Frames], asked: str, among: str
) -> None:
    rows = behaviour(world[0], 60, 8, seed=2)
    chance = 5 / ITEMS
    aligned = Fusion(**QUICK | {"align": 1.0, "epochs": 40}).fit(rows, world[1])
    assert recall(SharedSpace.of(aligned, world[1]), world[1], asked, among) > 20 * chance
    # Also on a catalogue that it has never seen.
    _, other = catalogue(ITEMS, seed=8, first=1000)
    assert recall(SharedSpace.of(aligned, other), other, asked, among) > 20 * chance
    hardly = Fusion(**QUICK | {"align": 1e-9, "epochs": 2}).fit(rows, world[1])
    assert recall(SharedSpace.of(hardly, world[1]), world[1], asked, among) < 5 * chance


@pytest.fixture(scope="module")
def space(world: tuple[np.ndarray, Frames]) -> SharedSpace:
    start = Fusion(**QUICK | {"align": 1.0, "epochs": 40}).pretrain(world[1])
    some = {"visual": world[1]["visual"][:100], "audio": world[1]["audio"][50:]}
    return SharedSpace.of(start, some)


def test_a_search_is_among_what_the_query_does_not_have(space: SharedSpace, world: tuple[np.ndarray, Frames]) -> None:
    sound = np.stack(world[1]["audio"]["vector"].tolist())[:3]
    found = space.search({"audio": sound}, 100)
    assert set(found["item_id"]) == set(range(100))
    assert found["rank"].max() == 100 and len(found) == 300
    assert set(space.search({"audio": sound}, 200, ("audio",))["item_id"]) == set(range(50, ITEMS))
    # With both modalities in the query, all are searched.
    both = {"audio": sound, "visual": np.stack(world[1]["visual"]["vector"].tolist())[:3]}
    assert set(space.search(both, 200)["item_id"]) == set(range(ITEMS))


@pytest.mark.parametrize(
    ("query", "among", "message"),
    [
        ({}, (), "asks for no modality"),
        ({"smell": [[1.0]]}, (), "asks for smell"),
        ({"audio": [[0.0] * 9]}, ("smell",), "asks for smell"),
        ({"audio": [[0.0] * 8]}, (), "8 values each, not 9"),
        ({"audio": [[float("nan")] * 9]}, (), "NaN"),
    ],
)
def test_a_query_that_cannot_be_searched_is_refused(space: SharedSpace, query: Any, among: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        space.search({name: np.array(rows) for name, rows in query.items()}, 3, among)


def test_a_search_needs_alignment_a_known_modality_and_k(
    space: SharedSpace, fitted: Fusion, world: tuple[np.ndarray, Frames]
) -> None:
    with pytest.raises(DataError, match="fitted without the loss align"):
        SharedSpace.of(fitted, world[1])
    with pytest.raises(DataError, match="vectors of smell, and the encoder knows audio, visual"):
        SharedSpace.of(Fusion(**QUICK | {"align": 1.0, "epochs": 1}).pretrain(world[1]), {"smell": world[1]["audio"]})
    with pytest.raises(UsageError, match="k is 0"):
        space.search({"audio": np.zeros((1, 9))}, 0)
