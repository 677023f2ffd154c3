"""LightGCN: embeddings smoothed over the graph of who took what, and nothing else that is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import bmat, csr_matrix, diags
from torch import Tensor, nn
from torch.nn import functional

from avrec_spark.dataset.loader import Batch
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.histories import Histories
from avrec_spark.models.torch_model import BELOW_EVERY_COSINE, TorchRecommender
from avrec_spark.recommend.topk import Matrix, ScoreSource
from avrec_spark.training.loop import biased
from avrec_spark.training.losses import Candidates, softmax_loss

# Of the untrained embeddings.
_SCALE = 0.1


class Graph:
    """Â = D^-1/2 A D^-1/2 of the bipartite graph with an edge a user and item; users come before items.

    `between_items` float32[items, items] are weights of further edges, the larger of the two directions. `between`
    float32[users, items] is the part of Â that leads from users to items, and `degree` are the sums of A's rows.

    It multiplies vectors float32[users + items, d], and a gradient passes through it: Â is symmetric, so that the
    gradient of Â x is Â times the gradient.

    >>> graph = Graph(csr_matrix([[1.0, 1.0]]))
    >>> graph.smooth(torch.tensor([[1.0], [0.0], [2.0]])).flatten().numpy().round(3)
    array([1.414, 0.707, 0.707], dtype=float32)
    """

    def __init__(self, interactions: csr_matrix, between_items: csr_matrix | None = None) -> None:
        edges = csr_matrix(interactions > 0, dtype=np.float32)
        near = csr_matrix((edges.shape[1],) * 2, dtype=np.float32)
        if between_items is not None:
            near = csr_matrix(between_items.maximum(between_items.T), dtype=np.float32)
        sums = (edges.sum(axis=1).A1, edges.sum(axis=0).A1 + near.sum(axis=1).A1)
        self.degree = np.concatenate(sums).astype(np.float32)
        of_users, of_items = (diags(1 / np.sqrt(np.maximum(one, 1.0))) for one in sums)
        self.between = csr_matrix(of_users @ edges @ of_items, dtype=np.float32)
        self._near = csr_matrix(of_items @ near @ of_items, dtype=np.float32)
        self._on_device: Tensor | None = None

    def smooth(self, vectors: Tensor) -> Tensor:
        """Â x."""
        return cast(Tensor, _Smooth.apply(vectors, self))  # type: ignore[no-untyped-call]

    def product(self, vectors: Tensor) -> Tensor:
        """Â x without a gradient."""
        if vectors.device.type == "cpu":
            # SciPy's product took 3 ms where torch's took 25, and the gradient of torch's 300 (119,000 edges, d 64).
            # Users' rows gather from the items and scatter to them; where items are fewer, those stay in the cache.
            users, items = np.split(vectors.detach().numpy(), self.between.shape[:1])
            smoothed = np.empty(vectors.shape, np.float32)
            smoothed[: len(users)] = self.between @ items
            smoothed[len(users) :] = self.between.T @ users
            if self._near.nnz:
                smoothed[len(users) :] += self._near @ items
            return torch.from_numpy(smoothed)
        if self._on_device is None:
            matrix = bmat([[None, self.between], [self.between.T, self._near]], format="csr", dtype=np.float32)
            starts, columns, values = map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data))
            self._on_device = torch.sparse_csr_tensor(starts, columns, values, matrix.shape, device=vectors.device)
        return self._on_device @ vectors


class _Smooth(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, vectors: Tensor, graph: Graph) -> Tensor:
        context.graph = graph
        return graph.product(vectors)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return context.graph.product(gradients[0].contiguous()), None


@dataclass(frozen=True)
class Smoothed:
    """Unit vectors after propagation, float32[users, d] and float32[items, d], and the items' bias float32[items]."""

    users: Tensor
    items: Tensor
    bias: Tensor

    def user_vectors(self, users: Tensor) -> Tensor:
        return self.users[users]

    def item_vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.items[items], self.bias[items]


class LightGCNModule(nn.Module):
    """E^(k+1) = Â E^(k); a vector is the mean of E^(0) … E^(layers), of length 1.

    The whole graph is propagated once a step, whatever the batch. Users and items without interactions have zero
    vectors, and such items the smallest bias.
    """

    def __init__(
        self, training_set: TrainingSet, *, dimension: int, layers: int, temperature: float, user_exponent: float
    ) -> None:
        super().__init__()
        self.layers, self.temperature = layers, temperature
        self.n_users, self.n_items = len(training_set.users), len(training_set.items)
        self.nodes = nn.Parameter(_SCALE * torch.randn(self.n_users + self.n_items, dimension))
        self.graph = Graph(training_set.matrix())
        connected = torch.from_numpy((self.graph.degree > 0).astype(np.float32))
        self.register_buffer("connected", connected, persistent=False)
        importance = np.maximum(self.graph.degree[: self.n_users], 1.0) ** -user_exponent
        self.importance = (importance / importance[training_set.user_index].mean()).astype(np.float32)

    def batch_loss(self, batch: Batch, candidates: Candidates) -> Tensor:
        """The softmax loss with the graph propagated once."""
        weight = batch.weight * self.importance[batch.user_index]
        return softmax_loss(self.smoothed(), batch._replace(weight=weight), candidates, self.temperature, once=True)

    def smoothed(self) -> Smoothed:
        """All users and items after propagation."""
        total = functional.normalize(sum(self.layers_of(), start=torch.zeros(())), dim=1)
        users, items = total.split([self.n_users, self.n_items])
        return Smoothed(users, items, BELOW_EVERY_COSINE * (1 - self.get_buffer("connected")[self.n_users :]))

    def layers_of(self) -> list[Tensor]:
        """E^(0) … E^(layers), each float32[users + items, d]."""
        layers = [self.nodes * self.get_buffer("connected")[:, None]]
        for _ in range(self.layers):
            layers.append(self.graph.smooth(layers[-1]))
        return layers

    def score_sources(self, training_set: TrainingSet) -> list[ScoreSource]:
        """The cosines after one propagation."""
        smoothed = self.smoothed()
        left = torch.cat([smoothed.users, smoothed.users.new_ones(self.n_users, 1)], dim=1)
        return [ScoreSource(left.cpu().numpy(), biased(smoothed.items, smoothed.bias))]


def own_and_reach(layers: list[Tensor], graph: Graph, n_users: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `smoothed_users` needs of the layers E^(0) … of a graph: e_u float32[users, d], and of each item
    d_i^-1/2 Σ_k e_i^(k) over all layers but the last, float32[items, d]."""
    items = sum((layer[n_users:] for layer in layers[:-1]), start=torch.zeros_like(layers[0][n_users:])).numpy()
    degree = np.maximum(graph.degree[n_users:], 1.0)
    return layers[0][:n_users].numpy(), items / np.sqrt(degree)[:, None]


def smoothed_users(
    histories: Histories, own: NDArray[np.float32], reach: NDArray[np.float32]
) -> NDArray[np.floating[Any]]:
    """e_u + d_u^-1/2 Σ_i d_i^-1/2 Σ_k<layers e_i^(k) over the history, of length 1; a stranger's e_u is zero."""
    taken = (histories.taken() > 0).astype(np.float32)
    degree = np.maximum(np.asarray(taken.sum(axis=1)).ravel(), 1.0)
    known = np.where(histories.known[:, None] >= 0, own[histories.known], 0)
    total = known + taken @ reach / np.sqrt(degree)[:, None]
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))


class LightGCN(TorchRecommender):
    """Scores by the cosine of user and item vectors that were smoothed over the interaction graph.

    Needs interactions only, and of them only who took what; weights scale the loss. Users without history get the
    popular list. A new user or a new event is smoothed over the items as fitted (`fold_in`), where a new fit would also
    move the items. Costs a product with the graph's sparse matrix a layer and step, and interactions × items ×
    dimension an epoch for the softmax; beyond `full_softmax_items` items it is sampled. `user_exponent` weighs each
    interaction by the size of the user's history to the power of minus it: 0 treats interactions alike, 1 users.

    Source: He et al. 2020, "LightGCN", with the softmax of cosines over a temperature in place of the pairwise loss
    (Wu et al. 2022, "On the effectiveness of sampled softmax loss for item recommendation").
    """

    name = "lightgcn"
    factory = LightGCNModule
    module_parameters = ("dimension", "layers", "temperature", "user_exponent")

    def __init__(
        self,
        *,
        dimension: int = 64,
        layers: int = 3,
        temperature: float = 0.2,
        user_exponent: float = 0.0,
        epochs: int = 30,
        batch_size: int = 4096,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        full_softmax_items: int = 4096,
        patience: int = 5,
        seed: int = 42,
    ) -> None:
        self.dimension = dimension
        self.layers = layers
        self.temperature = temperature
        self.user_exponent = user_exponent
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.full_softmax_items = full_softmax_items
        self.patience = patience
        self.seed = seed

    @torch.inference_mode()
    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        assert isinstance(module, LightGCNModule)
        self._own, self._reach = own_and_reach(module.layers_of(), module.graph, module.n_users)

    def _left(self, histories: Histories) -> list[Matrix]:
        unit = smoothed_users(histories, self._own, self._reach)
        return [np.concatenate([unit, np.ones((len(unit), 1))], axis=1).astype(np.float32)]

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {"own": self._own, "reach": self._reach}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        self._own, self._reach = extra["own"], extra["reach"]
