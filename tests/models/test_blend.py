"""A blend on rows whose members' scores are known, and the search for its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import FoldInError, SettingsError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.blend import Blend
from avrec_spark.models.blend_weights import Ballots, hold_out, search

N_ITEMS = 30
EASE, KNN, CHANCE = {"model": "ease", "regularisation": 5.0}, {"model": "item-knn"}, {"model": "random"}


def two_tastes() -> pd.DataFrame:
    """60 users with 9 of the 15 items of their own kind, in an order that is all there is of time."""
    random = np.random.default_rng(0)
    rows = [(user, item) for user in range(60) for item in random.choice(15, 9, replace=False) + 15 * (user % 2)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    return frame.assign(timestamp=random.permutation(len(frame)))


def blend(*members: dict[str, Any], **parameters: Any) -> Blend:
    model = registry.create("blend", members=list(members), **parameters)
    assert isinstance(model, Blend)
    return model


def scores(model: Recommender, user: int) -> pd.Series:
    return model.recommend([user], N_ITEMS, filter_seen=False).set_index("item_id")["score"].sort_index()


def test_scores_are_those_of_the_members_in_units_of_their_deviation() -> None:
    model = blend(EASE, KNN, weights=[3.0, 1.0]).fit(two_tastes())
    members = [registry.create("ease", regularisation=5.0), registry.create("item-knn")]
    one, other = (scores(member.fit(two_tastes()), 7) for member in members)
    expected = 0.75 * one / one.std(ddof=0) + 0.25 * other / other.std(ddof=0)
    pd.testing.assert_series_equal(scores(model, 7), expected, rtol=1e-4)
    assert model.learnt_weights() == [0.75, 0.25]


def test_a_member_that_guesses_gets_next_to_no_weight() -> None:
    model = blend(CHANCE, EASE).fit(two_tastes())
    guess, ease = model.learnt_weights()
    assert guess < 0.2
    assert guess + ease == pytest.approx(1)
    figures = [step["ndcg@10"] for step in model.history]
    assert figures == sorted(figures)
    assert figures[-1] > figures[0]


def test_the_search_finds_the_member_that_is_right() -> None:
    # Of four candidates the second member puts the held-out one first, the first member puts it last.
    right = np.eye(4, dtype=np.float32)[np.array([0, 1, 2, 3, 2])]
    votes = Ballots(np.stack([-3 * right, right], axis=1), np.ones((5, 4), np.bool_), right > 0, np.ones(5, np.int64))
    assert votes.ndcg(np.array([0.0, 1.0]), 1).tolist() == [1.0] * 5
    assert votes.ndcg(np.array([1.0, 0.0]), 1).tolist() == [0.0] * 5
    np.testing.assert_allclose(votes.ndcg(np.array([1.0, 0.0]), 10), 1 / np.log2(5))
    weights, path = search([votes], 1)
    assert votes.ndcg(weights, 1).tolist() == [1.0] * 5
    assert (path[0], path[-1]) == (0.0, 1.0)


def test_chance_moves_no_weight() -> None:
    # The second member is right for 11 users and the first for 10: too close to prefer one.
    mine = np.arange(21) % 2 == 0
    scores = np.zeros((21, 2, 2), np.float32)
    scores[:, 0, 1] = 1.0
    scores[:, 1, 0] = 1.0
    relevant = np.stack([mine, ~mine], axis=1)
    votes = Ballots(scores, np.ones((21, 2), np.bool_), relevant, np.ones(21, np.int64))
    assert votes.ndcg(np.array([0.0, 1.0]), 1).mean() > votes.ndcg(np.array([1.0, 0.0]), 1).mean()
    assert search([votes], 1)[0].tolist() == [0.5, 0.5]


def test_the_latest_or_random_items_are_held_out_and_small_histories_stay_whole() -> None:
    rows = pd.DataFrame({"user_id": [1] * 5 + [2] * 2 + [1], "item_id": list("abcdeaba")})
    whole = TrainingSet.from_frames(rows.assign(timestamp=[1, 2, 3, 4, 5, 1, 2, 9]))
    part = hold_out(whole, latest=True, share=0.2, seed=0)
    assert part.validation is not None
    # User 1 came back to a at last, so that is the latest item; both of its events leave train.
    assert whole.items.decode(part.validation["item_index"].to_numpy()).tolist() == ["a"]
    assert whole.users.decode(part.validation["user_index"].to_numpy()).tolist() == [1]
    assert len(part.user_index) == 6
    assert len(hold_out(whole, latest=False, share=0.45, seed=0).validation) == 2  # type: ignore[arg-type]


def test_more_divisions_hold_out_what_came_before_or_other_items() -> None:
    rows = pd.DataFrame({"user_id": 1, "item_id": list("abcdefgh"), "timestamp": range(8)})
    whole = TrainingSet.from_frames(rows)

    def held_out(**parameters: Any) -> list[str]:
        parts = list(blend(KNN, share=0.25, hold_outs=3, **parameters)._divisions(whole))
        held = [part.validation["item_index"].to_numpy() for part in parts if part.validation is not None]
        return ["".join(sorted(whole.items.decode(items))) for items in held]

    assert held_out(hold_out="latest") == ["gh", "f", "e"]
    assert len(set(held_out())) > 1


def test_the_weights_are_learnt_on_all_divisions_together() -> None:
    # The first member is right about three users of one part, the second about five of another.
    def part(n: int, right: int) -> Ballots:
        scores = np.zeros((n, 2, 2), np.float32)
        scores[:, right, 1] = scores[:, 1 - right, 0] = 1.0
        return Ballots(scores, np.ones((n, 2), np.bool_), np.tile([False, True], (n, 1)), np.ones(n, np.int64))

    votes = [part(3, 0), part(5, 1)]
    weights, path = search(votes, 1)
    assert weights[1] > weights[0]
    assert path[-1] == 5 / 8
    assert search(votes[:1], 1)[0].tolist() != weights.tolist()


def test_a_validation_part_chooses_the_weights_and_nothing_else() -> None:
    rows = two_tastes()
    ease, chance = (
        blend(CHANCE, EASE, weights=weights).fit(rows).recommend(range(60), 5) for weights in ([0.0, 1.0], [1.0, 0.0])
    )
    held_out = {name: lists[["user_id", "item_id"]] for name, lists in (("ease", ease), ("chance", chance))}
    learnt = {}
    for name, pairs in held_out.items():
        model = blend(CHANCE, EASE).fit_training_set(TrainingSet.from_frames(rows, validation=pairs))
        learnt[name] = model.learnt_weights()
        # With these weights given, what the validation part holds changes no list.
        again = blend(CHANCE, EASE, weights=learnt[name])
        lists = [
            again.fit_training_set(TrainingSet.from_frames(rows, validation=other)).recommend(range(60), 5)
            for other in held_out.values()
        ]
        pd.testing.assert_frame_equal(lists[0], lists[1])
        pd.testing.assert_frame_equal(lists[0], model.recommend(range(60), 5))
    assert learnt["ease"][1] > 0.5 > learnt["chance"][1]


def test_a_blend_folds_in_where_all_its_members_do(tmp_path: Path) -> None:
    new = pd.DataFrame({"user_id": 700, "item_id": [1, 4, 9]})
    model = blend(EASE, {"model": "user-knn"}, weights=[0.5, 0.5]).fit(two_tastes())
    members = [registry.create("ease", regularisation=5.0), registry.create("user-knn")]
    one, other = (scores(member.fit(two_tastes()).fold_in(new), 700) for member in members)
    expected = 0.5 * one / one.std(ddof=0) + 0.5 * other / other.std(ddof=0)
    folded = model.fold_in(new)
    folded.save(tmp_path)
    for each in (folded, Recommender.load(tmp_path)):
        pd.testing.assert_series_equal(scores(each, 700), expected, rtol=1e-4)
    assert folded.because([700], [2])[0] in {1, 4, 9}
    with pytest.raises(FoldInError, match="The model random cannot fold in"):
        blend(EASE, CHANCE).fit(two_tastes()).fold_in(new)


def test_reasons_are_those_of_the_heaviest_member_that_has_any() -> None:
    members = [{"model": "popular"}, KNN]
    model = blend(*members, weights=[0.9, 0.1]).fit(two_tastes())
    alone = registry.create("item-knn").fit(two_tastes())
    assert model.because([3, 4], [20, 2]) == alone.because([3, 4], [20, 2])


def test_members_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingsError, match="has no members, or one that names no model"):
        blend({"regularisation": 5.0})
    with pytest.raises(SettingsError, match="has no members"):
        blend()
    with pytest.raises(SettingsError, match=r"There is no model eas\. Did you mean ease\?"):
        blend({"model": "eas"})
    with pytest.raises(SettingsError, match=r"has 2 members and the weights 1\.0\. Give one weight"):
        blend(EASE, KNN, weights=[1.0])
    with pytest.raises(SettingsError, match="Choose of random, latest"):
        blend(EASE, hold_out="first")
