"""What is particular to the fusion model: absent modalities, gates, cold items and users, its losses, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from avrec_spark.dataset.training_set import FeatureMatrix, TrainingSet
from avrec_spark.errors import DataError, SettingsError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.content import ContentEncoder
from avrec_spark.models.fusion.graph import content_neighbours
from avrec_spark.models.fusion.module import FusionModule
from avrec_spark.models.fusion.objectives import alignment
from avrec_spark.models.fusion.selection import telling
from avrec_spark.models.lightgcn import Graph

N_KINDS, A_KIND = 4, 10
N_ITEMS = N_KINDS * A_KIND
# A regularisation for few items.
QUICK: dict[str, Any] = {"dimension": 16, "content_rank": 8, "epochs": 12, "batch_size": 128, "regularisation": 1.0}


@pytest.fixture(scope="module")
def tastes() -> pd.DataFrame:
    """Users of four tastes and items of four kinds, a few of each user's kind; the last of each kind is untouched."""
    generator = np.random.default_rng(0)
    user = np.repeat(np.arange(120), 6)
    item = (user % N_KINDS) * A_KIND + generator.integers(0, A_KIND - 1, len(user))
    return pd.DataFrame({"user_id": user, "item_id": item}).drop_duplicates(ignore_index=True)


def vectors(items: range = range(N_ITEMS), seed: int = 0) -> pd.DataFrame:
    """The kind of each item, in a random basis, with some noise."""
    generator = np.random.default_rng(seed)
    kinds = generator.normal(size=(N_KINDS, 6)).astype("f4")[np.arange(N_ITEMS) // A_KIND]
    rows = kinds + 0.2 * generator.normal(size=kinds.shape).astype("f4")
    return pd.DataFrame({"item_id": items, "vector": list(rows[items])})


def noise() -> pd.DataFrame:
    rows = np.random.default_rng(9).normal(size=(N_ITEMS, 6)).astype("f4")
    return pd.DataFrame({"item_id": range(N_ITEMS), "vector": list(rows)})


@pytest.fixture(scope="module")
def features() -> dict[str, pd.DataFrame]:
    """Two modalities; the second one lacks the items of the last kind."""
    return {"visual": vectors(), "audio": vectors(range(N_ITEMS - A_KIND), seed=1)}


@pytest.fixture(scope="module")
def fitted(tastes: pd.DataFrame, features: dict[str, pd.DataFrame]) -> Fusion:
    model = registry.create("fusion", **QUICK).fit(tastes, features)
    assert isinstance(model, Fusion)
    return model


def untrained(training_set: TrainingSet) -> FusionModule:
    defaults = registry.create("fusion").parameters
    return FusionModule(training_set, **{name: defaults[name] for name in Fusion.module_parameters})


def share_of_own_kind(lists: pd.DataFrame) -> float:
    return float(((lists["user_id"] % N_KINDS) == (lists["item_id"] // A_KIND)).mean())


# -- items -------------------------------------------------------------------------------------------------------------


def test_warm_and_cold_items_are_recommended_to_whom_they_suit(fitted: Fusion) -> None:
    assert share_of_own_kind(fitted.recommend(range(120), 3)) > 0.9
    untouched = [kind * A_KIND + A_KIND - 1 for kind in range(N_KINDS)]
    assert share_of_own_kind(fitted.recommend(range(120), 1, candidates=untouched)) > 0.9


def test_new_items_lie_near_their_kind_by_content_alone(fitted: Fusion, features: dict[str, pd.DataFrame]) -> None:
    new = {name: frame.assign(item_id=frame["item_id"] + 1000) for name, frame in features.items()}
    embedded = np.stack(fitted.embed(new).sort_values("item_id")["vector"].tolist())
    # Of the item's own kind are 9 in 39.
    own = fitted.item_vectors()[np.argsort(fitted.items.ids)]
    nearest = np.argmax(embedded @ own.T, axis=1)
    assert (nearest // A_KIND == np.arange(N_ITEMS) // A_KIND).mean() > 0.9


def test_embedding_an_untouched_item_gives_the_vector_that_the_fit_gave_it(
    fitted: Fusion, features: dict[str, pd.DataFrame]
) -> None:
    ids = [A_KIND - 1, N_ITEMS - 1]
    embedded = fitted.embed({name: frame[frame["item_id"].isin(ids)] for name, frame in features.items()})
    known = fitted.item_vectors()[fitted.items.encode(embedded["item_id"])]
    np.testing.assert_allclose(np.stack(embedded["vector"].tolist()), known, atol=1e-5)


def test_gates_are_of_present_modalities_and_sum_to_no_more_than_one(fitted: Fusion) -> None:
    gates = fitted.gates().set_index(fitted.items.ids)
    assert (gates.loc[gates.index >= N_ITEMS - A_KIND, "audio"] == 0).all()
    assert (gates.loc[gates.index < N_ITEMS - A_KIND] > 0).all(axis=None)
    assert (gates.sum(axis=1) <= 1).all()


def test_noise_is_not_heard_where_modalities_are_selected(tastes: pd.DataFrame, tmp_path: Path) -> None:
    both = {"noise": noise(), "visual": vectors()}
    chosen, alone = (
        registry.create("fusion", **QUICK, select_modalities=select).fit(tastes, features)
        for select, features in ((True, both), (False, {"visual": both["visual"]}))
    )
    chosen.save(tmp_path / "model")
    for model in (chosen, Recommender.load(tmp_path / "model")):
        assert isinstance(model, Fusion)
        assert (model.gates()["noise"] == 0).all()
        assert (model.gates()["visual"] > 0).all()
        # As if it had never been there, for known items and for new ones, of which one has nothing else.
        assert isinstance(alone, Fusion)
        np.testing.assert_allclose(model.item_vectors(), alone.item_vectors(), atol=1e-5)
        embedded = model.embed({"noise": noise(), "visual": vectors(range(1, N_ITEMS))}).set_index("item_id")["vector"]
        expected = alone.embed({"visual": vectors(range(1, N_ITEMS))}).set_index("item_id")["vector"]
        np.testing.assert_allclose(np.stack(embedded[expected.index].tolist()), np.stack(expected.tolist()), atol=1e-5)
        assert 0 in embedded.index
        with pytest.raises(DataError, match="none"):
            model.embed({"noise": noise()})


def test_modalities_that_tell_what_people_do_are_told_from_those_that_do_not(tastes: pd.DataFrame) -> None:
    found = TrainingSet.from_frames(tastes, {"noise": noise(), "visual": vectors(), "other": noise()})
    assert telling(found.matrix(), found.features, width=2.0, regularisation=1.0) == ("visual",)
    alone = {"noise": found.features["noise"]}
    assert telling(found.matrix(), alone, width=2.0, regularisation=1.0) == ("noise",)
    # One user and one item: nothing can be told.
    assert telling(csr_matrix([[1.0]]), found.features, 2.0, 1.0) == ("noise", "other", "visual")


def test_a_closed_gate_takes_its_modality_away() -> None:
    encoder = ContentEncoder({"a": 3, "b": 3}, dimension=4, rank=2, dropout=0.0, modality_dropout=0.0).eval()
    with torch.no_grad():
        encoder.open[1] = -50.0
    present = torch.ones(5, 2, dtype=torch.bool)
    one, other = torch.randn(5, 3), torch.randn(5, 3)
    with torch.no_grad():
        content, gates = encoder.fused(encoder.projected({"a": one, "b": other}), present)
    assert (gates[:, 1] < 1e-6).all()
    projected = encoder.project["a"](one)
    torch.testing.assert_close(content, 2 * gates[:, :1] * projected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_an_encoder_is_restored_from_its_parameters(rank: int) -> None:
    encoder = ContentEncoder({"a": 3, "b": 5}, dimension=4, rank=rank, dropout=0.0, modality_dropout=0.0)
    parameters = {f"encoder.{name}": value.numpy() for name, value in encoder.state_dict().items()}
    vectors = {"a": torch.randn(6, 3), "b": torch.randn(6, 5)}
    with torch.no_grad():
        torch.testing.assert_close(ContentEncoder.restored(parameters).projected(vectors), encoder.projected(vectors))


def test_modality_dropout_leaves_every_item_one_of_its_modalities() -> None:
    encoder = ContentEncoder({"a": 3, "b": 3}, dimension=4, rank=2, dropout=0.0, modality_dropout=0.9).train()
    present = torch.tensor([[True, True], [True, False], [False, False]]).repeat(100, 1)
    _, gates = encoder.fused(encoder.projected({"a": torch.randn(300, 3), "b": torch.randn(300, 3)}), present)
    heard = (gates > 0).sum(dim=1).view(100, 3)
    assert set(heard[:, 0].tolist()) == {1, 2}
    assert (heard[:, 1] == 1).all()
    assert (heard[:, 2] == 0).all()


# -- users -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"layers": 3, "neighbours": 3, "content_rank": 0}])
def test_known_users_encoded_anew_are_the_users_that_were_fitted(
    tastes: pd.DataFrame, features: dict[str, pd.DataFrame], parameters: dict[str, Any]
) -> None:
    model = registry.create("fusion", **QUICK | {"epochs": 2} | parameters).fit(tastes, features)
    left, popular = model._left(model._histories)
    assert not popular.any()
    np.testing.assert_allclose(left, model.score_sources()[0].left, atol=1e-4)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_strangers_are_served_from_few_events(fitted: Fusion, n: int) -> None:
    histories = [[kind * A_KIND + item for item in range(n)] for kind in range(N_KINDS)]
    # Items that a stranger has are left out: of ten of a kind one is left at the least.
    assert share_of_own_kind(fitted.recommend_for_history(histories, 1)) == 1.0


def test_an_untouched_item_in_a_strangers_history_speaks_by_its_content(fitted: Fusion) -> None:
    histories = [[kind * A_KIND + A_KIND - 1] for kind in range(N_KINDS)]
    assert share_of_own_kind(fitted.recommend_for_history(histories, 3)) > 0.8


def test_a_stranger_without_events_gets_the_popular_list(fitted: Fusion) -> None:
    lists = fitted.recommend_for_history([[]], 3)
    assert lists["item_id"].tolist() == fitted.recommend([99999], 3)["item_id"].tolist()


# -- losses ------------------------------------------------------------------------------------------------------------


def test_alignment_alone_needs_no_behaviour_and_brings_modalities_together(
    tastes: pd.DataFrame, features: dict[str, pd.DataFrame]
) -> None:
    settings = QUICK | {"softmax": 0.0, "align": 1.0, "id_dropout": 0.0}
    model = registry.create("fusion", **settings).fit(tastes, features)
    assert model.history[-1]["loss"] < 0.8 * model.history[0]["loss"]
    none = torch.zeros(4, 2, dtype=torch.bool)
    assert float(alignment(torch.randn(4, 2, 3), none)) == 0.0


def test_tags_are_learnt_from_content_and_labels_are_no_input(tastes: pd.DataFrame) -> None:
    kinds = np.eye(N_KINDS + 1, dtype="f4")[np.arange(N_ITEMS) // A_KIND]
    # The last tag is nobody's. Items of every kind are left without labels.
    labelled = np.arange(N_ITEMS) % A_KIND < 7
    tags = pd.DataFrame({"item_id": np.arange(N_ITEMS)[labelled], "vector": list(kinds[labelled])})
    settings = QUICK | {"labels": "tags", "classify": 1.0, "epochs": 20}
    model = registry.create("fusion", **settings).fit(tastes, {"visual": vectors(), "tags": tags})
    assert isinstance(model, Fusion)
    assert list(model.gates().columns) == ["visual"]
    found = model.tags()[np.argsort(model.items.ids)]
    assert (found.argmax(axis=1) == np.arange(N_ITEMS) // A_KIND)[~labelled].mean() > 0.9
    assert (found[:, -1] == 0).all()


@pytest.mark.parametrize(
    ("tags", "message"),
    [(np.ones((N_ITEMS, 2)), "one class only"), (np.full((N_ITEMS, 2), 0.5), "other values than 0 and 1")],
)
def test_labels_that_say_nothing_are_refused(tastes: pd.DataFrame, tags: Any, message: str) -> None:
    frame = pd.DataFrame({"item_id": range(N_ITEMS), "vector": list(tags.astype("f4"))})
    with pytest.raises(DataError, match=message):
        registry.create("fusion", labels="tags").fit(tastes, {"visual": vectors(), "tags": frame})
    with pytest.raises(DataError, match="no feature genres to take labels from"):
        registry.create("fusion", labels="genres").fit(tastes, {"visual": vectors()})


# -- graphs ------------------------------------------------------------------------------------------------------------


def test_items_near_by_content_are_joined_in_the_graph() -> None:
    near = csr_matrix(np.array([[0, 0.5, 0], [0, 0, 0], [0, 1, 0]], np.float32))
    graph = Graph(csr_matrix(np.array([[1, 0, 0]], np.float32)), near)
    dense = np.zeros((4, 4), np.float32)
    dense[0, 1], dense[1, 2], dense[3, 2] = 1, 0.5, 1
    dense += dense.T
    scale = np.maximum(dense.sum(axis=1), 1) ** -0.5
    found = graph.smooth(torch.eye(4)).numpy()
    np.testing.assert_allclose(found, dense * scale[:, None] * scale, atol=1e-6)


def test_neighbours_by_content_share_their_modalities_and_rows_sum_to_one() -> None:
    shown = FeatureMatrix(
        np.array([[1, 0], [1, 0.1], [-1, 0], [0, 0]], np.float32), np.array([True, True, True, False])
    )
    near = content_neighbours({"visual": shown}, 1).toarray()
    assert near[0, 1] == pytest.approx(1) and near[1, 0] == pytest.approx(1)
    assert not near[3].any() and not near[:, 3].any()


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_an_item_without_any_modality_or_behaviour_gets_the_vector_of_no_content(tastes: pd.DataFrame) -> None:
    some = {"visual": vectors(range(1, N_ITEMS))}
    lonely = pd.concat(
        [tastes[tastes["item_id"] != 0], pd.DataFrame({"user_id": [0], "item_id": [0], "weight": [0.0]})]
    )
    model = registry.create("fusion", **QUICK | {"epochs": 1}).fit(lonely.fillna({"weight": 1.0}), some)
    assert isinstance(model, Fusion)
    place = model.items.encode([0])[0]
    assert (model.gates().iloc[place] == 0).all()
    assert np.isfinite(model.item_vectors()[place]).all()


def test_a_modality_that_the_whole_catalogue_lacks_is_left_out(tastes: pd.DataFrame) -> None:
    known = TrainingSet.from_frames(tastes, {"visual": vectors()})
    nothing = FeatureMatrix(np.zeros((len(known.items), 3), np.float32), np.zeros(len(known.items), np.bool_))
    known.features["audio"] = nothing
    module = untrained(known)
    assert list(module.encoder.widths) == ["visual"]
    del known.features["visual"]
    with pytest.raises(DataError, match="needs item features"):
        untrained(known)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"visual": [[1.0, 2.0]]}, "2 values each, not 6"),
        ({"visual": [[float("nan")] * 6]}, "NaN"),
        ({"smell": [[1.0] * 6]}, "no modality smell"),
        ({}, "no modality among none"),
    ],
)
def test_vectors_that_cannot_be_embedded_are_refused(fitted: Fusion, given: dict[str, Any], message: str) -> None:
    frames = {name: pd.DataFrame({"item_id": [7], "vector": rows}) for name, rows in given.items()}
    with pytest.raises(DataError, match=message):
        fitted.embed(frames)


def test_a_stored_model_of_another_configuration_is_refused(fitted: Fusion, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    about = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(about.replace('"dimension": 16', '"dimension": 8'))
    with pytest.raises(DataError, match="another configuration"):
        Recommender.load(tmp_path)


def test_a_loaded_model_embeds_as_before(fitted: Fusion, features: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    assert isinstance(loaded, Fusion)
    pd.testing.assert_frame_equal(loaded.gates(), fitted.gates())
    before, after = (np.stack(model.embed(features)["vector"].tolist()) for model in (fitted, loaded))
    np.testing.assert_array_equal(after, before)


def test_users_without_a_history_layer_are_refused() -> None:
    with pytest.raises(SettingsError, match="layers of the model fusion is 0"):
        registry.create("fusion", layers=0)


def test_nothing_of_a_step_is_left_on_another_device(
    tastes: pd.DataFrame, features: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device meta computes shapes only, and refuses tensors of the CPU as a GPU would."""
    known = TrainingSet.from_frames(tastes, features)
    module = untrained(known).to("meta").train()
    monkeypatch.setattr(module.graph, "smooth", lambda vectors: vectors * 1)
    space = module.space()
    assert {space.users.device.type, space.items.device.type, space.gates.device.type} == {"meta"}
    assert space.items.shape == (N_ITEMS, 64)
