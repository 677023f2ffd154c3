"""Two towers: a user vector made of the user's history, an item vector made of its id and its content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avrec_spark.dataset.loader import SequenceBatch
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.histories import Histories
from avrec_spark.models.torch_model import BELOW_EVERY_COSINE, TorchRecommender, embedding, standardised, touched
from avrec_spark.recommend.topk import Matrix, ScoreSource
from avrec_spark.training.loop import biased
from avrec_spark.training.losses import Candidates


class Tower(nn.Module):
    """x̂ + W₂ gelu(W₁ x̂) of the normalised input x̂, scaled to length 1; what is known of nobody becomes a constant."""

    def __init__(self, dimension: int, dropout: float) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(dimension)
        self.hidden = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(dimension, 2 * dimension), nn.GELU(), nn.Linear(2 * dimension, dimension)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        normalised = self.normalise(inputs)
        return functional.normalize(normalised + self.hidden(normalised), dim=-1)


class TwoTowerModule(nn.Module):
    """Both towers start from x_i = e_i + Σ_m P_m(f_im), the item's id vector and its projected content.

    A modality that an item lacks adds a learned vector a_m in place of its projection. Items without interactions have
    no e_i, and in training it is left out at random (`id_dropout`), so that content learns to do without it. The user
    tower gets the mean of x over the latest `sequence_length` items of the history.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        *,
        dimension: int,
        sequence_length: int,
        dropout: float,
        id_dropout: float,
        temperature: float,
    ) -> None:
        super().__init__()
        n_items = len(training_set.items)
        self.length, self.id_dropout, self.temperature = sequence_length, id_dropout, temperature
        self.item = embedding(n_items, dimension)
        self.register_buffer("warm", touched(training_set), persistent=False)
        self.project, self.absent = nn.ModuleDict(), nn.ParameterDict()
        for name, matrix in training_set.features.items():
            self.register_buffer(f"x_{name}", torch.from_numpy(standardised(matrix)), persistent=False)
            self.register_buffer(f"present_{name}", torch.from_numpy(matrix.present), persistent=False)
            self.project[name] = nn.Linear(matrix.values.shape[1], dimension)
            self.absent[name] = nn.Parameter(torch.zeros(dimension))
        self.dropout = nn.Dropout(dropout)
        self.user_tower, self.item_tower = Tower(dimension, dropout), Tower(dimension, dropout)

    def inputs(self, items: Tensor) -> Tensor:
        """x_i, float32[n, d], for item indices int64[n]."""
        with_id = self.get_buffer("warm")[items].float()
        if self.training and self.project:
            with_id = with_id * (torch.rand(len(items), device=items.device) >= self.id_dropout)
        total = self.item(items) * with_id[:, None]
        for name, project in self.project.items():
            present = self.get_buffer(f"present_{name}")[items]
            total = total + torch.where(
                present[:, None], project(self.get_buffer(f"x_{name}")[items]), self.absent[name]
            )
        return total

    def batch_loss(self, batch: SequenceBatch, candidates: Candidates) -> Tensor:
        """Cross-entropy of each event's item, given the user's other items, times its weight, summed.

        An event's own item is left out of the history that stands for the user, or the towers would learn to copy it.
        Sampled candidates are corrected by the log of how often they are drawn.
        """
        device = candidates.device
        items = torch.from_numpy(batch.items).to(device)
        weights = torch.from_numpy(batch.weights).to(device)
        present = items >= 0
        targets = items[present]
        chosen, log_draws = candidates.of(targets)
        needed, place = torch.unique(torch.cat([targets, chosen]), return_inverse=True)
        inputs = self.inputs(needed)
        own = inputs.new_zeros(*items.shape, inputs.shape[1])
        own[present] = inputs[place[: len(targets)]]
        # [n, L, L]: the places that hold the same item, often only the place itself.
        same = ((items[:, :, None] == items[:, None, :]) & present[:, None, :]).float()
        others = own.sum(dim=1, keepdim=True) - same @ own
        count = present.sum(dim=1)[:, None] - same.sum(dim=2)
        users = self.user_tower(self.dropout(others / count.clamp(min=1)[..., None])[present])
        vectors = self.item_tower(self.dropout(inputs[place[len(targets) :]]))
        logits = users @ vectors.T / self.temperature - log_draws
        losses = functional.cross_entropy(logits.float(), torch.searchsorted(chosen, targets), reduction="none")
        return (losses * weights[present]).sum()

    def score_sources(self, training_set: TrainingSet) -> list[ScoreSource]:
        """The cosines of both towers."""
        everything = torch.arange(len(training_set.items), device=self.item.weight.device)
        inputs = self.inputs(everything)
        known = self.get_buffer("warm").clone()
        for name in self.project:
            known |= self.get_buffer(f"present_{name}")
        bias = BELOW_EVERY_COSINE * (~known).float()
        left = user_vectors(self.user_tower, inputs.cpu().numpy(), Histories.of(training_set), self.length)
        return [ScoreSource(left, biased(self.item_tower(inputs), bias))]


@torch.inference_mode()
def user_vectors(tower: Tower, inputs: NDArray[np.float32], histories: Histories, length: int) -> NDArray[np.float32]:
    """float32[n_users, d + 1]: the user tower's vectors and a 1, given x of all items."""
    latest = (histories.recency() < length).astype(np.float32)
    counts = np.bincount(histories.user, latest, minlength=histories.n_users)
    means = (histories.matrix(latest) @ inputs) / np.maximum(counts, 1)[:, None]
    device = next(tower.parameters()).device
    vectors = tower.eval()(torch.from_numpy(means.astype(np.float32)).to(device)).cpu().numpy()
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


class TwoTower(TorchRecommender):
    """Scores by the cosine of a user tower over the history and an item tower over id and content.

    Needs interactions, and takes item features where there are any, also incomplete ones; an item that nobody has
    touched is then ranked by its content, without features last. Users without history get the popular list. A new
    user or a new event is encoded without a new fit (`fold_in`, `recommend_for_history`). Costs events × (items + the
    length of histories) × dimension an epoch; beyond `full_softmax_items` items the softmax is sampled.

    Source: Covington, Adams and Sargin 2016 (histories for users), Yi et al. 2019 (two towers, cosine over a
    temperature, correction for sampling), with the user's other events as history in place of the earlier ones.
    """

    name = "two-tower"
    factory = TwoTowerModule
    module_parameters = ("dimension", "sequence_length", "dropout", "id_dropout", "temperature")
    reader = "sequences"

    def __init__(
        self,
        *,
        dimension: int = 64,
        sequence_length: int = 200,
        dropout: float = 0.3,
        id_dropout: float = 0.2,
        temperature: float = 0.1,
        epochs: int = 40,
        batch_size: int = 32,
        learning_rate: float = 0.003,
        weight_decay: float = 0.1,
        full_softmax_items: int = 4096,
        patience: int = 5,
        seed: int = 42,
    ) -> None:
        self.dimension = dimension
        self.sequence_length = sequence_length
        self.dropout = dropout
        self.id_dropout = id_dropout
        self.temperature = temperature
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.full_softmax_items = full_softmax_items
        self.patience = patience
        self.seed = seed

    @torch.inference_mode()
    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        assert isinstance(module, TwoTowerModule)
        self._tower = module.user_tower
        self._inputs = module.inputs(torch.arange(len(training_set.items))).numpy()

    def _left(self, histories: Histories) -> list[Matrix]:
        return [user_vectors(self._tower, self._inputs, histories, self.sequence_length)]

    def _extra(self) -> dict[str, NDArray[Any]]:
        state = {f"tower.{name}": value.numpy() for name, value in self._tower.state_dict().items()}
        return {"inputs": self._inputs, **state}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._inputs = extra["inputs"]
        self._tower = Tower(self.dimension, self.dropout)
        state = {name.removeprefix("tower."): torch.from_numpy(extra[name]) for name in extra if name != "inputs"}
        self._tower.load_state_dict(state)
        self._tower.eval()
