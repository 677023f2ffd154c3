"""Popular, SAR, EASE and ALS on rows whose scores can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrec_spark.errors import NoSparkSessionError, SettingsError, UsageError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender

DAY = 86_400.0


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    names = ("user_id", "item_id", "weight", "timestamp")
    return pd.DataFrame(rows, columns=names[: len(rows[0])])


def scores(model: Recommender, user: Any) -> dict[Any, float]:
    lists = model.recommend([user], 99)
    return {item: round(score, 6) for item, score in zip(lists["item_id"], lists["score"], strict=True)}


def test_popular_counts_users_and_not_weights() -> None:
    rows = frame((1, "a", 1.0), (2, "a", 1.0), (3, "b", 50.0), (3, "b", 50.0), (4, "c", 0.0))
    model = registry.create("popular").fit(rows)
    assert scores(model, 4) == {"a": 2.0, "b": 1.0}
    assert scores(model, "nobody") == {"a": 2.0, "b": 1.0, "c": 0.0}


def test_sar_scores_by_the_jaccard_index_of_the_items_users() -> None:
    # Two of the three users with a or b have both; one of the three with b or c.
    rows = frame((1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "b"), (3, "c"))
    model = registry.create("sar").fit(rows)
    assert scores(model, 1) == {"c": round(1 / 3, 6)}
    assert scores(model, 3) == {"a": round(2 / 3, 6)}


def test_sar_halves_an_event_in_thirty_days_and_multiplies_by_its_weight() -> None:
    rows = frame(
        (1, "a", 1.0, 0.0), (1, "b", 1.0, 0.0), (2, "a", 1.0, 60 * DAY), (2, "b", 1.0, 0.0), (3, "b", 3.0, 30 * DAY)
    )
    # J(a, b) = 2/3; user 3 had b thirty days before the latest event of all, with weight 3.
    assert scores(registry.create("sar").fit(rows), 3) == {"a": round(3 * 0.5 * 2 / 3, 6)}
    assert scores(registry.create("sar", half_life_days=15.0).fit(rows), 3) == {"a": round(3 * 0.25 * 2 / 3, 6)}


def test_ease_is_its_closed_form() -> None:
    # XᵀX + I = [[3, 1], [1, 2]], its inverse [[2, −1], [−1, 3]] / 5: B[a, b] = (1/5) / (3/5), B[b, a] = (1/5) / (2/5).
    rows = frame((1, "a"), (1, "b"), (2, "a"))
    model = registry.create("ease", regularisation=1.0).fit(rows)
    assert scores(model, 2) == {"b": round(1 / 3, 6)}
    everything = model.recommend([1], 2, filter_seen=False).set_index("item_id")["score"]
    assert everything.to_dict() == pytest.approx({"b": 1 / 3, "a": 1 / 2})


@pytest.mark.parametrize("name", ["sar", "ease"])
def test_a_reason_is_the_item_of_the_history_that_contributes_most(name: str) -> None:
    rows = frame(
        *[(user, item) for user in range(6) for item in ("song", "cover")], (9, "song"), (9, "film"), (5, "film")
    )
    model = registry.create(name).fit(rows)
    assert model.because([9, 9, "nobody"], ["cover", "unknown", "song"]) == ["song", None, None]


def test_popular_gives_no_reason() -> None:
    assert registry.create("popular").fit(frame((1, "a"), (2, "b"))).because([1], ["b"]) == [None]


def two_tastes() -> pd.DataFrame:
    """Users and items of two kinds: each user has 6 of the 10 items of the own kind."""
    random = np.random.default_rng(0)
    rows = [(user, item) for user in range(40) for item in random.choice(10, 6, replace=False) + 10 * (user % 2)]
    return frame(*rows)


def test_als_learns_two_tastes_and_explains_by_the_same_taste(spark: Any) -> None:
    # So many iterations overflow the JVM's stack where nothing cuts their lineage.
    model = registry.create("als", rank=4, iterations=25).fit(two_tastes())
    lists = model.recommend(range(40), 4)
    assert (lists["item_id"] // 10 == lists["user_id"] % 2).all()
    reasons = np.array(model.because(lists["user_id"], lists["item_id"]))
    assert (reasons // 10 == lists["item_id"] // 10).all()


@pytest.mark.parametrize("implicit", [True, False])
def test_a_known_history_gets_the_factors_that_spark_gave_it(implicit: bool, spark: Any) -> None:
    rows = two_tastes().assign(weight=lambda frame: 1.0 + frame["item_id"] % 4)
    model = registry.create("als", implicit=implicit, rank=3, iterations=3).fit(rows)
    twins = model.fold_in(rows.assign(user_id=rows["user_id"] + 1000))
    source = twins.score_sources()[0]
    fitted, folded = (source.left[twins.users.encode(np.arange(40) + shift)] for shift in (0, 1000))
    np.testing.assert_allclose(folded, fitted, rtol=1e-3, atol=1e-4)


def test_als_without_a_session_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    with pytest.raises(NoSparkSessionError, match=r"Fitting the model als runs on Spark.*Start one first: avrec_spark"):
        registry.create("als").fit(two_tastes())


def test_an_unknown_model_or_parameter_is_named_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match=r"There is no model eas\. Did you mean ease\? Choose of random, popular"):
        registry.create("eas")
    with pytest.raises(SettingsError, match=r"The model ease has no parameter lamda\. It takes regularisation, side"):
        registry.create("ease", lamda=1)
    with pytest.raises(SettingsError, match=r"regularisation of the model ease cannot be 'x'\. It is a float"):
        registry.create("ease", regularisation="x")
    assert registry.create("ease", regularisation=3).parameters["regularisation"] == 3


def test_a_model_saved_in_another_format_is_refused(tmp_path: Path) -> None:
    registry.create("popular").fit(frame((1, "a"))).save(tmp_path)
    about = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(about.replace('"format": 4', '"format": 99'))
    with pytest.raises(UsageError, match="has the format 99; this version reads 4"):
        Recommender.load(tmp_path)
    with pytest.raises(UsageError, match="holds no saved model"):
        Recommender.load(tmp_path / "elsewhere")


def test_als_does_not_depend_on_the_unit_of_the_weights() -> None:
    rows = two_tastes().assign(weight=1.0)
    # The unit is taken out before either engine sees the weights.
    model = {"rank": 2, "iterations": 2, "engine": "numpy"}
    one, five = (registry.create("als", **model).fit(rows.assign(weight=unit)) for unit in (1.0, 5.0))
    assert scores(one, 0) == pytest.approx(scores(five, 0), abs=1e-3)
