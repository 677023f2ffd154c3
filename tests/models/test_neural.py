"""What is particular to the trained models: LightGCN's graph, the towers' histories, the Transformer's causality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from avrec_spark.dataset.loader import Batch, SequenceBatch
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import SettingsError
from avrec_spark.models import registry
from avrec_spark.models.base import Recommender
from avrec_spark.models.lightgcn import Graph, LightGCNModule, Smoothed
from avrec_spark.models.transformer import SequenceEncoder, TransformerModule, _bucket, _reshuffled, _shift, _windows
from avrec_spark.models.two_tower import TwoTowerModule
from avrec_spark.training import launchers
from avrec_spark.training.losses import Candidates, softmax_loss

N_KINDS, ITEMS_A_KIND = 4, 10


@pytest.fixture(scope="module")
def tastes() -> pd.DataFrame:
    """Users of four tastes and items of four kinds, a few of each user's kind; the last of each kind is untouched."""
    generator = np.random.default_rng(0)
    user = np.repeat(np.arange(120), 6)
    item = (user % N_KINDS) * ITEMS_A_KIND + generator.integers(0, ITEMS_A_KIND - 1, len(user))
    return pd.DataFrame({"user_id": user, "item_id": item}).drop_duplicates(ignore_index=True)


@pytest.fixture(scope="module")
def walks() -> pd.DataFrame:
    """Users who take items 0 … 19 in order, each from a start of their own, a minute apart."""
    generator = np.random.default_rng(1)
    rows = [
        (user, (start + step) % 20, 60.0 * step)
        for user, start in enumerate(generator.integers(0, 20, 150))
        for step in range(8)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def share_of_own_kind(lists: pd.DataFrame) -> float:
    return float(((lists["user_id"] % N_KINDS) == (lists["item_id"] // ITEMS_A_KIND)).mean())


def content(items: range) -> pd.DataFrame:
    kinds = np.eye(N_KINDS, dtype="f4")[np.array(items) // ITEMS_A_KIND]
    return pd.DataFrame({"item_id": items, "vector": list(kinds)})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mf", {"loss": "bpr", "negatives": 4, "weight_decay": 0.01, "epochs": 30}),
        ("mf", {"temperature": 0.5, "epochs": 25}),
        ("lightgcn", {"epochs": 10}),
        ("two-tower", {"epochs": 15}),
    ],
)
def test_planted_tastes_are_learnt(tastes: pd.DataFrame, name: str, settings: dict[str, Any]) -> None:
    sizes = {"dimension": 16} | ({} if name == "two-tower" else {"batch_size": 128})
    model = registry.create(name, **sizes, **settings).fit(tastes)
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    # A list at random would hold a quarter of the user's own kind.
    assert share_of_own_kind(model.recommend(range(120), 3)) > 0.9


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(SettingsError, match="loss of the model mf cannot be 'hinge'"):
        registry.create("mf", loss="hinge")


def test_heads_that_do_not_divide_the_dimension_are_refused() -> None:
    with pytest.raises(SettingsError, match="cannot share 10 dimensions among 4 heads"):
        registry.create("transformer", dimension=10, heads=4)


def test_a_window_of_one_event_is_refused() -> None:
    with pytest.raises(SettingsError, match="window of the model transformer is 1"):
        registry.create("transformer", window=1)


# -- fold in -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["lightgcn", "two-tower", "transformer"])
def folding(request: pytest.FixtureRequest, walks: pd.DataFrame) -> Recommender:
    return registry.create(request.param, dimension=16, epochs=3).fit(walks)


def test_users_encoded_from_their_history_are_the_users_that_were_fitted(folding: Recommender) -> None:
    (left,) = folding._left(folding._histories)
    np.testing.assert_allclose(left, folding.score_sources()[0].left, atol=1e-4)


def test_a_new_user_gets_what_a_known_one_with_the_same_history_gets(walks: pd.DataFrame) -> None:
    for name in ("two-tower", "transformer"):
        model = registry.create(name, dimension=16, epochs=2).fit(walks)
        twin = walks[walks["user_id"] == 3].assign(user_id=999)
        lists = model.fold_in(twin).recommend([3, 999], 10)
        of_user = {user: rows.drop(columns="user_id").reset_index(drop=True) for user, rows in lists.groupby("user_id")}
        pd.testing.assert_frame_equal(of_user[3], of_user[999], atol=1e-5)


def test_a_stranger_to_lightgcn_is_given_their_items_neighbours(tastes: pd.DataFrame) -> None:
    model = registry.create("lightgcn", dimension=16, epochs=8, batch_size=128).fit(tastes)
    lists = model.recommend_for_history([[0, 1], [10, 11], [20, 21], [30, 31]], 4)
    assert share_of_own_kind(lists) == 1.0


# -- LightGCN ----------------------------------------------------------------------------------------------------------


def test_the_graph_and_its_gradient_are_those_of_the_dense_matrix() -> None:
    interactions = np.array([[1, 1, 0], [0, 2, 0]], np.float32)
    whole = np.zeros((5, 5), np.float32)
    whole[:2, 2:] = interactions > 0
    whole += whole.T
    # The third item has no edge.
    scale = np.array([2, 1, 1, 2, 1], np.float32) ** -0.5
    dense = torch.from_numpy(whole * scale[:, None] * scale)
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    graph = Graph(csr_matrix(interactions))
    torch.testing.assert_close(graph.smooth(vectors), dense @ vectors)
    direction = torch.arange(15.0).view(5, 3)
    (gradient,) = torch.autograd.grad((graph.smooth(vectors) * direction).sum(), vectors)
    torch.testing.assert_close(gradient, dense.T @ direction)


def test_a_vector_is_the_mean_over_the_layers_of_length_one() -> None:
    rows = pd.DataFrame({"user_id": [1], "item_id": [5]})
    module = LightGCNModule(TrainingSet.from_frames(rows), dimension=2, layers=2, temperature=1.0, user_exponent=0.0)
    with torch.no_grad():
        module.nodes.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    # One edge: the two swap their vectors at each layer. The user has itself, the item, itself: (2, 1) / √5.
    expected = torch.tensor([[2.0, 1.0]]) / 5**0.5
    torch.testing.assert_close(module.smoothed().users, expected)
    torch.testing.assert_close(module.smoothed().items, expected.flip(1))


def test_items_without_interactions_come_last_where_nothing_is_known_of_them(tastes: pd.DataFrame) -> None:
    features = {"visual": content(range(N_KINDS * ITEMS_A_KIND))}
    model = registry.create("lightgcn", dimension=8, epochs=1).fit(tastes, features)
    lists = model.recommend(range(20), N_KINDS * ITEMS_A_KIND)
    cold = lists["item_id"] % ITEMS_A_KIND == ITEMS_A_KIND - 1
    last = lists["rank"] > lists.groupby("user_id")["rank"].transform("max") - N_KINDS
    assert (cold == last).all()


def test_a_heavy_users_interactions_weigh_less_and_the_mean_weight_stays() -> None:
    rows = pd.DataFrame({"user_id": [1, 1, 1, 1, 2], "item_id": [1, 2, 3, 4, 1]})
    part = TrainingSet.from_frames(rows)
    module = LightGCNModule(part, dimension=2, layers=1, temperature=1.0, user_exponent=0.5)
    one, four = module.importance[part.users.encode([2, 1])]
    assert one / four == pytest.approx(2.0)
    assert module.importance[part.user_index].mean() == pytest.approx(1.0)


# -- two towers --------------------------------------------------------------------------------------------------------


def test_an_item_that_nobody_touched_is_recommended_for_its_content(tastes: pd.DataFrame) -> None:
    # Half of the touched items lack the first modality, and all lack something of the second.
    features = {
        "visual": content(range(N_KINDS * ITEMS_A_KIND)).drop(index=range(0, 36, 2)),
        "audio": content(range(12)),
    }
    model = registry.create("two-tower", dimension=16, epochs=20).fit(tastes, features)
    untouched = [kind * ITEMS_A_KIND + ITEMS_A_KIND - 1 for kind in range(N_KINDS)]
    lists = model.recommend(range(80), 1, candidates=untouched)
    assert share_of_own_kind(lists) > 0.9


def test_the_item_asked_for_is_no_part_of_the_history_that_asks() -> None:
    # A user with one item, and one who took the same item twice: both histories are empty without it.
    rows = pd.DataFrame({"user_id": [1, 2, 2, 3], "item_id": [1, 2, 2, 3]})
    part = TrainingSet.from_frames(rows)
    module = TwoTowerModule(part, dimension=4, sequence_length=5, dropout=0.0, id_dropout=0.0, temperature=1.0)
    candidates = Candidates(part, 10)
    once, twice = (part.items.encode([item])[0] for item in (1, 2))
    items = np.array([[-1, once], [twice, twice]])
    batch = SequenceBatch(np.array([0, 1]), items, np.zeros((2, 2)), (items >= 0).astype("f4"))
    loss = module.batch_loss(batch, candidates)
    with torch.no_grad():
        nobody = module.user_tower(torch.zeros(4))
        logits = module.item_tower(module.inputs(candidates.of(torch.tensor([once]))[0])) @ nobody
        expected = -torch.log_softmax(logits, 0)[[once, twice, twice]].sum()
    torch.testing.assert_close(loss.detach(), expected)


def test_users_that_are_scored_once_have_the_same_loss_and_gradient() -> None:
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"user_id": generator.integers(0, 5, 40), "item_id": generator.integers(0, 9, 40)})
    part = TrainingSet.from_frames(rows)
    module = LightGCNModule(part, dimension=4, layers=2, temperature=0.3, user_exponent=0.0)
    batch = Batch(part.user_index, part.item_index, generator.random(40).astype("f4"))
    found = []
    for once in (False, True):
        module.zero_grad()
        loss = softmax_loss(module.smoothed(), batch, Candidates(part, 100), 0.3, once=once)
        loss.backward()
        assert module.nodes.grad is not None
        found.append((loss.detach(), module.nodes.grad.clone()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_as_many_of_the_best_untouched_items_as_are_spared_are_not_pushed_down() -> None:
    # User 0 has touched the item 0 of five, user 1 the items 1 and 2, user 2 the items 3 and 4.
    part = TrainingSet.from_frames(pd.DataFrame({"user_id": [0, 1, 1, 2, 2], "item_id": range(5)}))
    users, items = part.users.encode(range(3)), part.items.encode(range(5))
    scores = torch.zeros(3, 5)
    scores[users[:2, None], items] = torch.tensor([[1.0, 0.5, 3.0, 2.0, -1.0], [0.0, 5.0, 4.0, 2.0, 1.0]])
    scores.requires_grad_()
    module = Smoothed(scores, torch.eye(5), torch.zeros(5))
    batch = Batch(users[[0, 1, 1]], items[:3], np.ones(3, "f4"))
    for spared, untouched in ((0.5, [[], [3]]), (1.0, [[2], [3, 4]])):
        scores.grad = None
        softmax_loss(module, batch, Candidates(part, 100), once=spared == 1.0, spared=spared).backward()
        assert scores.grad is not None
        # Half of one item is none, half of two is one.
        pushed = scores.grad[users[:2, None], items]
        assert [np.flatnonzero(row == 0).tolist() for row in pushed] == untouched


# -- Transformer -------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    made = SequenceEncoder(20, dimension=8, blocks=2, heads=2, length=8, dropout=0.5)
    for name, parameter in made.named_parameters():
        if name.endswith(("lag", "elapsed")):
            torch.nn.init.normal_(parameter)
    return made.eval()


def test_a_state_knows_nothing_of_later_events(encoder: SequenceEncoder) -> None:
    items, times = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[0.0, 5.0, 60.0, 3600.0, 3601.0]]).double()
    states = encoder(items, times)
    later_items, later_times = items.clone(), times.clone()
    later_items[0, 3:], later_times[0, 3:] = 9, 10.0**6
    changed = encoder(later_items, later_times)
    torch.testing.assert_close(states[:, :3], changed[:, :3])
    assert not torch.allclose(states[:, 3:], changed[:, 3:], atol=1e-2)


def test_padding_changes_no_state(encoder: SequenceEncoder) -> None:
    items, times = torch.tensor([[3, 1, 4]]), torch.tensor([[100.0, 105.0, 160.0]]).double()
    padded = encoder(
        torch.cat([torch.full((1, 4), -1), items], dim=1), torch.cat([torch.zeros(1, 4).double(), times], dim=1)
    )
    torch.testing.assert_close(padded[:, 4:], encoder(items, times), atol=1e-5, rtol=1e-4)


def test_order_and_elapsed_time_matter(encoder: SequenceEncoder) -> None:
    items, times = torch.tensor([[3, 1, 4]]), torch.tensor([[100.0, 105.0, 160.0]]).double()
    state = encoder(items, times)[:, -1]
    assert not torch.allclose(encoder(items[:, [1, 0, 2]], times)[:, -1], state, atol=1e-2)
    assert not torch.allclose(encoder(items, times * 1000)[:, -1], state, atol=1e-2)


def test_times_are_counted_by_powers_of_two() -> None:
    seconds = torch.tensor([0.0, 0.9, 1.0, 2.0, 3.9, 4.0, 86_400.0, 1e30]).double()
    assert _bucket(seconds).tolist() == [0, 0, 1, 2, 2, 3, 17, 31]


def test_only_events_of_one_time_change_places() -> None:
    torch.manual_seed(0)
    items = torch.tensor([[-1, 5, 6, 7, 8, 9]]).repeat(50, 1)
    times = torch.tensor([[0.0, 10.0, 20.0, 20.0, 20.0, 30.0]]).double().repeat(50, 1)
    mixed = items.gather(1, _reshuffled(items, times))
    assert (mixed[:, [0, 1, 5]] == torch.tensor([-1, 5, 9])).all()
    assert len({tuple(row) for row in mixed.tolist()}) == 6


@pytest.mark.parametrize("full_softmax_items", [4096, 12])
def test_the_next_item_of_a_walk_is_learnt(walks: pd.DataFrame, full_softmax_items: int) -> None:
    settings = {"dimension": 16, "epochs": 25, "batch_size": 32, "learning_rate": 0.01, "dropout": 0.1}
    model = registry.create("transformer", full_softmax_items=full_softmax_items, **settings).fit(walks)
    last = walks.groupby("user_id")["item_id"].last()
    first = model.recommend(last.index, 1).set_index("user_id")["item_id"]
    assert (first == (last + 1) % 20).mean() > 0.9
    # The latest event decides, also for strangers.
    lists = model.recommend_for_history([[3, 4, 5], [15, 16]], 1)
    assert lists["item_id"].tolist() == [6, 17]


def test_windows_hold_every_event_once_and_end_at_any_place() -> None:
    items = torch.arange(1, 12).view(1, 11)
    for shift in range(4):
        cut = _windows(items, 4, shift, -1)
        assert cut.shape[1] == 4
        assert cut[cut >= 0].tolist() == list(range(1, 12))
        assert (cut[-1] == -1).sum() == shift
    torch.manual_seed(0)
    assert {_shift(11, 4) for _ in range(60)} == {0, 1, 2, 3}
    assert {_shift(4, 4) for _ in range(60)} == {0}


def test_long_histories_are_learnt_in_windows(walks: pd.DataFrame) -> None:
    settings = {"dimension": 16, "epochs": 25, "batch_size": 32, "learning_rate": 0.01, "dropout": 0.1}
    model = registry.create("transformer", window=3, **settings).fit(walks)
    last = walks.groupby("user_id")["item_id"].last()
    first = model.recommend(last.index, 1).set_index("user_id")["item_id"]
    assert (first == (last + 1) % 20).mean() > 0.9


def test_users_with_a_single_event_cost_nothing_and_break_nothing() -> None:
    rows = pd.DataFrame({"user_id": [1, 2, 3], "item_id": [1, 2, 1], "timestamp": [1.0, 2.0, 3.0]})
    part = TrainingSet.from_frames(rows)
    module = TransformerModule(part, dimension=4, blocks=1, heads=1, window=5, dropout=0.0, label_smoothing=0.0)
    batch = SequenceBatch(np.arange(3), part.items.encode([1, 2, 1])[:, None], np.ones((3, 1)), np.ones((3, 1), "f4"))
    assert float(module.batch_loss(batch, Candidates(part, 10)).detach()) == 0.0
    lists = registry.create("transformer", dimension=4, epochs=2).fit(rows).recommend([1, 2, 3, 4], 2)
    assert np.isfinite(lists["score"]).all()


# -- under Horovod -----------------------------------------------------------------------------------------------------


# tests/training/test_launchers.py trains factors, fusion and the Transformer on two ranks, in one launch.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgcn", "two-tower"])
def test_two_ranks_train_what_one_trains(spark: object, walks: pd.DataFrame, name: str) -> None:
    quiet = {"dropout": 0.0} if name != "lightgcn" else {}
    alone, two = (registry.create(name, dimension=8, epochs=6, **quiet) for _ in range(2))
    alone.fit(walks)
    two.launcher, two.workers = launchers.create("horovod"), 2  # type: ignore[attr-defined]
    two.fit(walks)
    losses = [[entry["loss"] for entry in model.history] for model in (alone, two)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[1][-1] < losses[1][0]
