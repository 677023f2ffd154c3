"""The training loop: softmax over items, averaged over ranks, validated every epoch, the best epoch kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avrec_spark.dataset.loader import Batch, Loader
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.evaluation import metrics
from avrec_spark.recommend.topk import ScoreSource, top_k
from avrec_spark.training.ranks import Ranks

logger = logging.getLogger(__name__)

VALIDATION_METRIC = "validation_ndcg@10"
_K = 10


class TwoSides(Protocol):
    """A module that gives vectors to users and items; the score is their product plus the item's bias."""

    def user_vectors(self, users: Tensor) -> Tensor:
        """float32[n, d] for user indices int64[n]."""

    def item_vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(float32[n, d], bias float32[n]) for item indices int64[n]."""


# Builds the untrained module from a training set and parameters; a class at module level, to be pickled by name.
ModuleFactory = Callable[..., nn.Module]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a rank needs; `path` is the snapshot folder that all ranks can read."""

    path: str
    factory: ModuleFactory
    parameters: dict[str, Any] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 0.01
    weight_decay: float = 0.0
    # Up to this many items the softmax runs over all of them, beyond over the batch's own and as many random ones.
    full_softmax_items: int = 4096
    # Stop after so many epochs without a better validation.
    patience: int = 5
    seed: int = 42


@dataclass
class TrainingResult:
    """Parameters of the best epoch by validation, and figures of every epoch."""

    state: dict[str, NDArray[Any]]
    history: list[dict[str, float]]


def train(config: TrainingConfig, ranks: Ranks) -> TrainingResult:
    """Train one module on this rank's share of the snapshot, in step with the other ranks.

    `batch_size` is that of all ranks together, so that more ranks change the speed and not the mathematics: the same
    global batches give the same losses and parameters, but for rounding and what is drawn at random (dropout).

    Raises `NotEnoughRowGroupsError`, and `DataError` where no interaction has a weight.
    """
    torch.manual_seed(config.seed)
    training_set = TrainingSet.read(config.path)
    if not training_set.weight.any():
        raise DataError("No interaction of the training part weighs more than 0.", "Check events.weights.")
    module = config.factory(training_set, **config.parameters)
    # All ranks start from the same parameters; what they drop from now on differs.
    torch.manual_seed(config.seed + ranks.rank)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = ranks.optimizer(
        torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay), module
    )
    loader = Loader(config.path, max(1, config.batch_size // ranks.size), ranks.rank, ranks.size, config.seed)
    mean_weight = float(training_set.weight.mean())
    candidates = Candidates(training_set, config.full_softmax_items, seed=config.seed + ranks.rank)
    history: list[dict[str, float]] = []
    best, best_state, worse = -np.inf, _state(module), 0
    try:
        for epoch in range(1, config.epochs + 1):
            figures = _epoch(module, optimizer, loader, candidates, mean_weight, ranks)
            value = validate(module, training_set) if ranks.rank == 0 and training_set.validation is not None else None
            value = ranks.from_first(value)
            history.append({"epoch": epoch, **figures} | ({VALIDATION_METRIC: value} if value is not None else {}))
            logger.info("epoch %d: %s", epoch, history[-1])
            if value is None or value > best:
                best, best_state, worse = (-np.inf if value is None else value), _state(module), 0
            else:
                worse += 1
                if worse >= config.patience:
                    break
    finally:
        loader.close()
    return TrainingResult(best_state, history)


def _epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    candidates: Candidates,
    mean_weight: float,
    ranks: Ranks,
) -> dict[str, float]:
    module.train()
    started, waited = time.perf_counter(), loader.waited_seconds
    total = 0.0
    # One divisor for all batches of all ranks: then the mean over ranks and steps is the mean over interactions, also
    # where batches differ by a row or in weight.
    divisor = loader.rows_per_step * mean_weight
    for batch in loader.epoch():
        optimizer.zero_grad()
        loss = softmax_loss(cast(TwoSides, module), batch, candidates) / divisor
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach())
    seconds = time.perf_counter() - started
    return {
        "loss": ranks.mean(total / loader.steps),
        "seconds": seconds,
        "samples_per_second": loader.rows_per_step * loader.steps * ranks.size / seconds,
        "data_wait_share": (loader.waited_seconds - waited) / seconds,
    }


class Candidates:
    """The items that a batch's softmax runs over, and how often each of them is drawn.

    Only items with interactions: the others must not be pushed down for having had no chance.
    """

    def __init__(self, training_set: TrainingSet, full_softmax_items: int, seed: int) -> None:
        counts = np.bincount(training_set.item_index, minlength=len(training_set.items))
        self._items = torch.from_numpy(np.flatnonzero(counts))
        self._share = torch.from_numpy(counts / counts.sum()).float()
        self._full = len(self._items) <= full_softmax_items
        self._draws = full_softmax_items
        self._generator = torch.Generator().manual_seed(seed)

    def of(self, batch_items: Tensor) -> tuple[Tensor, Tensor]:
        """(candidate items int64[m] in rising order, log of their expected number of draws float32[m])."""
        if self._full:
            return self._items, torch.zeros(len(self._items))
        drawn = self._items[torch.randint(len(self._items), (self._draws,), generator=self._generator)]
        candidates = torch.unique(torch.cat([batch_items, drawn]))
        expected = self._share[candidates] * len(batch_items) + self._draws / len(self._items)
        return candidates, expected.log()


def softmax_loss(module: TwoSides, batch: Batch, candidates: Candidates) -> Tensor:
    """Cross-entropy of each interaction's item among the candidates, times its weight, summed over the batch.

    Sampled candidates are corrected by the log of their expected number of draws (Bengio and Senécal 2008).
    """
    users, items = torch.from_numpy(batch.user_index), torch.from_numpy(batch.item_index)
    chosen, log_draws = candidates.of(items)
    vectors, bias = module.item_vectors(chosen)
    logits = module.user_vectors(users) @ vectors.T + bias - log_draws
    losses = functional.cross_entropy(logits, torch.searchsorted(chosen, items), reduction="none")
    return (losses * torch.from_numpy(batch.weight).float()).sum()


@torch.inference_mode()
def factors(module: nn.Module, n_users: int, n_items: int) -> ScoreSource:
    """The trained module as user and item factors; the bias is one more dimension."""
    module.eval()
    sides = cast(TwoSides, module)
    users = sides.user_vectors(torch.arange(n_users))
    vectors, bias = sides.item_vectors(torch.arange(n_items))
    left = torch.cat([users, torch.ones(n_users, 1)], dim=1).numpy()
    right = torch.cat([vectors, bias[:, None]], dim=1).T.numpy()
    return ScoreSource(left.astype(np.float32), np.ascontiguousarray(right, np.float32))


def validate(module: nn.Module, training_set: TrainingSet) -> float:
    """NDCG@10 on the validation pairs, all items ranked, train items removed."""
    assert training_set.validation is not None
    source = factors(module, len(training_set.users), len(training_set.items))
    truth = training_set.validation.to_numpy(np.int64)
    users, relevant = np.unique(truth[:, 0], return_counts=True)
    lists, _ = top_k([source], users, _K, training_set.matrix()[users].astype(bool))
    # A pair as one number, so that membership is one vectorised look-up.
    n_items = len(training_set.items)
    hits = np.isin(users[:, None] * n_items + lists, truth[:, 0] * n_items + truth[:, 1]) & (lists >= 0)
    return float(metrics.per_user(hits, relevant, _K)["ndcg"].mean())


def _state(module: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}
