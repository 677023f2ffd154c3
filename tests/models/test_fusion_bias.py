"""The bias of items in fusion: what is popular with everybody, which cosines cannot tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion import Fusion

N_USERS, N_ITEMS, COLD = 80, 20, 19


@pytest.fixture(scope="module")
def features() -> dict[str, pd.DataFrame]:
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, 6)).astype(np.float32)
    return {"visual": pd.DataFrame({"item_id": np.arange(N_ITEMS), "vector": list(vectors)})}


@pytest.fixture(scope="module")
def fitted(features: dict[str, pd.DataFrame]) -> Fusion:
    """Users who take what is popular, whatever it is, and nobody takes item 19."""
    chance = np.linspace(0.9, 0.05, N_ITEMS - 1)
    users, items = np.nonzero(np.random.default_rng(0).random((N_USERS, N_ITEMS - 1)) < chance)
    model = registry.create("fusion", dimension=4, content_rank=4, epochs=20, batch_size=256, item_bias=True)
    model.fit(pd.DataFrame({"user_id": users, "item_id": items}), features)
    assert isinstance(model, Fusion)
    return model


def bias(model: Fusion) -> np.ndarray:
    return np.asarray(model.score_sources()[1].right)[0][model.items.encode(np.arange(N_ITEMS))]


def test_the_bias_is_the_greater_the_more_popular_an_item_is(fitted: Fusion) -> None:
    assert np.corrcoef(bias(fitted)[:COLD], np.arange(COLD))[0, 1] < -0.8


def test_an_item_that_nobody_has_touched_has_the_mean_bias(fitted: Fusion) -> None:
    assert bias(fitted)[COLD] == pytest.approx(bias(fitted)[:COLD].mean(), abs=1e-6)


def test_known_users_encoded_anew_keep_their_lists(fitted: Fusion) -> None:
    new = fitted.fold_in(pd.DataFrame({"user_id": [3], "item_id": [18]}))
    before, after = (model.recommend([3], 5, candidates=range(10), filter_seen=False) for model in (fitted, new))
    assert len(before) == 5
    assert np.corrcoef(before["score"], after["score"])[0, 1] > 0.9


def test_a_loaded_model_recommends_as_before(fitted: Fusion, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    pd.testing.assert_frame_equal(fitted.recommend(range(9), 5), loaded.recommend(range(9), 5))


def test_whoever_declares_what_they_want_is_not_served_by_popularity(
    fitted: Fusion, features: dict[str, pd.DataFrame]
) -> None:
    wanted = fitted.recommend_for_content(features, 3)
    cosines = np.asarray(fitted.score_sources()[0].right).T
    own = fitted.embed(features).set_index("item_id")["vector"]
    unit = np.stack(own.tolist()) / np.linalg.norm(np.stack(own.tolist()), axis=1, keepdims=True)
    best = fitted.items.ids[np.argmax(unit @ cosines.T, axis=1)]
    first = wanted[wanted["rank"] == 1].set_index("user_id")["item_id"]
    assert (first[own.index].to_numpy() == best).all()
