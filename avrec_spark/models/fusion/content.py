"""From the vectors of an item's modalities to one content vector, by attention over those that are present."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from avrec_spark.dataset.training_set import FeatureMatrix

# A gate starts open, σ(2) = .88, and closes where its modality does not help.
_OPEN = 2.0


class ContentEncoder(nn.Module):
    """c_i = Σ_m a_im σ(o_m) P_m(x_im) over the modalities m that item i has.

    x_im is standardised over the catalogue, dimension by dimension. P_m projects it through few dimensions (`rank`):
    tastes agree on few properties of content, and a full projection learns the items by heart. Dropping values of x_im
    in training (`dropout`) is what keeps P_m from doing so. The attention a_i is a softmax, over what is present, of a
    learned score of each projection, so that it sums to 1; the gate σ(o_m), one number a modality, closes to leave a
    modality out altogether. In training modalities are dropped at random (`modality_dropout`), never an item's last
    one. An item without any has a zero vector.
    """

    def __init__(
        self, widths: Mapping[str, int], *, dimension: int, rank: int, dropout: float, modality_dropout: float
    ) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.modality_dropout = modality_dropout
        self.project, self.score = nn.ModuleDict(), nn.ModuleDict()
        for name, width in widths.items():
            self.project[name] = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(width, rank, bias=False), nn.Linear(rank, dimension)
            )
            self.score[name] = nn.Linear(dimension, 1)
            self.register_buffer(f"mean_{name}", torch.zeros(width))
            self.register_buffer(f"scale_{name}", torch.ones(width))
        self.open = nn.Parameter(torch.full((len(widths),), _OPEN))

    def fit_scale(self, features: Mapping[str, FeatureMatrix]) -> None:
        """Take the mean and deviation of each dimension over the items that have the modality."""
        for name, width in self.widths.items():
            values = features[name].values[features[name].present]
            deviation = np.maximum(values.std(axis=0), 1e-6) * np.sqrt(width)
            self.get_buffer(f"mean_{name}").copy_(torch.from_numpy(values.mean(axis=0)))
            self.get_buffer(f"scale_{name}").copy_(torch.from_numpy(deviation))

    def standardised(self, name: str, vectors: Tensor, present: Tensor) -> Tensor:
        """Vectors float32[n, width] of mean 0 and variance 1 / width a dimension; zero where bool[n] says absent."""
        scaled = (vectors - self.get_buffer(f"mean_{name}")) / self.get_buffer(f"scale_{name}")
        return torch.where(present[:, None], scaled, 0)

    def projected(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """P_m(x_im), float32[n, modalities, d], of standardised vectors float32[n, width] a modality."""
        return torch.stack([self.project[name](vectors[name]) for name in self.widths], dim=1)

    def fused(self, projected: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """(c float32[n, d], a_im σ(o_m) float32[n, modalities]) given projections and bool `present`[n, modalities]."""
        if self.training:
            kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
            present = torch.where(kept.any(dim=1, keepdim=True), kept, present)
        scores = torch.cat([self.score[name](projected[:, m]) for m, name in enumerate(self.widths)], dim=1)
        # A row of -inf, of an item without any modality, has a softmax of NaN.
        shares = torch.nan_to_num(torch.softmax(scores.masked_fill(~present, -torch.inf), dim=1))
        gates = shares * torch.sigmoid(self.open)
        return (gates[:, :, None] * projected).sum(dim=1), gates
