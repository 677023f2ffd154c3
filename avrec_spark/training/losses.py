"""What a module is trained by: the items it has to tell apart, and the losses over them."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from avrec_spark.dataset.loader import Batch
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.training.blocked_softmax import cross_entropy

Loss = Literal["softmax", "bpr"]
# Sampled negatives that a user has interacted with are drawn anew so many times, then left as they are.
_REDRAWS = 3


class TwoSides(Protocol):
    """A module that gives vectors to users and items; the score is their product plus the item's bias."""

    def user_vectors(self, users: Tensor) -> Tensor:
        """float32[n, d] for user indices int64[n]."""

    def item_vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(float32[n, d], bias float32[n]) for item indices int64[n]."""


class Candidates:
    """The items that a batch's positives are compared with, and how often each of them is drawn.

    Only items with interactions: the others must not be pushed down for having had no chance. Draws take torch's
    global generator, which the loop seeds for every step. Tensors live on `device`.
    """

    def __init__(self, training_set: TrainingSet, full_softmax_items: int, device: str | torch.device = "cpu") -> None:
        counts = np.bincount(training_set.item_index, minlength=len(training_set.items))
        self.device = torch.device(device)
        self._items = torch.from_numpy(np.flatnonzero(counts)).to(device)
        self._share = torch.from_numpy(counts / counts.sum()).float().to(device)
        self._full = len(self._items) <= full_softmax_items
        self._draws = full_softmax_items
        self._n_items = len(training_set.items)
        self._training_set = training_set
        self._pairs: Tensor | None = None

    def of(self, batch_items: Tensor) -> tuple[Tensor, Tensor]:
        """(candidate items int64[m] in rising order, log of their expected number of draws float32[m])."""
        if self._full:
            return self._items, torch.zeros(len(self._items), device=self.device)
        candidates = torch.unique(torch.cat([batch_items, self.draw(self._draws)]))
        expected = self._share[candidates] * len(batch_items) + self._draws / len(self._items)
        return candidates, expected.log()

    def draw(self, *shape: int) -> Tensor:
        """Items drawn uniformly, int64[shape]."""
        return self._items[torch.randint(len(self._items), shape, device=self.device)]

    def negatives(self, users: Tensor, each: int) -> Tensor:
        """int64[len(users), each]: items drawn uniformly of those that the user has not touched.

        A user who has touched nearly everything gets some touched ones all the same.
        """
        drawn = self.draw(len(users), each)
        for _ in range(_REDRAWS):
            touched = self._touched(users, drawn)
            if not touched.any():
                break
            drawn = torch.where(touched, self.draw(*drawn.shape), drawn)
        return drawn

    def likely(self, users: Tensor, items: Tensor, logits: Tensor, share: float) -> Tensor:
        """bool[n, m]: the best items int64[m], by logits float32[n, m], of those that users int64[n] have not touched.

        Of each user `share` times as many as the user has touched of the items.
        """
        touched = self._touched(users, items)
        wanted = (share * touched.sum(dim=1, keepdim=True)).round().long().clamp_(max=len(items) - 1)
        others = logits.detach().masked_fill(touched, -torch.inf)
        return others > others.sort(dim=1, descending=True).values.gather(1, wanted)

    def _touched(self, users: Tensor, items: Tensor) -> Tensor:
        """bool[n, m]: whether users int64[n] have touched items int64[n, m], or all of them int64[m]."""
        if self._pairs is None:
            part = self._training_set
            pairs = np.unique(part.user_index * self._n_items + part.item_index)
            self._pairs = torch.from_numpy(pairs).to(self.device)
        wanted = users[:, None] * self._n_items + items
        places = torch.searchsorted(self._pairs, wanted).clamp_(max=len(self._pairs) - 1)
        return self._pairs[places] == wanted


def softmax_loss(
    module: TwoSides,
    batch: Batch,
    candidates: Candidates,
    temperature: float = 1.0,
    once: bool = False,
    spared: float = 0.0,
) -> Tensor:
    """Cross-entropy of each interaction's item among the candidates, times its weight, summed over the batch.

    Scores are divided by `temperature`. Sampled candidates are corrected by the log of their expected number of draws
    (Bengio and Senécal 2008). `once` scores each user of the batch once, however many interactions are theirs: the
    same, and cheaper, where a user's vector is no other each time it is asked for (by dropout, say).

    `spared` × as many candidates as a user has touched are left out for that user, the best scored of the untouched:
    who would be pushed down the most are those that the user likes and has not met. Source: false negative elimination,
    Huynh et al. 2022.
    """
    users, items, weight = tensors(batch, candidates.device)
    chosen, log_draws = candidates.of(items)
    vectors, bias = module.item_vectors(chosen)
    if once:
        users, row = torch.unique(users, return_inverse=True)
    else:
        row = torch.arange(len(users), device=users.device)

    def likely(rows: Tensor, logits: Tensor) -> Tensor:
        return candidates.likely(users[rows], chosen, logits, spared)

    return cross_entropy(
        module.user_vectors(users),
        # The smaller matrix takes the division.
        vectors / temperature,
        bias / temperature - log_draws,
        row,
        torch.searchsorted(chosen, items),
        weight,
        likely if spared else None,
    )


def bpr_loss(
    module: TwoSides, batch: Batch, candidates: Candidates, negatives: int = 1, temperature: float = 1.0
) -> Tensor:
    """−log σ((s⁺ − s⁻) / temperature), the mean over the negatives, times the interaction's weight, summed.

    `negatives` items that the user has not touched are drawn for each interaction. Source: Bayesian personalised
    ranking, Rendle et al. 2009. `item_vectors` is called once, with the positives before the negatives.
    """
    users, items, weight = tensors(batch, candidates.device)
    drawn = candidates.negatives(users, negatives)
    vectors, bias = module.item_vectors(torch.cat([items[:, None], drawn], dim=1).flatten())
    sides = vectors.view(len(users), 1 + negatives, -1)
    scores = (sides @ module.user_vectors(users)[:, :, None]).squeeze(2) + bias.view(len(users), -1)
    margins = (scores[:, :1] - scores[:, 1:]).float() / temperature
    return (-functional.logsigmoid(margins).mean(dim=1) * weight).sum()


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(user indices int64[n], item indices int64[n], weights float32[n]) on the device."""
    users, items = torch.from_numpy(batch.user_index), torch.from_numpy(batch.item_index)
    return users.to(device), items.to(device), torch.from_numpy(batch.weight).float().to(device)
