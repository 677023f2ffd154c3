"""The life of a fusion model: pre-training, transfer, updates and what they must not forget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, UsageError
from avrec_spark.models.base import Recommender
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.module import FusionModule
from avrec_spark.models.fusion.update import quality, takes, update
from avrec_spark.training.warm_start import WarmStart
from tests.models.latent import QUICK, Frames, behaviour, catalogue, parted


@pytest.fixture(scope="module")
def catalogue_a() -> tuple[np.ndarray, Frames]:
    return catalogue(150, seed=1)


@pytest.fixture(scope="module")
def fitted(catalogue_a: tuple[np.ndarray, Frames]) -> Fusion:
    factors, features = catalogue_a
    return Fusion(**QUICK).fit_training_set(parted(behaviour(factors, 200, 8, seed=2), 2, features))


def module(training_set: TrainingSet, **parameters: Any) -> FusionModule:
    given = Fusion(**QUICK | parameters).parameters
    return FusionModule(training_set, **{name: given[name] for name in Fusion.module_parameters})


# -- warm starts -------------------------------------------------------------------------------------------------------


def test_what_was_learnt_is_carried_over_by_id_and_what_is_new_begins_at_random(fitted: Fusion) -> None:
    # Half of the items are known, the modality text is not, and audio is gone.
    _, features = catalogue(150, seed=5, first=75)
    text = features["audio"].rename(columns={"vector": "vector"})
    rows = pd.DataFrame({"user_id": [3, 1000], "item_id": [80, 200]})
    known = TrainingSet.from_frames(rows, {"visual": features["visual"], "text": text})
    torch.manual_seed(0)
    fresh = module(known)
    torch.manual_seed(0)
    begun = module(known)
    begun.start_from(fitted.learnt())
    user, item = known.users.encode([3, 1000]), known.items.encode([80, 200])
    learnt = fitted.learnt().parameters
    assert begun.users.weight[user[0]].tolist() == learnt["users.weight"][fitted.users.encode([3])[0]].tolist()
    assert begun.items.weight[item[0]].tolist() == learnt["items.weight"][fitted.items.encode([80])[0]].tolist()
    assert torch.equal(begun.users.weight[user[1]], fresh.users.weight[user[1]])
    assert torch.equal(begun.items.weight[item[1]], fresh.items.weight[item[1]])
    gates = dict(zip(known.features, begun.encoder.open.tolist(), strict=True))
    theirs = dict(zip(fitted.learnt().rows["encoder.open"], learnt["encoder.open"].tolist(), strict=True))
    assert gates == {"visual": theirs["visual"], "text": 2.0}
    assert torch.equal(begun.encoder.project["text"][1].weight, fresh.encoder.project["text"][1].weight)
    # The scale is that of the catalogue which the encoder has learnt on, and the items are seen in it.
    rows = np.stack(features["visual"]["vector"].tolist())
    seen = (rows - learnt["encoder.mean_visual"]) / learnt["encoder.scale_visual"]
    place = known.items.encode(features["visual"]["item_id"])
    np.testing.assert_allclose(begun.get_buffer("x_visual")[place].numpy(), seen, atol=1e-5)


def test_a_fit_of_no_epochs_worth_of_learning_is_the_model_that_it_started_from(
    fitted: Fusion, catalogue_a: tuple[np.ndarray, Frames]
) -> None:
    factors, features = catalogue_a
    known = parted(behaviour(factors, 200, 8, seed=2), 2, features)
    still = Fusion(**QUICK | {"epochs": 1, "learning_rate": 1e-9}).starting_from(fitted).fit_training_set(known)
    np.testing.assert_allclose(still.item_vectors(), fitted.item_vectors(), atol=1e-4)


def test_a_warm_start_is_stored_with_the_model_and_alone(fitted: Fusion, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert isinstance(loaded, Fusion)
    pd.testing.assert_frame_equal(loaded.held_out(), fitted.held_out())
    path = loaded.learnt().save(tmp_path / "start")
    for found in (WarmStart.load(path), WarmStart.load(tmp_path / "start")):
        for kept, given in ((found.parameters, fitted.learnt().parameters), (found.rows, fitted.learnt().rows)):
            assert kept.keys() == given.keys()
            assert all(np.array_equal(kept[name], given[name]) for name in kept)
    with pytest.raises(UsageError, match="holds no warm start"):
        WarmStart.load(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("parameters", "change", "message"),
    [
        ({"dimension": 8}, {}, "another configuration: its .* has the shape"),
        ({"content_rank": 4}, {}, "another configuration"),
        ({}, {"visual": [1.0, 2.0]}, "The visual vectors have 2 values each, and those .* was fitted on 12"),
        ({}, {"visual": None, "audio": None, "smell": [1.0]}, "knows the modalities audio, visual, .* have smell"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    fitted: Fusion, catalogue_a: tuple[np.ndarray, Frames], parameters: Any, change: Any, message: str
) -> None:
    _, features = catalogue_a
    other = {name: frame for name, frame in features.items() if name not in change}
    other |= {
        name: pd.DataFrame({"item_id": [0, 1], "vector": [np.float32(row), -np.float32(row)]})
        for name, row in change.items()
        if row is not None
    }
    with pytest.raises(DataError, match=message):
        Fusion(**QUICK | parameters).starting_from(fitted).fit(pd.DataFrame({"user_id": [1], "item_id": [0]}), other)


def test_a_start_with_nan_is_refused(fitted: Fusion, catalogue_a: tuple[np.ndarray, Frames]) -> None:
    learnt = fitted.learnt()
    spoilt = WarmStart({**learnt.parameters, "encoder.open": np.float32([np.nan, 1])}, learnt.rows)
    with pytest.raises(DataError, match=r"encoder\.open of the warm start holds NaN"):
        Fusion(**QUICK).starting_from(spoilt).fit(pd.DataFrame({"user_id": [1], "item_id": [0]}), catalogue_a[1])


# -- pre-training ------------------------------------------------------------------------------------------------------


def agreement(start: WarmStart | None, features: Frames) -> float:
    """How often, among all items, an item's own audio is nearest to its visual; 1 / items by chance."""
    known = TrainingSet.from_frames(
        pd.DataFrame({"user_id": [0], "item_id": [features["audio"]["item_id"][0]]}), features
    )
    torch.manual_seed(0)
    of_items = module(known)
    if start is not None:
        of_items.start_from(start)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(of_items.eval().space().projected, dim=2)
    return float((torch.argmax(unit[:, 0] @ unit[:, 1].T, dim=1) == torch.arange(len(unit))).float().mean())


def test_pre_training_without_any_behaviour_brings_modalities_together_also_of_another_catalogue(
    catalogue_a: tuple[np.ndarray, Frames],
) -> None:
    model = Fusion(**QUICK | {"align": 1.0, "epochs": 60, "batch_size": 64})
    start = model.pretrain(catalogue_a[1])
    assert not hasattr(model, "items")
    assert not any(name.startswith(("users.", "items.")) for name in start.parameters)
    _, other = catalogue(150, seed=7, first=10_000)
    assert agreement(None, other) < 0.05
    assert agreement(start, catalogue_a[1]) > 0.5
    assert agreement(start, other) > 0.5


def test_a_fit_begins_with_the_pre_trained_encoder(catalogue_a: tuple[np.ndarray, Frames]) -> None:
    factors, features = catalogue_a
    start = Fusion(**QUICK | {"align": 1.0, "epochs": 2}).pretrain(features)
    rows = behaviour(factors, 20, 3, seed=2)
    still = Fusion(**QUICK | {"epochs": 1, "learning_rate": 1e-9}).starting_from(start).fit(rows, features)
    for name in ("encoder.project.visual.1.weight", "encoder.mean_audio"):
        np.testing.assert_allclose(still.learnt().parameters[name], start.parameters[name], atol=1e-6)


def test_tags_are_pre_trained_without_behaviour(catalogue_a: tuple[np.ndarray, Frames]) -> None:
    factors, features = catalogue_a
    tags = pd.DataFrame({"item_id": np.arange(120), "vector": list((factors[:120] > 0).astype("f4"))})
    settings = QUICK | {"classify": 1.0, "labels": "tags", "epochs": 60, "batch_size": 64, "content_dropout": 0.0}
    start = Fusion(**settings).pretrain({"visual": features["visual"], "tags": tags})
    rows = pd.DataFrame({"user_id": [0], "item_id": [0]})
    quiet = Fusion(**settings | {"epochs": 1, "learning_rate": 1e-9}).starting_from(start)
    told = quiet.fit(rows, {"visual": features["visual"], "tags": tags}).tags()[quiet.items.encode(np.arange(120, 150))]
    assert ((told > 0.5) == (factors[120:] > 0)).mean() > 0.85


@pytest.mark.parametrize(
    ("parameters", "modalities", "message"),
    [
        ({"align": 1.0}, ("visual",), "no item has two modalities"),
        ({}, ("visual", "audio"), "align and classify are 0"),
        ({"align": 1.0}, (), "no item has features"),
    ],
)
def test_pre_training_with_nothing_to_learn_is_refused(
    catalogue_a: tuple[np.ndarray, Frames], parameters: Any, modalities: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Fusion(**QUICK | parameters).pretrain({name: catalogue_a[1][name] for name in modalities})


# -- transfer ----------------------------------------------------------------------------------------------------------


def test_a_model_of_another_catalogue_helps_where_behaviour_is_scarce(fitted: Fusion) -> None:
    factors, features = catalogue(150, seed=11, first=10_000)
    rows = behaviour(factors, 60, 4, seed=12, first_item=10_000)
    known = parted(rows, 2, features)
    # The same few steps from nothing, and from what another catalogue's users have taught.
    few = QUICK | {"epochs": 3, "patience": 3}
    alone = Fusion(**few).fit_training_set(known)
    begun = Fusion(**few).starting_from(fitted, ids=False).fit_training_set(known)
    truth = known.held_out()
    assert quality(begun, truth) > 1.1 * quality(alone, truth)


def test_ids_of_another_catalogue_are_not_taken_for_ones_own(fitted: Fusion) -> None:
    assert not {"users.weight", "items.weight"} & set(Fusion().starting_from(fitted, ids=False).warm_start.parameters)


# -- updates -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def later(catalogue_a: tuple[np.ndarray, Frames]) -> TrainingSet:
    """The first period again, and a second one: 40 users more, and 30 items that nobody had before."""
    factors, features = catalogue_a
    more_factors, more_features = catalogue(30, seed=21, first=150)
    everything = np.concatenate([factors, more_factors])
    old = behaviour(factors, 200, 8, seed=2)
    new = behaviour(everything, 240, 6, seed=2).assign(timestamp=lambda rows: rows["timestamp"] + 8)
    both = {name: pd.concat([features[name], more_features[name]]) for name in features}
    rows = pd.concat([old, new]).drop_duplicates(["user_id", "item_id"])
    return parted(rows, 2, both)


def test_an_update_knows_new_users_and_items_and_forgets_nothing(fitted: Fusion, later: TrainingSet) -> None:
    done = update(Fusion(**QUICK), fitted, later)
    assert done.accepted and done.forgotten < 0.05
    assert done.newer is not None and done.newer[1] > done.newer[0]
    assert len(done.model.history) == 3
    assert set(range(180)) <= set(done.model.items.ids) and set(range(240)) <= set(done.model.users.ids)
    # What tells forgetting is not trained on.
    told_by = TrainingSet.from_frames(fitted.held_out())
    assert takes(fitted, told_by).sum() == 0
    assert takes(done.model, told_by).sum() == 0
    # The next update begins where this one has ended.
    assert done.model.warm_start is None
    assert done.model.learnt().rows["users.weight"].tolist() == done.model.users.ids.tolist()


def test_an_update_that_forgets_is_refused(fitted: Fusion, later: TrainingSet) -> None:
    # Steps that are far too large, on the new events alone.
    wild = Fusion(**QUICK | {"learning_rate": 3.0})
    done = update(wild, fitted, later, rehearsal=0.0)
    assert done.forgotten > 0.05
    assert not done.accepted
    assert "refused, more than 5.0% is forgotten" in str(done)
    assert update(wild, fitted, later, rehearsal=0.0, most_forgotten=1.0).accepted


def test_a_model_that_was_not_validated_cannot_be_updated(
    catalogue_a: tuple[np.ndarray, Frames], later: TrainingSet
) -> None:
    rows = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [0, 1, 1]})
    blind = Fusion(**QUICK | {"epochs": 1}).fit(rows, catalogue_a[1])
    with pytest.raises(DataError, match="fitted without validation"):
        update(Fusion(**QUICK), blind, later)


def test_an_update_without_new_events_still_takes_new_items(
    fitted: Fusion, catalogue_a: tuple[np.ndarray, Frames]
) -> None:
    factors, features = catalogue_a
    _, more = catalogue(5, seed=3, first=900)
    both = {name: pd.concat([features[name], more[name]]) for name in features}
    done = update(Fusion(**QUICK), fitted, parted(behaviour(factors, 200, 8, seed=2), 2, both), epochs=1)
    assert done.accepted
    assert set(more["visual"]["item_id"]) <= set(done.model.items.ids)
