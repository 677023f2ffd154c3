"""What the fusion model learns beside recommending: means over items, to be weighed against each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Items that are told apart at once.
_CONTRASTED = 512
_TEMPERATURE = 0.1


def alignment(projected: Tensor, present: Tensor) -> Tensor:
    """InfoNCE between each two modalities of the same items: float32[n, modalities, d], bool[n, modalities] → scalar.

    The two projections of one item shall be nearer than those of two items; 0 where no two items have both modalities.
    Needs no behaviour. At most 512 items are drawn. Source: van den Oord, Li and Vinyals 2018; between modalities
    Radford et al. 2021.

    >>> same = torch.eye(3)[:, None].repeat(1, 2, 1)
    >>> round(float(alignment(same, torch.ones(3, 2, dtype=torch.bool))), 3)
    0.0
    """
    if len(projected) > _CONTRASTED:
        drawn = torch.randperm(len(projected), device=projected.device)[:_CONTRASTED]
        projected, present = projected[drawn], present[drawn]
    unit = functional.normalize(projected, dim=2)
    losses = []
    for one in range(unit.shape[1]):
        for other in range(one):
            both = present[:, one] & present[:, other]
            logits = unit[both, one] @ unit[both, other].T / _TEMPERATURE
            if len(logits) > 1:
                itself = torch.arange(len(logits), device=logits.device)
                losses.append(functional.cross_entropy(logits, itself) + functional.cross_entropy(logits.T, itself))
    return torch.stack(losses).mean() / 2 if losses else projected.new_zeros(())


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, float32[n, labels] twice → scalar: summed over an item's labels, the mean over items."""
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=1).mean()
