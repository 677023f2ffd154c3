from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from avrec_spark.dataset.loader import Loader
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import AvrecError, DataError
from avrec_spark.models import registry


@pytest.fixture(scope="module")
def planted():
    """Users of four tastes, items of four kinds; the last item of each kind has content and no interaction."""
    generator = np.random.default_rng(0)
    user = np.repeat(np.arange(120), 12)
    item = (user % 4) * 10 + generator.integers(0, 9, len(user))
    pairs = pd.DataFrame({"user_id": user, "item_id": item}).drop_duplicates()
    kinds = np.arange(40) // 10
    features = {
        "visual": pd.DataFrame({"item_id": range(40), "vector": list(np.eye(4, dtype="f4")[kinds])}),
        "audio": pd.DataFrame({"item_id": range(20), "vector": list(generator.normal(size=(20, 6)).astype("f4"))}),
    }
    held_out = generator.random(len(pairs)) < 0.15
    whole = TrainingSet.from_frames(pairs[~held_out], features)
    late = pairs[held_out]
    validation = pd.DataFrame(
        {"user_index": whole.users.encode(late["user_id"]), "item_index": whole.items.encode(late["item_id"])}
    )
    return replace(whole, validation=validation[(validation >= 0).all(axis=1)])


def test_every_row_is_read_once_an_epoch_by_one_rank_only(planted, tmp_path):
    planted.write(tmp_path, row_groups=6)
    loaders = [Loader(tmp_path, 32, rank, 2) for rank in (0, 1)]
    for number in (1, 2):
        epochs = [list(loader.epoch(number)) for loader in loaders]
        assert len(epochs[0]) == len(epochs[1])
        rows = [
            pair
            for batches in epochs
            for batch in batches
            for pair in zip(batch.user_index, batch.item_index, strict=True)
        ]
        assert sorted(rows) == sorted(zip(planted.user_index, planted.item_index, strict=True))
    for loader in loaders:
        loader.close()


def test_fewer_row_groups_than_ranks_are_refused_by_name(planted, tmp_path):
    planted.write(tmp_path, row_groups=1)
    with pytest.raises(AvrecError, match="row group"):
        Loader(tmp_path, 32, rank=0, size=2)


@pytest.mark.parametrize("name", ["mf", "fusion"])
def test_a_planted_structure_is_learnt(planted, name):
    model = registry.create(name, epochs=25, batch_size=64).fit_training_set(planted)
    losses = [entry["loss"] for entry in model.history]
    assert losses[-1] < losses[0]
    # Nine of the forty items suit a user; a list at random would hold a quarter of them.
    lists = model.recommend(range(40), 5)
    assert ((lists["user_id"] % 4) == (lists["item_id"] // 10)).mean() > 0.6
    assert all(0 <= entry["data_wait_share"] <= 1 for entry in model.history)


def test_an_item_that_nobody_touched_is_recommended_for_its_content(planted):
    model = registry.create("fusion", epochs=15).fit_training_set(planted)
    lists = model.recommend(range(40), 3, candidates=[9, 19, 29, 39])
    first = lists[lists["rank"] == 1]
    assert ((first["user_id"] % 4) == (first["item_id"] // 10)).mean() > 0.9


def test_gates_are_at_most_one_together_and_nought_for_a_modality_that_is_absent(planted):
    model = registry.create("fusion", epochs=2).fit_training_set(planted)
    gates = model.gates().set_index(model.items.ids)
    assert gates.sum(axis=1).between(0.01, 1).all()
    assert (gates.loc[gates.index >= 20, "audio"] == 0).all()
    assert (gates.loc[gates.index < 20, "audio"] > 0).all()


@pytest.mark.parametrize("vector", [[float("nan"), 1.0], [1.0, 2.0, 3.0]])
def test_vectors_with_nan_or_of_another_width_are_refused(vector):
    pairs = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2]})
    features = {"visual": pd.DataFrame({"item_id": [1, 2], "vector": [[1.0, 2.0], vector]})}
    with pytest.raises(DataError, match="visual"):
        TrainingSet.from_frames(pairs, features)


def test_fusion_without_any_features_says_what_to_run():
    with pytest.raises(DataError, match="features"):
        registry.create("fusion").fit(pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2]}))
