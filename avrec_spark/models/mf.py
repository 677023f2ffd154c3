"""Matrix factorisation trained to rank: by a softmax over items, or by pairs of items."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.base import choice
from avrec_spark.models.torch_model import TorchRecommender, embedding, touched
from avrec_spark.training.losses import Loss


class FactorModule(nn.Module):
    """p_u for users, q_i and b_i for items.

    Nothing is known of an item without interactions: it has no factors and the smallest bias.
    """

    def __init__(self, training_set: TrainingSet, *, dimension: int, dropout: float) -> None:
        super().__init__()
        self.user = embedding(len(training_set.users), dimension)
        self.item = embedding(len(training_set.items), dimension)
        self.bias = nn.Parameter(torch.zeros(len(training_set.items)))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("warm", touched(training_set), persistent=False)

    def user_vectors(self, users: Tensor) -> Tensor:
        vectors: Tensor = self.dropout(self.user(users))
        return vectors

    def item_vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        warm = self.get_buffer("warm")
        bias = torch.where(warm, self.bias, self.bias[warm].min())
        return self.item(items) * warm[items, None], bias[items]


class MatrixFactorisation(TorchRecommender):
    """Scores p_u · q_i + b_i.

    Loss `softmax` gives each interaction's item a high softmax probability among all items, beyond
    `full_softmax_items` among sampled ones; `bpr` sets it above `negatives` random items that the user has not touched.
    Scores are divided by `temperature` first.

    Needs interactions only; weights scale the loss. Users without history get the popular list, and new users or
    events want a new fit. Costs interactions × items × dimension an epoch for the softmax, and interactions × negatives
    × dimension for the pairs.

    Source: the matrix factorisation of Koren, Bell and Volinsky 2009 with the sampled softmax of Bengio and Senécal
    2008, or with the Bayesian personalised ranking of Rendle et al. 2009, in place of the squared error.
    """

    name = "mf"
    factory = FactorModule
    module_parameters = ("dimension", "dropout")

    def __init__(
        self,
        *,
        dimension: int = 64,
        dropout: float = 0.5,
        loss: str = "softmax",
        negatives: int = 1,
        temperature: float = 1.0,
        full_softmax_items: int = 4096,
        epochs: int = 40,
        batch_size: int = 1024,
        learning_rate: float = 0.01,
        weight_decay: float = 0.1,
        patience: int = 5,
        seed: int = 42,
    ) -> None:
        self.dimension = dimension
        self.dropout = dropout
        self.loss = choice("The parameter loss of the model mf", loss, get_args(Loss))
        self.negatives = negatives
        self.temperature = temperature
        self.full_softmax_items = full_softmax_items
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.seed = seed

    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        """The factors are all there is."""
