"""Multimodal fusion: what an item looks, sounds and reads like, next to who liked it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.models.torch_model import TorchRecommender, embedding, standardised, touched

# Of the values of an item's vectors: more of it hides what clips have in common.
_CONTENT_DROPOUT = 0.1


class FusionModule(nn.Module):
    """Item vector = id part + Σ_m g_m P_m(x_m).

    P_m projects the standardised vectors of modality m, through few dimensions (`content_rank`): tastes agree on few
    properties of content, and a full projection learns the items by heart. The gates g are a softmax over the
    modalities that the item has, of a learned score of its projected content.

    The id part and the item's bias are absent for items without interactions, and dropped at random in training, so
    that content carries what it can and a bias of 0 is that of an average item. An item with neither interactions nor
    content has a zero vector: it ranks as an average item that is nobody's taste.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        *,
        dimension: int,
        content_rank: int,
        dropout: float,
        id_dropout: float,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        if not training_set.features:
            raise DataError("The model fusion needs item features, and the snapshot has none.", "Run features first.")
        self.modalities = list(training_set.features)
        self.id_dropout, self.modality_dropout = id_dropout, modality_dropout
        n_items = len(training_set.items)
        present = np.stack([matrix.present for matrix in training_set.features.values()], axis=1)
        # Not parameters, and large: every rank has them from the snapshot.
        self.register_buffer("warm", touched(training_set), persistent=False)
        self.register_buffer("present", torch.from_numpy(present), persistent=False)
        for name, matrix in training_set.features.items():
            self.register_buffer(f"x_{name}", torch.from_numpy(standardised(matrix)), False)
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Dropout(_CONTENT_DROPOUT),
                    nn.Linear(matrix.values.shape[1], content_rank, bias=False),
                    nn.Linear(content_rank, dimension),
                )
                for name, matrix in training_set.features.items()
            }
        )
        self.gate = nn.ModuleDict({name: nn.Linear(dimension, 1) for name in self.modalities})
        self.user = embedding(len(training_set.users), dimension)
        self.item = embedding(n_items, dimension)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.dropout = nn.Dropout(dropout)

    def user_vectors(self, users: Tensor) -> Tensor:
        vectors: Tensor = self.dropout(self.user(users))
        return vectors

    def item_vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        content, _ = self.content(items)
        with_id = self.get_buffer("warm")[items].float()
        if self.training:
            with_id = with_id * (torch.rand(len(items)) >= self.id_dropout)
        return content + self.item(items) * with_id[:, None], self.bias[items] * with_id

    def content(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(content vectors float32[n, d], gates float32[n, modalities]); the gate of an absent modality is 0."""
        present = self.get_buffer("present")[items]
        if self.training:
            kept = present & (torch.rand(present.shape) >= self.modality_dropout)
            # Dropping must not leave an item without any modality.
            present = torch.where(kept.any(dim=1, keepdim=True), kept, present)
        projected = torch.stack(
            [self.project[name](self.get_buffer(f"x_{name}")[items]) for name in self.modalities], 1
        )
        scores = torch.cat([self.gate[name](projected[:, m]) for m, name in enumerate(self.modalities)], dim=1)
        # An item without any modality has a row of -inf, whose softmax is NaN: its gates are 0.
        gates = torch.nan_to_num(torch.softmax(scores.masked_fill(~present, -torch.inf), dim=1))
        return (gates[:, :, None] * projected).sum(dim=1), gates


class Fusion(TorchRecommender):
    """Recommends from fused item vectors, also items that nobody has touched; `gates()` says what they are made of."""

    name = "fusion"
    factory = FusionModule
    module_parameters = ("dimension", "content_rank", "dropout", "id_dropout", "modality_dropout")

    def __init__(
        self,
        *,
        dimension: int = 32,
        content_rank: int = 32,
        dropout: float = 0.3,
        id_dropout: float = 0.2,
        modality_dropout: float = 0.2,
        epochs: int = 40,
        batch_size: int = 512,
        learning_rate: float = 0.01,
        weight_decay: float = 0.5,
        patience: int = 5,
        seed: int = 42,
    ) -> None:
        self.dimension = dimension
        self.content_rank = content_rank
        self.dropout = dropout
        self.id_dropout = id_dropout
        self.modality_dropout = modality_dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.seed = seed

    @torch.inference_mode()
    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        assert isinstance(module, FusionModule)
        everything = torch.arange(len(training_set.items))
        self._gates = module.content(everything)[1].numpy()
        self._vectors = module.item_vectors(everything)[0].numpy()
        self._modalities = np.array(module.modalities)

    def item_vectors(self) -> NDArray[np.float32]:
        """float32[n_items, dimension], rows as in `items`."""
        return self._vectors

    def gates(self) -> pd.DataFrame:
        """One row an item as in `items`, one column a modality; a row sums to 1, or to 0 without any modality."""
        return pd.DataFrame(self._gates, columns=[str(name) for name in self._modalities])

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"gates": self._gates, "vectors": self._vectors, "modalities": self._modalities}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._gates, self._vectors, self._modalities = extra["gates"], extra["vectors"], extra["modalities"]
